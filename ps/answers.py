"""Values that travel down compressed, in synchronous stores: what both ends keep for that. Pure.

All tasks must have the same bits, also those that share memory with a server and receive nothing.
So a server changes its values by what it sends of them and by nothing else:

- Where an optimizer updates, it does so on an exact copy of the server's own. Sent is what the
  value lacks of that copy, encoded, and the value becomes what it was plus what was sent, decoded.
  What is lost is lacking in the next round too, and sent then: error feedback without a residual
  (as in P. Richtarik et al., "EF21", 2021, arXiv:2106.05203), which is right also for optimizers
  that do not add to a weight but make it anew (FTRL, and those with a master copy).
- Without an optimizer the value is a sum of gradients. That is encoded with a residual, and the
  value is what was sent, decoded.

A *change* is of use only to who has the value before it. So `Answers` counts the versions of each
slice and keeps which one a child was sent last on its present connection; whoever cannot use the
change is sent the value itself. `Received` is the other end.
"""

from collections import defaultdict
from typing import DefaultDict, Dict, Iterator, NamedTuple, Optional, Sequence

import numpy as np

from .compression import Compression
from .errors import ProtocolError
from .plan import Slice

__all__ = ["Answers", "Compressed", "Part", "Received"]


class Compressed(NamedTuple):
    """A slice's new value as it travels (uint8): whole, or what is to be added to the last one."""

    payload: np.ndarray
    is_change: bool


class Part(NamedTuple):
    """``num_slices`` slices of a run, from number ``start`` on; None: their values, as they are."""

    start: int
    num_slices: int
    compressed: Optional[Compressed]


class Answers:
    """Of one store on one server."""

    def __init__(self, compression: Compression, has_whole_keys: bool = False) -> None:
        self._compression = compression
        self._has_whole_keys = has_whole_keys
        self._exact: Dict[Slice, np.ndarray] = {}  # by the first slice of what is updated at once
        self._residuals: Dict[Slice, np.ndarray] = {}
        self._versions: Dict[Slice, int] = {}
        self._latest: Dict[Slice, Compressed] = {}  # how to get to the latest version
        self._sent: DefaultDict[int, Dict[Slice, int]] = defaultdict(dict)  # child -> versions

    def exact(self, first: Slice, value: np.ndarray) -> np.ndarray:
        """What an optimizer is to update instead of ``value``, which is that of a slice, or of the
        whole key that begins with it; always the same array, begun as a copy of ``value``."""
        if not self._is_exact(first):
            return value
        found = self._exact.get(first)
        if found is None:
            found = self._exact[first] = value.copy()
        return found

    def publish(self, slice_: Slice, value: np.ndarray, is_updated: bool) -> None:
        """Bring ``value`` to the next version, which `exact` has if ``is_updated``; otherwise it is
        in ``value`` itself."""
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
                # Up to now whole values were sent, which nobody has kept: no change is of use.
                version = self._versions[slice_] = version + 1
            with np.errstate(all="ignore"):
                payload = codec.encode(exact - value, None, version)
            add_change(self._compression, payload, value)
        self._latest[slice_] = Compressed(payload, exact is not None)

    def pass_on(self, slice_: Slice, compressed: Optional[Compressed]) -> None:
        """The servers above have sent the next version, compressed or not."""
        self._versions[slice_] = self._versions.get(slice_, 0) + 1
        self._latest.pop(slice_, None)
        if compressed is not None:
            self._latest[slice_] = compressed

    def parts(self, child: int, run: Sequence[Slice]) -> Iterator[Part]:
        """In what a run's values are to be sent to a child, as few parts as possible."""
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
        """A child may not have what it was sent."""
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
    """What a task was sent last of each slice that may be compressed: its own copy, since nobody
    knows when another task of the host writes the same into memory that they share."""

    def __init__(self, compression: Compression) -> None:
        self._compression = compression
        self._last: Dict[Slice, np.ndarray] = {}

    def take(self, slice_: Slice, values: np.ndarray) -> None:
        """Take note of a value that came as it is (bytes, uint8)."""
        if self._compression.takes(slice_):
            last = self._last.get(slice_)
            if last is None:
                self._last[slice_] = values.copy()
            else:
                last[:] = values

    def decode(self, slice_: Slice, compressed: Compressed) -> np.ndarray:
        """The value (bytes, uint8) that came compressed; raises ProtocolError if it cannot have."""
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
    """The one way in which a change is added, so that all tasks get the same bits."""
    change = np.empty_like(value)
    compression.codec.decode(payload, change)
    with np.errstate(all="ignore"):
        np.add(value, change, out=value)
