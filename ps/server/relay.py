"""A server with servers above it: what it passes on to them, and what it passes down.

To the servers above it is a child like any other. It opens the stores and declares the keys that
its own children do, and sends up the sum of their contributions slice by slice, as soon as each is
complete. The answer is received into the memory from which its own children are answered, so this
module copies nothing. Runs in the server's reactor thread, as its `Client` does.
"""

from typing import Any, Callable, Dict, List, Optional, Union

import numpy as np

from .. import wire
from ..answers import Compressed
from ..client import Client, Operation, RowOperation, StoreClient
from ..compression import Compression
from ..memory import staging
from ..plan import Plan
from ..rows import as_bytes, encoded
from .rising_store import Rise, RisingStore
from .slot import Reply
from .store import Store
from .table import Opened
from .upstream import Site, Upstream, check_kind

__all__ = ["Relay"]


class _Rising(Operation):
    __slots__ = ("above", "answered", "compressed")

    above: StoreClient  # which is not closed before the answer
    answered: Callable[[Optional[Compressed]], None]
    compressed: Optional[Compressed]  # its only slice's value, if that came compressed

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


class Relay(Upstream):
    """Reaches the servers above by ``client``; ``on_answers(store, replies)`` tells children what
    those have answered."""

    def __init__(
        self,
        site: Site,
        on_accepted: Callable[[wire.Accepted], None],
        client: Client,
        on_answers: Callable[[int, List[Reply]], None],
    ) -> None:
        super().__init__(site, on_accepted)
        self._client = client
        self._on_answers = on_answers
        self._above: Dict[int, StoreClient] = {}
        self._below: Dict[int, RisingStore] = {}
        self._accepted: Dict[int, int] = {}  # store -> serial number of the last setting

    def open(self, message: wire.Open) -> Opened:
        check_kind(message)
        site = self._site
        outgoing, values = staging(site.memory, message.store)
        senders, children = site.children.senders, list(site.children.in_tree)
        store = RisingStore(
            site.server, site.plan(message), children, values, outgoing, site.names, senders.get(0)
        )
        self._above[message.store] = self._client.open(message, (outgoing, values))
        self._below[message.store] = store
        self._accepted[message.store] = 0
        return Opened(store, senders)

    def close(self, number: int, store: Store[Any]) -> None:
        del self._above[number], self._below[number], self._accepted[number]

    def declare(self, number: int, plan: Plan) -> None:
        """Declare the new keys to the servers above."""
        above = self._above[number]
        for key in plan.keys[above.num_keys :]:
            above.declare(key.name, key.shape, key.dtype_name)

    def compress(self, number: int, compression: Compression) -> None:
        """Compress what is sent up."""
        self._above[number].set_compression(compression)

    def rise(self, number: int) -> None:
        store = self._below.get(number)
        if store is None:
            return
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
        """Answer the children, unless all of them have closed the store or left."""
        if number in self._above:
            self._on_answers(number, replies)

    def join(self, number: int, done: Callable[[], None]) -> None:
        self._above[number].join(done)

    def set_updater(self, message: wire.SetUpdater, store: Store[Any], is_new: bool) -> List[Reply]:
        if is_new:
            done = self._when_accepted(message.store, message.serial)
            self._above[message.store].set_updater(message.kind, message.blob, done)
        else:
            self._accept_again(message.store, message.serial)
        return []

    def check_hyper(self, message: wire.SetHyper, store: Store[Any]) -> None:
        pass  # the servers above know

    def set_hyper(self, message: wire.SetHyper, store: Store[Any], is_new: bool) -> None:
        if is_new:
            m, done = message, self._when_accepted(message.store, message.serial)
            above = self._above[m.store]
            above.set_hyper(m.version, m.scalars, m.lr_mult, m.wd_mult, done, m.oldest)
        else:
            self._accept_again(message.store, message.serial)

    def _accept_again(self, number: int, serial: int) -> None:
        """Accept a repeated setting, if those above have accepted it the first time."""
        if serial <= self._accepted[number]:
            self._on_accepted(wire.Accepted(number, serial))

    def _when_accepted(self, number: int, serial: int) -> Callable[[], None]:
        def done() -> None:
            self._accepted[number] = serial
            self._on_accepted(wire.Accepted(number, serial))

        return done
