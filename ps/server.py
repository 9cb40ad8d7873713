"""A server: one socket, one loop, and a store for each store number that workers open.

Runs in the thread of its reactor and in no other. A malformed frame is answered with a Fault to
its sender and a log line; an error that leaves the workers without a right answer (keys that
disagree, an optimizer that raises) is told to all of them and to the caller, who ends the job.

A worker's connection may break and be made again. The server hears a worker on its latest
connection alone, which begins with Hello: what still comes from an older one is dropped, since the
worker sends it again.
"""

import logging
import time
import traceback
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set

import numpy as np
import zmq

from . import wire
from .endpoints import bind_to, endpoint_of
from .errors import BaryonError, ProtocolError, UsageError
from .optimizer import SliceUpdater, load_optimizer
from .plan import Plan
from .reactor import Reactor
from .security import Authenticator, KeyPair, secure_server
from .stalls import StallWatch
from .store import Reply, SyncStore

__all__ = ["Server"]

log = logging.getLogger("baryon.server")

_STALL_WARNING_S = 60.0
_PAYLOAD = (wire.Init, wire.Push)


class _Connection(NamedTuple):
    route: bytes  # the ROUTER's name of it
    number: int  # the worker's


class Server:
    """Server number ``index`` of ``num_servers``.

    ``workers`` maps the public key of each worker to its rank; nobody else is admitted.
    ``on_fault(text)`` is called when the job cannot go on.
    """

    def __init__(
        self,
        reactor: Reactor,
        context: zmq.Context,
        *,
        index: int,
        num_servers: int,
        workers: Dict[str, int],
        keys: KeyPair,
        address: str,
        timeout_s: float,
        on_fault: Callable[[str], None],
    ) -> None:
        self._index = index
        self._num_servers = num_servers
        self._num_workers = len(workers)
        self._on_fault = on_fault
        self._stores: Dict[int, SyncStore] = {}
        self._left: Set[int] = set()
        self._failure: Optional[str] = None
        self._connections: Dict[int, _Connection] = {}  # rank -> its latest
        self._stalls = StallWatch(min(_STALL_WARNING_S, timeout_s / 2), timeout_s)
        self._authenticator: Authenticator[int] = Authenticator(context, workers)
        self._socket = context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.sndhwm = 0  # at most one answer per slice and worker is ever under way
        # At a limit ZeroMQ would stop reading, and answer no heartbeat, while Python is busy.
        self._socket.rcvhwm = 0
        self._socket.maxmsgsize = wire.MAX_PAYLOAD_NBYTES
        secure_server(self._socket, keys)
        self.endpoint = bind_to(self._socket, endpoint_of(address))
        reactor.receive(self._socket, self._on_message)
        reactor.call_every(1.0, self._look_for_stalls)
        self._handlers: Dict[type, Callable[..., List[Reply]]] = {
            wire.Hello: self._hello,
            wire.Open: self._open,
            wire.Declare: self._declare,
            wire.Init: self._init,
            wire.Push: self._push,
            wire.Pull: self._pull,
            wire.SetOptimizer: self._set_optimizer,
            wire.SetHyper: self._set_hyper,
        }

    def __repr__(self) -> str:
        return f"Server({self._index}, {self.endpoint}, {list(self._stores.values())})"

    def worker_left(self, rank: int) -> None:
        """Stop waiting for a worker that has ended well; what this completes is answered."""
        self._guarded(rank, self._leave, rank)

    def close(self) -> None:
        self._socket.close()
        self._authenticator.stop()

    # -- one message --------------------------------------------------------------------------

    def _on_message(self, frames: List[zmq.Frame]) -> None:
        rank = self._authenticator.peer(frames[-1])
        if rank is None:  # cannot happen over CURVE
            return
        if not self._is_latest(rank, frames):
            return
        if self._failure is not None:
            self._fault([rank], self._failure)
            return
        self._guarded(rank, self._handle, rank, frames[1:])

    def _is_latest(self, rank: int, frames: List[zmq.Frame]) -> bool:
        """Whether a message came on the worker's latest connection; a Hello may make it that."""
        route = frames[0].bytes
        latest = self._connections.get(rank)
        if latest is None:  # so that whatever it sends can be answered
            self._connections[rank] = _Connection(route, 0)
        elif route != latest.route:
            try:
                message = wire.DATA.decode(frames[1].buffer)
            except (ProtocolError, IndexError):
                return False
            if not isinstance(message, wire.Hello) or message.connection <= latest.number:
                return False
            log.info("worker %d has a new connection", rank)
            self._connections[rank] = _Connection(route, message.connection)
            for store in self._stores.values():
                store.forget_requests(rank)
        return True

    def _guarded(self, rank: int, handle: Callable[..., None], *args: Any) -> None:
        """Handle an event that worker ``rank`` has caused; whatever goes wrong is told."""
        try:
            handle(*args)
        except ProtocolError as error:
            log.error("worker %d: %s", rank, error)
            self._fault([rank], f"server {self._index} refused a message: {error}")
        except BaryonError as error:
            self._fail(str(error))
        except Exception:
            # An optimizer can raise anything, and nobody but its author can say what it means.
            self._fail(f"server {self._index} failed:\n{traceback.format_exc()}")

    def _handle(self, rank: int, frames: List[zmq.Frame]) -> None:
        if not frames or len(frames[0]) > wire.MAX_HEADER_NBYTES:
            raise ProtocolError("no header, or one beyond the limit")
        message = wire.DATA.decode(frames[0].buffer)
        handler = self._handlers.get(type(message))
        if handler is None:
            raise ProtocolError(f"{type(message).__name__} is not for a server")
        if len(frames) != (2 if isinstance(message, _PAYLOAD) else 1):
            raise ProtocolError(f"{type(message).__name__} came in {len(frames)} frames")
        if isinstance(message, _PAYLOAD):
            payload = np.frombuffer(frames[1].buffer, np.uint8)
            replies = handler(rank, message, payload)
        else:
            replies = handler(rank, message)
        if replies:
            self._send(message.store, replies)

    def _hello(self, rank: int, message: wire.Hello) -> List[Reply]:
        if message.version != wire.VERSION:
            raise ProtocolError(
                f"protocol version {message.version} met {wire.VERSION}; "
                "install the same version of baryon on all hosts"
            )
        route = self._connections[rank].route
        self._connections[rank] = _Connection(route, message.connection)
        self._reply(rank, message)
        return []

    def _open(self, rank: int, message: wire.Open) -> List[Reply]:
        if message.kind != "sync":
            raise UsageError(f"servers know no store of the kind {message.kind!r}")
        if message.store not in self._stores:
            store = SyncStore(self._index, Plan(self._num_servers), self._num_workers)
            for left in self._left:
                store.leave(left)
            self._stores[message.store] = store
        return []

    def _leave(self, rank: int) -> None:
        self._left.add(rank)
        for number, store in self._stores.items():
            self._send(number, store.leave(rank))

    def _declare(self, rank: int, message: wire.Declare) -> List[Reply]:
        self._store(message).declare(rank, message.first, message.keys)
        return []

    def _init(self, rank: int, message: wire.Init, payload: np.ndarray) -> List[Reply]:
        m = message
        return self._store(m).init(rank, m.bucket, m.first, m.count, payload)

    def _push(self, rank: int, message: wire.Push, payload: np.ndarray) -> List[Reply]:
        m = message
        return self._store(m).push(rank, m.bucket, m.first, m.count, m.round, m.want_value, payload)

    def _pull(self, rank: int, message: wire.Pull) -> List[Reply]:
        m = message
        return self._store(m).pull(rank, m.bucket, m.first, m.count)

    def _set_optimizer(self, rank: int, message: wire.SetOptimizer) -> List[Reply]:
        if rank != 0:
            raise ProtocolError(f"worker {rank} sent an optimizer; only rank 0's counts")
        store = self._store(message)
        if store.is_new_setting(message.serial):
            optimizer = load_optimizer(message.pickled, message.lr_mult, message.wd_mult)
            store.update = SliceUpdater(optimizer)
        self._reply(rank, wire.Accepted(message.store, message.serial))
        return []

    def _set_hyper(self, rank: int, message: wire.SetHyper) -> List[Reply]:
        store = self._store(message)
        update = store.update
        if rank != 0 or not isinstance(update, SliceUpdater):
            raise ProtocolError(f"worker {rank} changed an optimizer that is not its own")
        if store.is_new_setting(message.serial):
            multipliers = {"lr_mult": dict(message.lr_mult), "wd_mult": dict(message.wd_mult)}
            update.set({**message.scalars, **multipliers})
        self._reply(rank, wire.Accepted(message.store, message.serial))
        return []

    def _store(self, message: Any) -> SyncStore:
        try:
            return self._stores[message.store]
        except KeyError:
            raise ProtocolError(f"store {message.store} has not been opened") from None

    # -- answers ------------------------------------------------------------------------------

    def _send(self, store: int, replies: List[Reply]) -> None:
        for r in replies:
            answer = wire.Answer(store, r.bucket, r.first, r.num_slices, r.payload is not None)
            self._reply(r.rank, answer, r.payload)

    def _reply(
        self, rank: int, message: wire.Message, payload: Optional[np.ndarray] = None
    ) -> None:
        frames: List[Any] = [self._connections[rank].route, wire.DATA.encode(message)]
        if payload is not None:
            frames.append(payload)
        # Copies the payload: the store's memory changes in the next round, perhaps before
        # ZeroMQ has sent it.
        self._socket.send_multipart(frames, copy=True)

    def _fault(self, ranks: List[int], text: str) -> None:
        for rank in ranks:
            self._reply(rank, wire.Fault(text))

    def _fail(self, text: str) -> None:
        log.error("%s", text)
        self._failure = text
        self._fault(list(self._connections), text)
        self._on_fault(text)

    def _look_for_stalls(self) -> None:
        if self._failure is not None:
            return
        now = time.monotonic()
        waits = [wait for store in self._stores.values() for wait in store.waits()]
        for stall in self._stalls.observe(waits, now):
            if stall.is_fatal:
                self._fail(str(stall))
                return
            log.warning("%s", stall)
