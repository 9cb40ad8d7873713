"""Row-sparse arrays on their way to the servers and back.

The ids of a gradient's rows are known when it has been computed, so pushing one waits for that, as
pulling rows waits until they are there: unlike dense arrays, which do neither. To the other
operations of the key these are operations of MXNet's engine as the dense ones are: they take place
in the script's order.
"""

import threading
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import mxnet as mx
import numpy as np

from baryon.ps import (
    Key,
    PeerError,
    RowOperation,
    Rows,
    Slice,
    UsageError,
    ids_in,
    summed,
    union,
)  # fmt: skip

from .arguments import is_sparse
from .engine import as_handles, complete, push_async
from .exchange import Place

__all__ = ["RowPull", "push_rows", "rows_of_all", "with_row_ids"]


def rows_of_all(key: Key, arrays: Sequence[Any]) -> Rows:
    """The sum of the devices' row-sparse arrays (level 0), once they are computed.

    Raises UsageError unless they have the key's shape and dtype, and ids that it has.
    """
    total: Optional[Rows] = None
    for array in arrays:
        if not is_sparse(array) or array.shape != key.shape or array.dtype != key.dtype:
            raise UsageError(
                f"key {key.name!r} is {key.dtype.name}{key.shape}, but the array given is "
                f"{array.stype} {np.dtype(array.dtype).name}{array.shape}; those of several "
                "devices are all dense or all row_sparse"
            )
        ids, values = array.indices.asnumpy(), array.data.asnumpy()
        _check(key, ids)
        rows = summed(ids.reshape(-1), values.reshape(ids.size, key.row_size))
        total = rows if total is None else union(total, rows)
    assert total is not None
    return total


def _as_ids(key: Key, row_ids: Any) -> np.ndarray:
    """``row_ids``, an array of any shape and numeric dtype, as int64, ascending, each there once.

    Raises UsageError unless they are rows of the key, and for numbers that stand for several in a
    dtype as narrow as theirs.
    """
    given = row_ids.asnumpy() if isinstance(row_ids, mx.nd.NDArray) else np.asarray(row_ids)
    if given.dtype.kind not in "iuf":
        raise UsageError(
            f"row_ids for key {key.name!r} are {given.dtype.name}; they are the numbers of rows, "
            "best as int64 (np.flatnonzero makes them of a mask)"
        )
    if given.dtype.kind == "f":
        if (given != np.trunc(given)).any():  # also if not a number
            raise UsageError(f"row_ids for key {key.name!r} that are no whole numbers")
        limit = 2 ** (np.finfo(given.dtype).nmant + 1)
        if (abs(given) >= limit).any():
            raise UsageError(
                f"row_ids for key {key.name!r} reach {abs(given).max():.0f} in {given.dtype.name}, "
                f"which holds whole numbers exactly only below {limit}: some may be other rows "
                "than were meant; make them as int64, as in mx.nd.array(ids, dtype='int64')"
            )
    ids = np.unique(given.astype(np.int64))
    _check(key, ids)
    return ids


def _check(key: Key, ids: np.ndarray) -> None:
    if ids.size and not (ids.min() >= 0 and ids.max() < key.shape[0]):
        raise UsageError(
            f"rows {ids.min()} to {ids.max()} of key {key.name!r}, which has {key.shape[0]} rows"
        )


def push_rows(
    place: Place, payloads: Dict[Slice, np.ndarray], priority: int, version: Optional[int]
) -> None:
    """Queue the contribution of some rows (`rows_in`); the steps of a key must be queued one after
    the other. ``version`` is that of the optimizer's attributes."""
    step = _Step(place, "push_rows", payloads, priority, _nothing)
    step.version = version
    step.enqueue()


class RowPull:
    """Rows of a key on their way to ``outs`` since it was made: to each those of its ``row_ids``.

    Steps as in `push_rows`; raises UsageError as that does, and as `_as_ids`.
    """

    def __init__(self, place: Place, outs: List[Any], row_ids: List[Any], priority: int) -> None:
        key = self._key = place.key
        self._store = place.store
        for out in outs:
            if not is_sparse(out) or out.shape != key.shape:
                raise UsageError(
                    f"rows of key {key.name!r} are pulled to row_sparse arrays of the shape "
                    f"{key.shape}, not to a {getattr(out, 'stype', type(out).__name__)} one of "
                    f"{getattr(out, 'shape', 'no shape')}"
                )
        self._outs = outs
        self._wanted = [_as_ids(key, given) for given in row_ids]
        ids = self._ids = np.unique(np.concatenate(self._wanted))
        self._error: Optional[str] = None
        self._done = threading.Event()
        payloads = ids_in(place.key, ids)
        self._step = _Step(place, "pull_rows", payloads, priority, self._on_done)
        if payloads:
            self._step.enqueue()
        else:
            self._done.set()

    def _on_done(self, error: Optional[str]) -> None:
        self._error = error
        self._done.set()

    def wait(self) -> None:
        """Wait for the rows and put them into the outs.

        Raises PeerError if they never come, and WaitTimeout.
        """
        self._store.wait(self._done, f"rows of key {self._key.name!r}")
        if self._error is not None:
            raise PeerError(self._error)
        parts = [self._step.values[slice_] for slice_ in self._step.slices if self._ids.size]
        pulled = np.concatenate([np.empty(0, np.uint8), *parts]).view(self._key.dtype)
        pulled = pulled.reshape(self._ids.size, *self._key.shape[1:])
        for out, ids in zip(self._outs, self._wanted):
            self._put(ids, pulled[np.searchsorted(self._ids, ids)], out)

    def _put(self, ids: np.ndarray, values: np.ndarray, out: Any) -> None:
        shape, dtype = self._key.shape, out.dtype
        if ids.size:
            rows = mx.nd.sparse.row_sparse_array((values, ids), shape=shape, dtype=dtype)
        else:
            rows = mx.nd.sparse.zeros("row_sparse", shape, dtype=dtype)
        with mx.autograd.pause():  # a script pulls what its forward pass, being recorded, needs
            rows.copyto(out)


class _Step(RowOperation):
    """A row operation as the store knows it, and as the engine does."""

    __slots__ = ("_completion", "_on_done", "_place")

    def __init__(
        self,
        place: Place,
        kind: str,
        payloads: Dict[Any, np.ndarray],
        priority: int,
        on_done: Callable[[Optional[str]], None],
    ) -> None:
        super().__init__(kind, place.key, payloads, priority)
        self._place = place
        self._on_done = on_done

    def enqueue(self) -> None:
        place = self._place
        place.store.announce(self)
        push_async(self, as_handles([place.outgoing, place.incoming]), self.priority)

    def start(self, completion: bytes) -> None:
        self._completion = completion
        self._place.store.ready(self)

    def done(self, error: Optional[str]) -> None:
        complete(self._completion, error)
        self._on_done(error)

    def failed(self, error: Optional[str]) -> None:
        if error is not None:
            self._place.fail(error)
        # Else what was queued before for the key has failed, of which the store has been told.
        self._on_done(error or f"an earlier operation of key {self.key.name!r} has failed")


def _nothing(error: Optional[str]) -> None:
    pass


def with_row_ids(key: Any, out: Any, row_ids: Any) -> Iterator[Tuple[Any, List[Any], List[Any]]]:
    """(key, outs, row ids for each of them) for a key and its array or arrays, or for lists of
    both; ``row_ids`` are one array for all, or in a list one for each."""
    is_list = isinstance(row_ids, (list, tuple))
    if isinstance(key, (list, tuple)):
        given = list(row_ids) if is_list else [row_ids] * len(key)
        if not isinstance(out, (list, tuple)) or not len(key) == len(out) == len(given):
            raise UsageError(
                f"{len(key)} keys need as many arrays to pull to, and row_ids for each"
            )
        for one, outs, ids in zip(key, out, given):
            yield from with_row_ids(one, outs, ids)
        return
    outs = list(out) if isinstance(out, (list, tuple)) else [out]
    given = list(row_ids) if is_list else [row_ids]
    if len(given) == 1:
        given *= len(outs)
    if not outs or len(given) != len(outs):
        raise UsageError(
            f"key {key!r} comes with {len(outs)} arrays to pull to and {len(given)} row_ids; "
            "it needs one for each, or one for all"
        )
    yield key, outs, given
