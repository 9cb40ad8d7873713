"""What a server does with what it has merged if there are servers above it.

To them it is a child like any other: it opens the stores and declares the keys that its own
children do, and sends on the sum of their contributions slice by slice, as soon as it has it. Their
answer is received into the memory from which its own children are answered, so it is not copied
here. Runs in the server's reactor, as the `Client` below it does.
"""

from typing import Callable, Dict, List, Optional, Tuple, Union

import numpy as np

from .. import wire
from ..answers import Compressed
from ..client import Client, Operation, RowOperation, StoreClient
from ..compression import Compression
from ..memory import Memory
from ..plan import Plan
from ..rows import as_bytes, encoded
from .rising_store import Rise, RisingStore
from .store import Reply

__all__ = ["Relay"]


class _Rising(Operation):
    __slots__ = ("above", "answered", "compressed")

    above: StoreClient  # which is not closed before the answer
    answered: Callable[[Optional[Compressed]], None]
    compressed: Optional[Compressed]  # its only slice's value, if it came so

    def arrived_compressed(self, payload: np.ndarray, is_change: bool) -> None:
        self.compressed = Compressed(payload, is_change)

    def done(self, error: Optional[str]) -> None:
        if error is None:  # otherwise the client says so
            self.answered(self.compressed)


class _RisingRows(RowOperation):
    __slots__ = ("above", "answered")

    above: StoreClient
    answered: Callable[[], None]

    def done(self, error: Optional[str]) -> None:
        if error is None:
            self.answered()


_Make = Callable[[int, RisingStore, Rise], Union[_Rising, _RisingRows]]


class Relay:
    """``on_answers(store, replies)``: what children are to be told; ``on_accepted(message)``: that
    a setting of worker 0 has been accepted above."""

    def __init__(
        self,
        client: Client,
        on_answers: Callable[[int, List[Reply]], None],
        on_accepted: Callable[[wire.Accepted], None],
    ) -> None:
        self._client = client
        self._on_answers = on_answers
        self._on_accepted = on_accepted
        self._above: Dict[int, StoreClient] = {}
        self._accepted: Dict[int, int] = {}  # store -> serial number of the last setting

    def open(self, message: wire.Open, memory: Tuple[Memory, Memory]) -> None:
        """``memory``: of the store below, where its sums lie and where its values are read."""
        self._above[message.store] = self._client.open(message, memory)
        self._accepted[message.store] = 0

    def close(self, number: int) -> None:
        """All children have closed a store: close it above."""
        del self._above[number], self._accepted[number]

    def declare(self, number: int, plan: Plan) -> None:
        """Declare to those above what ``plan`` has and they do not know."""
        above = self._above[number]
        for key in plan.keys[above.num_keys :]:
            above.declare(key.name, key.shape, key.dtype.name)

    def compress(self, number: int, compression: Compression) -> None:
        """Compress what is sent up."""
        self._above[number].set_compression(compression)

    def rise(self, number: int, store: RisingStore) -> None:
        """Send up what has been merged."""
        above = self._above[number]
        rising, store.rising = store.rising, []
        for rise in rising:
            rows = rise.kind in ("push_rows", "pull_rows")
            make: _Make = self._row_operation if rows else self._operation
            operation = make(number, store, rise)
            operation.above = above
            above.announce(operation)
            above.ready(operation)

    def _operation(self, number: int, store: RisingStore, rise: Rise) -> _Rising:
        above, slice_ = self._above[number], rise.slice
        key = above.key(slice_.key.name)
        # Front layers are declared first, and needed first.
        operation = _Rising(rise.kind, key, True, -key.number, (key.slices[slice_.index],))
        operation.round = rise.round if rise.kind == "push" else None
        operation.version = rise.version
        operation.compressed = None
        operation.answered = lambda compressed: self._pass_down(
            number, store.answered_above(slice_, compressed)
        )
        return operation

    def _row_operation(self, number: int, store: RisingStore, rise: Rise) -> _RisingRows:
        key = self._above[number].key(rise.slice.key.name)
        slice_ = key.slices[rise.slice.index]
        if rise.rows is not None:
            payload = encoded(rise.rows)
        else:
            assert rise.ids is not None
            payload = as_bytes(rise.ids)
        operation = _RisingRows(rise.kind, key, {slice_: payload}, -key.number)

        def answered() -> None:
            if rise.rows is not None:
                replies = store.answered_above(rise.slice)
            else:
                replies = store.rows_above(rise.slice, operation.values[slice_])
            self._pass_down(number, replies)

        operation.answered = answered
        operation.round = rise.round if rise.rows is not None else None
        operation.version = rise.version
        return operation

    def _pass_down(self, number: int, replies: List[Reply]) -> None:
        """Tell children what they have asked for, unless all have left or closed the store."""
        if number in self._above:
            self._on_answers(number, replies)

    def join(self, number: int, done: Callable[[], None]) -> None:
        """All children have joined in a store: join those above."""
        self._above[number].join(done)

    def set(self, message: Union[wire.SetUpdater, wire.SetHyper], is_new: bool) -> None:
        """Pass on a setting of worker 0; a repeat is accepted if the first one has been."""
        number, serial = message.store, message.serial
        if not is_new:
            if serial <= self._accepted[number]:
                self._on_accepted(wire.Accepted(number, serial))
            return
        above, done = self._above[number], self._when_accepted(number, serial)
        if isinstance(message, wire.SetUpdater):
            above.set_updater(message.kind, message.blob, done)
        else:
            m = message
            above.set_hyper(m.version, m.scalars, m.lr_mult, m.wd_mult, done, m.oldest)

    def _when_accepted(self, number: int, serial: int) -> Callable[[], None]:
        def done() -> None:
            self._accepted[number] = serial
            self._on_accepted(wire.Accepted(number, serial))

        return done
