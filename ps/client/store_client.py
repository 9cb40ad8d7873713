"""One store as its user sees it: a worker's script, or a relay.

Any thread may call any method. Each posts its work to the `Client` and returns at once, unless its
name says that it waits.
"""

import threading
from collections import deque
from typing import Callable, Deque, Dict, List, Optional, Protocol, Tuple, Union

import numpy as np

from .. import wire
from ..compression import Compression
from ..errors import BaryonError
from ..plan import Key
from .core import Introduction, Setting
from .departures import Operation
from .worker_store import WorkerStore

__all__ = ["StoreClient"]


class _Client(Protocol):
    """What a StoreClient calls of its `Client` (client.py), which has the documentation."""

    def introduce(self, message: Introduction) -> None: ...

    def announce(self, store: WorkerStore, operation: Operation) -> None: ...

    def flush(self, store: WorkerStore, take_ready: Callable[[], List[Operation]]) -> None: ...

    def configure(
        self,
        store: WorkerStore,
        make: Callable[[int], Setting],
        done: Callable[[], object],
        user: object,
    ) -> None: ...

    def join(self, store: WorkerStore, done: Callable[[Optional[BaryonError]], object]) -> None: ...

    def wait_for_others(self, store: WorkerStore) -> None: ...

    def wait(self, done: threading.Event, what: str) -> None: ...

    def fail(self, error: BaryonError) -> None: ...


class StoreClient:
    """A store, open until nothing refers to this object any more."""

    def __init__(self, client: _Client, store: WorkerStore) -> None:
        self.number = store.number
        self._client = client
        self._store = store
        self._ready: Deque[Operation] = deque()  # and not yet taken by the reactor's thread
        self._is_flush_posted = False

    def key(self, name: Union[int, str]) -> Key:
        return self._store.plan[name]

    @property
    def keys(self) -> List[Key]:
        """All declared keys, in order of declaration."""
        return list(self._store.plan.keys)

    @property
    def has_whole_keys(self) -> bool:
        """Whether all slices of a key lie on one server (plan.py)."""
        return self._store.plan.has_whole_keys

    @property
    def num_keys(self) -> int:
        return len(self._store.plan.keys)

    def outgoing(self, key: Key) -> np.ndarray:
        """The place in the staging memory that the key is sent from, in its shape and dtype."""
        return self._store.staging.outgoing.key(key)

    def incoming(self, key: Key) -> np.ndarray:
        """The place where the key's values arrive. It may be the same."""
        return self._store.staging.incoming.key(key)

    def declare(self, name: Union[int, str], shape: Tuple[int, ...], dtype: str) -> Key:
        """Add a key.

        Raises UsageError if the key exists, if its dtype or shape is not supported, or if the host
        has too little memory left.
        """
        key = self._store.add(name, shape, dtype)
        spec = wire.KeySpec(name, tuple(shape), dtype)
        self._client.introduce(wire.Declare(self._store.number, key.number, (spec,)))
        return key

    def set_updater(self, kind: str, blob: bytes, done: Callable[[], None] = lambda: None) -> None:
        """Have all servers update by an optimizer (baryon.ps.updater); ``done()`` when they have
        accepted it."""
        self._configure(lambda serial: wire.SetUpdater(self.number, serial, kind, blob), done)

    def set_compression(self, compression: Compression) -> None:
        """Compress pushes, and answers if so set. All workers do so before their first push."""
        self._store.staging.compress(compression)
        message = wire.SetCompression(self._store.number, compression.params)
        self._client.introduce(message)

    def set_hyper(
        self,
        version: int,
        scalars: Dict[str, wire.Scalar],
        lr_mult: wire.Multipliers,
        wd_mult: wire.Multipliers,
        done: Callable[[], None] = lambda: None,
        oldest: Optional[int] = None,
    ) -> None:
        """Make the next version of the optimizer's attributes, for the pushes that name it.

        ``oldest`` is as in wire.SetHyper; None means the oldest that this store knows.
        """
        store, fields = self._store, (scalars, lr_mult, wd_mult)

        def make(serial: int) -> wire.SetHyper:
            named = store.oldest_version(version) if oldest is None else oldest
            return wire.SetHyper(store.number, serial, version, named, *fields)

        self._configure(make, done)

    def join(self, done: Callable[[], None] = lambda: None) -> None:
        """`wait_for_others` for the reactor's thread: calls ``done()`` when all have joined."""
        self._client.join(self._store, lambda error: done() if error is None else None)

    def wait_for_others(self) -> None:
        """Declare that this worker pushes no more in this epoch, and wait until all have done so.

        Meanwhile the others' rounds are complete without this worker. Raises as `Client.drain`.
        """
        self._client.wait_for_others(self._store)

    def announce(self, operation: Operation) -> None:
        """Announce, in program order, that ``operation`` will become ready."""
        self._client.announce(self._store, operation)

    def ready(self, operation: Operation) -> None:
        """The operation's bytes are there, and its values may be written, until it is done."""
        self._ready.append(operation)
        # Operations that become ready before the flush runs leave with it.
        if not self._is_flush_posted:
            self._is_flush_posted = True
            self._client.flush(self._store, self._take_ready)

    def _take_ready(self) -> List[Operation]:
        """For the reactor's thread: the operations that are ready by now."""
        self._is_flush_posted = False  # first: later ones post another flush
        return [self._ready.popleft() for _ in range(len(self._ready))]

    def wait(self, done: threading.Event, what: str) -> None:
        """As `Client.wait`."""
        self._client.wait(done, what)

    def fail(self, error: BaryonError) -> None:
        """As `Client.fail`."""
        self._client.fail(error)

    def _configure(
        self,
        make: Callable[[int], Setting],
        done: Callable[[], None],
    ) -> None:
        self._client.configure(self._store, make, done, user=self)
