"""What a sender keeps of the slices that it compresses. Pure."""

from typing import Dict

import numpy as np

from ..plan import Slice
from .setting import Compression

__all__ = ["Encoder"]


class Encoder:
    """Encodes each contribution once: a repeat, after a reconnect, sends the same bytes.

    What a contribution has lost is in its slice's residual and leaves with the next one.
    """

    def __init__(self, compression: Compression) -> None:
        self._compression = compression
        self._residuals: Dict[Slice, np.ndarray] = {}
        self._counts: Dict[Slice, int] = {}
        self._unanswered: Dict[Slice, np.ndarray] = {}

    def takes(self, slice_: Slice) -> bool:
        return self._compression.takes(slice_)

    def payload(self, slice_: Slice, values: np.ndarray) -> np.ndarray:
        """The bytes (uint8) to send of a slice's ``values`` (bytes, uint8), until `answered`."""
        payload = self._unanswered.get(slice_)
        if payload is None:
            dtype, codec = slice_.key.dtype, self._compression.codec
            residual = self._residuals.get(slice_)
            if residual is None:
                residual = codec.new_residual(slice_.stop - slice_.start, dtype)
                self._residuals[slice_] = residual
            count = self._counts[slice_] = self._counts.get(slice_, 0) + 1
            payload = codec.encode(values.view(dtype), residual, count)
            self._unanswered[slice_] = payload
        return payload

    def answered(self, slice_: Slice) -> None:
        """The slice's contribution has arrived; the next `payload` is another's."""
        self._unanswered.pop(slice_, None)
