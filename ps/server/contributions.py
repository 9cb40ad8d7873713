"""How the children of a store encode their pushes, on which they must agree. Pure.

merging_store.py sums what they push.
"""

from typing import Optional, Sequence, Set

import numpy as np

from ..compression import Compression
from ..errors import ProtocolError, UsageError
from ..plan import Slice

__all__ = ["Contributions"]


class Contributions:
    """The contributions to one store on one server; ``names`` are the children's."""

    def __init__(self, names: Sequence[str]) -> None:
        self.compression: Optional[Compression] = None
        self._names = names
        self._author = -1  # the first child to say so
        self._agreed: Set[int] = set()
        self._pusher: Optional[int] = None  # a child that pushed before that

    def agree(self, child: int, compression: Compression) -> bool:
        """A child says how it compresses; returns whether it is the first to say so.

        Raises UsageError if another child has said otherwise, or has pushed already.
        """
        name = self._names[child]
        is_first = self.compression is None
        if is_first and self._pusher is not None:
            raise UsageError(
                f"{name} set gradient compression after {self._names[self._pusher]} had pushed "
                "without it; call set_gradient_compression on all workers, before the first push"
            )
        if is_first:
            self.compression, self._author = compression, child
        elif str(self.compression) != str(compression):
            raise UsageError(
                f"gradient compression is {self.compression} on {self._names[self._author]} and "
                f"{compression} on {name}; give all workers the same compression_params"
            )
        self._agreed.add(child)
        return is_first

    def check(self, child: int) -> None:
        """Raise UsageError if other children compress their pushes and this one does not."""
        if self.compression is not None and child not in self._agreed:
            raise UsageError(
                f"{self._names[self._author]} compresses gradients and {self._names[child]} does "
                "not; call set_gradient_compression on all workers, before the first push"
            )

    def pushed(self, child: int) -> None:
        """A child has pushed."""
        if self.compression is None:
            self._pusher = child

    def decoded(self, child: int, slice_: Slice, payload: np.ndarray) -> np.ndarray:
        """The bytes (uint8) of a slice that a child has pushed encoded."""
        if self.compression is None or not self.compression.takes(slice_):
            raise ProtocolError(f"{self._names[child]} compressed {slice_}, which it must not")
        values = np.empty(slice_.stop - slice_.start, slice_.key.dtype)
        self.compression.codec.decode(payload, values)
        return values.view(np.uint8)
