"""Compressed answers in synchronous stores: what both ends keep for them. Pure.

All tasks must have the same bits, including those that share memory with a server and receive
nothing. So a server changes its values only by what it sends:

- With an optimizer, the optimizer updates an exact copy on the server. The server sends the
  difference between this copy and the value, encoded, and adds the decoded difference to the value.
  What the encoding loses is part of the next round's difference: error feedback without a residual
  (P. Richtarik et al., "EF21", 2021, arXiv:2106.05203). It also suits optimizers that compute a
  weight anew instead of adding to it (FTRL, and those with a master copy).
- Without an optimizer, the value is a sum of gradients. The server encodes it with a residual and
  sends it, and the value becomes the decoded sum.

A *change* is useful only to a child that has the value before it. So `Answers` counts the versions
of each slice and keeps the version that each child was sent last on its present connection. A child
that cannot use a change is sent the value itself. `Received` is the other end.
"""

from collections import defaultdict
from typing import DefaultDict, Dict, Iterator, NamedTuple, Optional, Sequence

import numpy as np

from .compression import Compression
from .errors import ProtocolError
from .plan import Slice

__all__ = ["Answers", "Compressed", "Part", "Received"]


class Compressed(NamedTuple):
    """A slice's new value as it travels (uint8): whole, or as a change of the last value."""

    payload: np.ndarray
    is_change: bool


class Part(NamedTuple):
    """``num_slices`` slices of a run, from number ``start`` on; ``compressed`` is None if their
    values are sent as they are."""

    start: int
    num_slices: int
    compressed: Optional[Compressed]


class Answers:
    """The compressed answers of one store on one server."""

    def __init__(self, compression: Compression, has_whole_keys: bool = False) -> None:
        self._compression = compression
        self._has_whole_keys = has_whole_keys
        self._exact: Dict[Slice, np.ndarray] = {}  # by the slice that names a unit
        self._residuals: Dict[Slice, np.ndarray] = {}
        self._versions: Dict[Slice, int] = {}
        self._latest: Dict[Slice, Compressed] = {}  # leads to the latest version
        self._sent: DefaultDict[int, Dict[Slice, int]] = defaultdict(dict)  # child -> versions

    def exact(self, first: Slice, value: np.ndarray) -> np.ndarray:
        """The array that an optimizer updates instead of ``value``, the value of a slice or of the
        whole key that begins with it. Always the same array, first a copy of ``value``."""
        if not self._is_exact(first):
            return value
        found = self._exact.get(first)
        if found is None:
            found = self._exact[first] = value.copy()
        return found

    def publish(self, slice_: Slice, value: np.ndarray, is_updated: bool) -> None:
        """Bring ``value`` to the next version. The exact version is in the array of `exact` if
        ``is_updated``, and in ``value`` itself otherwise."""
        exact = self._exact_of(slice_) if is_updated else None
        if not self._compression.takes(slice_):
            if exact is not None:
                value[:] = exact
            return
        codec = self._compression.codec
        version = self._versions[slice_] = self._versions.get(slice_, 0) + 1
        if exact is None:
            if slice_ not in self._residuals:
                self._residuals[slice_] = codec.new_residual(value.size, value.dtype)
            payload = codec.encode(value, self._residuals[slice_], version)
            codec.decode(payload, value)
        else:
            if self._residuals.pop(slice_, None) is not None:
                # Whole values were sent up to now, and no child has kept them: skip a version.
                version = self._versions[slice_] = version + 1
            with np.errstate(all="ignore"):
                payload = codec.encode(exact - value, None, version)
            add_change(self._compression, payload, value)
        self._latest[slice_] = Compressed(payload, exact is not None)

    def pass_on(self, slice_: Slice, compressed: Optional[Compressed]) -> None:
        """The servers above have sent the next version, perhaps compressed."""
        self._versions[slice_] = self._versions.get(slice_, 0) + 1
        self._latest.pop(slice_, None)
        if compressed is not None:
            self._latest[slice_] = compressed

    def parts(self, child: int, run: Sequence[Slice]) -> Iterator[Part]:
        """The parts in which a run's values are sent to a child, as few as possible."""
        start = 0
        for number, slice_ in enumerate(run):
            compressed = self._next(child, slice_) if self._compression.takes(slice_) else None
            if compressed is not None:
                if start < number:
                    yield Part(start, number - start, None)
                yield Part(number, 1, compressed)
                start = number + 1
        if start < len(run):
            yield Part(start, len(run) - start, None)

    def forget(self, child: int) -> None:
        """A child may have lost the values that it was sent."""
        self._sent.pop(child, None)

    def _next(self, child: int, slice_: Slice) -> Optional[Compressed]:
        version, had = self._versions.get(slice_, 0), self._sent[child].get(slice_)
        self._sent[child][slice_] = version
        latest = self._latest.get(slice_)
        return None if latest is None or (latest.is_change and had != version - 1) else latest

    def _is_exact(self, slice_: Slice) -> bool:
        if self._has_whole_keys:
            return self._compression.has_part_of(slice_.key)
        return self._compression.takes(slice_)

    def _exact_of(self, slice_: Slice) -> Optional[np.ndarray]:
        if not self._is_exact(slice_):
            return None
        if self._has_whole_keys:
            return self._exact[slice_.key.slices[0]][slice_.start : slice_.stop]
        return self._exact[slice_]


class Received:
    """The value that a task was sent last, for each slice that may be compressed. It is a copy,
    because another task of the host may write the next value to their shared memory at any time."""

    def __init__(self, compression: Compression) -> None:
        self._compression = compression
        self._last: Dict[Slice, np.ndarray] = {}

    def take(self, slice_: Slice, values: np.ndarray) -> None:
        """Keep a value that came uncompressed (bytes, uint8)."""
        if self._compression.takes(slice_):
            last = self._last.get(slice_)
            if last is None:
                self._last[slice_] = values.copy()
            else:
                last[:] = values

    def decode(self, slice_: Slice, compressed: Compressed) -> np.ndarray:
        """The value (bytes, uint8) that came compressed. Raises ProtocolError if this slice is not
        compressed, or the value before a change was not sent."""
        payload, is_change = compressed
        if not self._compression.takes(slice_):
            raise ProtocolError(f"a compressed value of {slice_}, which is not to be compressed")
        if not is_change:
            self._last.pop(slice_, None)
            value = np.empty(slice_.stop - slice_.start, slice_.key.dtype)
            self._compression.codec.decode(payload, value)
            return value.view(np.uint8)
        last = self._last.get(slice_)
        if last is None:
            raise ProtocolError(f"a change of {slice_}, whose value has not been sent")
        add_change(self._compression, payload, last.view(slice_.key.dtype))
        return last


def add_change(compression: Compression, payload: np.ndarray, value: np.ndarray) -> None:
    """Add a change to a value. All tasks do it here, so all get the same bits."""
    change = np.empty_like(value)
    compression.codec.decode(payload, change)
    with np.errstate(all="ignore"):
        np.add(value, change, out=value)
