"""Small values that workers exchange beside gradients, by way of the scheduler.

Every call of a store is a meeting of all workers that have not ended (scheduler/meetings.py). Its
name is the store's number and the call's. So all workers make the same calls in the same order,
from one thread; a worker that makes a different call ends the job with a message that names both.
"""

from typing import Any, Callable, Dict, List, Optional

from baryon.ps import PeerError, UsageError
from baryon.scheduler.control import MAX_VALUE_NBYTES, ControlClient

from .reduction import check_op, reduce
from .values import decode, encode

__all__ = ["Collectives"]

_COMPARISON = "a comparison of all workers' weights"
_MAX_ALL_NBYTES = 64 << 20  # a call's values together: the scheduler sends all to each worker


class Collectives:
    """The calls of store number ``store`` by worker ``rank``.

    ``on_call()`` is called before each call that takes place; one that raises UsageError does not.
    values.py defines what a value is.
    """

    def __init__(
        self,
        control: ControlClient,
        rank: int,
        num_workers: int,
        store: int,
        on_call: Callable[[], object],
    ) -> None:
        self._control = control
        self._rank = rank
        self._num_workers = num_workers
        self._store = store
        self._on_call = on_call
        self._calls = 0
        self._first = 0  # the lowest rank that has not ended

    def barrier(self, name: Optional[str]) -> None:
        self._gather("barrier" if name is None else f"barrier {name!r}", b"")

    def allgather(self, value: Any) -> List[Any]:
        return [decode(data) for data in self._gather("allgather", encode(value)).values()]

    def broadcast(self, value: Any, root: int) -> Any:
        if root not in range(self._num_workers):
            raise UsageError(
                f"there is no worker {root!r}; root is from 0 to {self._num_workers - 1}"
            )
        own = encode(value) if root == self._rank else b""
        given = self._gather(f"broadcast_object(root={root})", own, num_values=1)
        if root not in given:
            raise PeerError(f"worker {root}, which was to broadcast_object, has ended")
        return decode(given[root])

    def allreduce(self, value: Any, op: str) -> Any:
        check_op(op)
        return reduce(self.exchange(f"allreduce({op!r})", value), op, self._rank)

    def digests(self, own: Any) -> Dict[int, Any]:
        """By rank, the digests of the first worker that has not ended, and this worker's."""
        while True:
            value = encode(own) if self._rank == self._first else b""
            given = self._gather(_COMPARISON, value, num_values=1)
            if self._first in given:
                return {self._first: decode(given[self._first]), self._rank: own}
            self._first = min(given)

    def findings(self, own: str) -> List[str]:
        """What all workers have found in such a comparison."""
        return list(self.exchange(_COMPARISON, own).values())

    def exchange(self, call: str, value: Any) -> Dict[int, Any]:
        """All workers' values by rank, in a call of that name; its own is the very same object."""
        given = self._gather(call, encode(value))
        return {r: value if r == self._rank else decode(data) for r, data in given.items()}

    def _gather(
        self, call: str, value: bytes, num_values: Optional[int] = None
    ) -> Dict[int, bytes]:
        """{rank: value} in rank order; ``num_values`` workers (by default all) give a value."""
        limit = min(MAX_VALUE_NBYTES, _MAX_ALL_NBYTES // (num_values or self._num_workers))
        if len(value) > limit:
            raise UsageError(
                f"{call} with {len(value) / 2**20:.1f} MiB: with {self._num_workers} workers, each "
                f"may give {limit / 2**20:.3g} MiB; larger arrays go through the store: "
                "kv.init a key and kv.pushpull it"
            )
        number = self._calls + 1
        self._on_call()
        given = self._control.gather(f"call {number} of store {self._store}", call, value)
        self._calls = number
        return dict(given)
