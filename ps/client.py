"""A worker's side of the data plane.

`StoreClient` is called by the script's thread and by MXNet's engine threads; it only posts.
`Client` and everything behind it runs in the reactor's thread. A store's memory (one staging
buffer per bucket) is the meeting point: an engine operation writes a key's place in it, the
client sends from there and receives the answer into the same place, and the next engine operation
reads it. The engine's dependencies see to it that nobody else touches a key's place meanwhile.
"""

import functools
import os
import threading
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple, Union

import numpy as np
import zmq

from . import wire
from .departures import Operation
from .errors import BaryonError, PeerError, ProtocolError, UsageError, WaitTimeout
from .outbox import Outbox
from .plan import Key, Plan
from .reactor import Reactor
from .security import KeyPair, secure_client
from .staging import WorkerStore

__all__ = ["Client", "ServerAddress", "StoreClient"]

# Messages handed to ZeroMQ and not yet sent. More would only queue there, where an urgent bucket
# cannot overtake them.
_SEND_AHEAD = 4
_CONTROL = 1 << 40  # goes before any user's priority


class ServerAddress(NamedTuple):
    endpoint: str
    public_key: str


class _Link:
    """The connection to one server."""

    def __init__(
        self,
        reactor: Reactor,
        context: zmq.Context,
        server: ServerAddress,
        keys: KeyPair,
        on_message: Callable[[List[zmq.Frame]], None],
    ) -> None:
        self._reactor = reactor
        self._socket = context.socket(zmq.DEALER)
        self._socket.linger = 1000  # milliseconds for the last messages to get out
        self._socket.sndhwm = _SEND_AHEAD
        self._socket.rcvhwm = 0
        self._socket.maxmsgsize = wire.MAX_PAYLOAD_NBYTES
        secure_client(self._socket, keys, server.public_key)
        self._socket.connect(server.endpoint)
        self._outbox = Outbox(reactor, self._socket)
        self.flush = self._outbox.flush
        reactor.receive(self._socket, on_message)
        self.send(wire.Hello(wire.VERSION))

    def send(
        self, message: wire.Message, payload: Optional[np.ndarray] = None, priority: int = _CONTROL
    ) -> None:
        frames: List[Any] = [wire.DATA.encode(message)]
        if payload is not None:
            frames.append(payload)
        self._outbox.put(frames, priority)

    def close(self) -> None:
        self._reactor.unwatch(self._socket)
        self._socket.close()


class Client:
    """All of a worker's connections to servers, and the stores that it has opened."""

    def __init__(
        self,
        reactor: Reactor,
        context: zmq.Context,
        *,
        keys: KeyPair,
        servers: List[ServerAddress],
        timeout_s: float,
    ) -> None:
        self._reactor = reactor
        self._pid = os.getpid()
        self._context = context
        self._keys = keys
        self._servers = servers
        self._timeout_s = timeout_s
        self._links: List[_Link] = []
        self._stores: List[WorkerStore] = []
        self._error: Optional[BaryonError] = None
        self._unfinished = 0
        self._idle: List[threading.Event] = []
        reactor.post(self._connect)

    # -- from any thread ----------------------------------------------------------------------

    def open(self, kind: str) -> "StoreClient":
        """Open a new store of ``kind`` ("sync"); workers open the same stores in one order."""
        store = WorkerStore(len(self._stores), Plan(len(self._servers)))
        self._stores.append(store)
        self._reactor.post(self._to_all, wire.Open(store.number, kind))
        return StoreClient(self, store)

    def raise_if_failed(self) -> None:
        """Raise what has made the stores useless, if anything has."""
        self.raise_if_forked()
        if self._error is not None:
            raise self._error

    def raise_if_forked(self) -> None:
        """Raise UsageError in a process forked from the one whose connections these are."""
        if os.getpid() != self._pid:
            raise UsageError(
                "this process was forked from the one that created the dist kvstore, which alone "
                "can use it; create the store after the fork, or in one process"
            )

    def fail(self, error: BaryonError) -> None:
        """Fail every operation under way or to come; `raise_if_failed` raises ``error``."""
        self._reactor.post(self._fail, error)

    def drain(self, limit_s: Optional[float] = None) -> None:
        """Wait until everything is answered; raises WaitTimeout, or why it never will be."""
        limit_s = self._timeout_s if limit_s is None else limit_s
        idle = threading.Event()
        self._reactor.post(self._call_when_idle, idle)
        if not idle.wait(limit_s):
            count = self._unfinished
            raise WaitTimeout(f"{count} operations were not answered in {limit_s:.0f} s")
        self.raise_if_failed()

    # -- in the reactor's thread --------------------------------------------------------------

    def close(self) -> None:
        for link in self._links:
            link.close()

    def _connect(self) -> None:
        for index, server in enumerate(self._servers):
            on_message = functools.partial(self._on_message, index)
            self._links.append(_Link(self._reactor, self._context, server, self._keys, on_message))
        for link in self._links:
            link.flush()

    def _to_all(self, message: wire.Message) -> None:
        for link in self._links:
            link.send(message)
            link.flush()

    def _request(self, message: wire.Message) -> None:
        """Send what every server accepts or fails at; `drain` waits for that, too."""
        self._unfinished += len(self._links)
        self._to_all(message)

    def _announce(self, store: WorkerStore, operation: Operation) -> None:
        self._unfinished += 1
        store.departures.announce(operation)

    def _ready(self, store: WorkerStore, operation: Operation) -> None:
        if self._error is not None:
            self._finish(operation)
            return
        if operation.kind == "push":
            operation.round = store.next_round(operation.key)
        store.departures.ready(operation)
        # Whatever else is posted already becomes ready before anything leaves.
        if not store.is_flush_posted:
            store.is_flush_posted = True
            self._reactor.post(self._flush, store)

    def _flush(self, store: WorkerStore) -> None:
        store.is_flush_posted = False
        for run in store.departures.take():
            for operation, slice_ in zip(run.operations, run.slices):
                store.outstanding[slice_.bucket.index, slice_.position] = operation
            message, payload = store.message(run)
            self._links[run.slices[0].bucket.server].send(message, payload, run.priority)
        for link in self._links:
            link.flush()

    def _on_message(self, server: int, frames: List[zmq.Frame]) -> None:
        try:
            message = wire.DATA.decode(frames[0].buffer)
            if isinstance(message, wire.Answer):
                self._on_answer(message, frames[1:])
            elif isinstance(message, wire.Accepted):
                self._count_down()
            elif isinstance(message, wire.Fault):
                self._fail(PeerError(message.text))
            elif not isinstance(message, wire.Hello):
                raise ProtocolError(f"{type(message).__name__} is not for a worker")
        except ProtocolError as error:
            self._fail(ProtocolError(f"server {server} sent what it must not: {error}"))

    def _on_answer(self, message: wire.Answer, payloads: List[zmq.Frame]) -> None:
        if not 0 <= message.store < len(self._stores) or len(payloads) != message.has_value:
            raise ProtocolError(f"{message} with {len(payloads)} payload frames")
        store = self._stores[message.store]
        payload = np.frombuffer(payloads[0].buffer, np.uint8) if payloads else None
        for operation in store.answered(message, payload):
            self._finish(operation)

    def _finish(self, operation: Operation) -> None:
        operation.done(None if self._error is None else str(self._error))
        self._count_down()

    def _count_down(self) -> None:
        self._unfinished -= 1
        if not self._unfinished:
            self._release_waiters()

    def _fail(self, error: BaryonError) -> None:
        if self._error is None:
            self._error = error
        for store in self._stores:
            for operation in store.forget_all():
                self._finish(operation)
        self._release_waiters()

    def _call_when_idle(self, idle: threading.Event) -> None:
        self._idle.append(idle)
        if not self._unfinished or self._error is not None:
            self._release_waiters()

    def _release_waiters(self) -> None:
        for idle in self._idle:
            idle.set()
        self._idle.clear()


class StoreClient:
    """One store as its user sees it; every method returns at once and may be called anywhere."""

    def __init__(self, client: Client, store: WorkerStore) -> None:
        self.number = store.number
        self._client = client
        self._store = store

    def key(self, name: Union[int, str]) -> Key:
        return self._store.plan[name]

    def add_key(self, name: Union[int, str], shape: Tuple[int, ...], dtype: str) -> np.ndarray:
        """Declare a key; returns its staging array, of its shape and dtype.

        Raises UsageError if the key exists or its dtype or shape cannot be served.
        """
        place = self._store.add_key(name, shape, dtype)
        key = self._store.plan[name]
        spec = wire.KeySpec(name, tuple(shape), dtype)
        self._post(self._client._to_all, wire.Declare(self._store.number, key.number, (spec,)))
        return place

    def set_optimizer(
        self,
        pickled: bytes,
        lr_mult: wire.Multipliers,
        wd_mult: wire.Multipliers,
    ) -> None:
        message = wire.SetOptimizer(self._store.number, pickled, lr_mult, wd_mult)
        self._post(self._client._request, message)

    def set_hyper(
        self,
        scalars: Dict[str, Union[bool, int, float, None]],
        lr_mult: wire.Multipliers,
        wd_mult: wire.Multipliers,
    ) -> None:
        """Change the optimizer's attributes; call when every push has been answered."""
        message = wire.SetHyper(self._store.number, scalars, lr_mult, wd_mult)
        self._post(self._client._request, message)

    def announce(self, operation: Operation) -> None:
        """Say, in program order, that ``operation`` will become ready."""
        self._client._reactor.post_quietly(self._client._announce, self._store, operation)

    def ready(self, operation: Operation) -> None:
        """The key's place in the staging memory is filled, or free to be filled."""
        self._post(self._client._ready, self._store, operation)

    def _post(self, callback: Callable[..., None], *args: Any) -> None:
        self._client._reactor.post(callback, *args)
