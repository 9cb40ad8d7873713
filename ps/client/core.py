"""What a client sends, what an answer means, and what ends a wait. Pure.

The loop (client.py) reports each event: what the script has said, a new connection, a message, the
time. After each event it sends `ClientCore.sends` and looks at `ClientCore.due`.

Nothing is lost with a connection. On a new one the core repeats, in this order: what a server must
know (`Open`, `Declare`), the settings that it has not accepted, the questions and the operations
that it has not answered. A server that is out of reach for longer than ``silence_s`` fails
everything.
"""

import functools
from typing import Any, Callable, Collection, Dict, List, Optional, Sequence, Set, Tuple, Union

import numpy as np

from .. import wire
from ..errors import BaryonError, PeerError, ProtocolError
from ..transport import CONTROL, ServerAddress
from .departures import Operation, Run
from .outages import Outages
from .requests import Request, Requests
from .window import Window
from .worker_store import WorkerStore

__all__ = ["ClientCore", "Introduction", "Setting"]

# The bytes that may be on their way, being summed, or on their way back. At 1 Gbit/s with 4 hosts,
# 8 MiB are too few and 24 too many. Each link needs enough to be busy, however many there are.
_WINDOW_NBYTES = 16 << 20
_LINK_NBYTES = 4 << 20

Introduction = Union[wire.Open, wire.SetCompression, wire.Declare]
Setting = Union[wire.SetUpdater, wire.SetHyper]
Send = Tuple[int, wire.Message, Optional[np.ndarray], int]
"""(server, message, payload, priority)"""


class _Setting:
    """A SetUpdater, SetHyper or Close that ``servers`` have not accepted yet.

    It refers to ``user``, the setting's StoreClient, which is therefore not closed meanwhile.
    """

    __slots__ = ("done", "message", "servers", "user")

    def __init__(
        self,
        message: Union[Setting, wire.Close],
        servers: Set[int],
        done: Callable[[], object],
        user: object,
    ) -> None:
        self.message = message
        self.servers = servers
        self.done = done
        self.user = user


class ClientCore:
    """The stores that a client has opened, and what is under way in them.

    ``servers`` are all ``num_owners`` owners, or the one server in front of them.
    ``on_failure(error)`` is called once, before the operations under way fail: their memory must
    not be sent any more.
    """

    def __init__(
        self,
        servers: Sequence[ServerAddress],
        num_owners: int,
        *,
        name: str,
        silence_s: float,
        now: float,
        on_failure: Callable[[BaryonError], object],
    ) -> None:
        self.sends: List[Send] = []  # for the loop to send and to clear
        self.error: Optional[BaryonError] = None
        self.num_unfinished = 0  # operations and settings
        self.num_finished = 0
        self.outages = Outages(len(servers), silence_s, now)
        self._servers = servers
        self._is_shared = [server.is_shared for server in servers]
        self._ways = range(num_owners) if len(servers) > 1 else [0] * num_owners  # owner -> server
        self._name = name
        self._on_failure = on_failure
        self._window = Window(max(_WINDOW_NBYTES, _LINK_NBYTES * len(servers)))
        self._introduction: List[Introduction] = []  # what each server must know, in order
        self._stores: Dict[int, WorkerStore] = {}
        self._settings: Dict[Tuple[int, int], _Setting] = {}  # by store and serial number
        self._requests = Requests()
        self._idle: List[Callable[[], object]] = []  # to call when nothing is under way
        self._handlers: Dict[type, Callable[[int, Any, Sequence[Any]], None]] = {
            wire.Batch: self._on_batch,
            wire.Answer: self._on_answer,
            wire.AnswerRows: self._on_rows,
            wire.State: self._on_reply,
            wire.Stored: self._on_reply,
            wire.Joined: self._on_reply,
            wire.Accepted: self._on_accepted,
            wire.Fault: self._on_fault,
        }

    @property
    def due(self) -> Optional[float]:
        """When to call `pass_time`; None: no need to."""
        return self._window.due

    # -- what this process says -----------------------------------------------------------------

    def open(self, store: WorkerStore, message: wire.Open) -> None:
        self._stores[store.number] = store
        self.introduce(message)

    def introduce(self, message: Introduction) -> None:
        """Tell all servers, on each connection, before anything that is sent later."""
        self._introduction.append(message)
        for server in range(len(self._servers)):
            self._tell(server, message)

    def configure(
        self,
        store: WorkerStore,
        make: Callable[[int], Setting],
        done: Callable[[], object],
        user: object,
    ) -> None:
        """Send the store's next setting, ``make(serial)``; ``done()`` when all have accepted it."""
        self._set(make(store.next_setting()), done, user)

    def announce(self, store: WorkerStore, operation: Operation) -> None:
        """Take note of an operation that will become ready, in program order."""
        self.num_unfinished += 1
        store.announce(operation)

    def flush(self, store: WorkerStore, ready: List[Operation], now: float) -> None:
        """Send what can leave now that these operations are ready."""
        if self.error is not None:
            self._finish(ready)
            return
        for run in store.depart(ready):
            server = self._ways[run.slices[0].bucket.server]
            if self._is_shared[server]:
                # Once, and not when the message is repeated: the server may add to these bytes.
                store.staging.fill(run)
                self._send(server, store, run)
            else:
                for part in store.staging.apart(run):
                    self._window.put(part.priority, part.nbytes, (server, store, part))
        self._open_window(now)

    def ask(self, request: Request) -> None:
        """Send a question to its server."""
        message = self._requests.add(request)
        if self.error is None:
            self._tell(request.server, message, request.sent_payload)
        else:
            self._requests.fail()

    def join(self, store: WorkerStore, done: Callable[[Optional[BaryonError]], object]) -> None:
        """Join the others at the end of an epoch; ``done(None)`` when all have, or ``done(error)``.
        Nothing may be under way."""
        epoch = store.next_epoch()
        remaining = set(range(len(self._servers)))

        def joined(server: int) -> None:
            remaining.discard(server)
            if not remaining:
                if self.error is None:
                    store.forget_rounds()
                done(self.error)

        for server in range(len(self._servers)):
            self.ask(
                Request(
                    server,
                    lambda serial: wire.Join(store.number, serial, epoch),
                    done=functools.partial(joined, server),
                )
            )

    def forget(self, store: WorkerStore) -> wire.Close:
        """Forget a store that nobody refers to. Returns the message to `close` it with.

        The servers may hear of it only when nothing refers to its values any more. Where values
        lie in the host's memory, MXNet may still be copying some, and the servers discard that
        memory once all have closed.
        """
        number = store.number
        del self._stores[number]
        self._introduction = [one for one in self._introduction if one.store != number]
        buckets = store.plan.buckets
        near = {b.region.start for b in buckets if self._is_shared[self._ways[b.server]]}
        store.staging.incoming.discard(keep=near)  # servers of this host have written the rest
        store.staging.outgoing.discard()
        return wire.Close(number, store.next_setting())

    def close(self, message: wire.Close) -> None:
        self._set(message)

    def when_idle(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` when nothing is under way, or when everything has failed."""
        self._idle.append(callback)
        if not self.num_unfinished or self.error is not None:
            self._release_idle()

    def fail(self, error: BaryonError) -> None:
        """Fail every operation under way or to come. The first error is kept."""
        if self.error is None:
            self.error = error
            self._on_failure(error)
        operations = {op: None for _, _, run in self._window.clear() for op in run.operations}
        for store in self._stores.values():
            operations.update(dict.fromkeys(store.forget_all()))
        self._finish(operations)
        self._requests.fail()
        self._release_idle()

    # -- what happens outside -------------------------------------------------------------------

    def connected(self, server: int) -> None:
        """A new connection has come up: repeat whatever may be lost."""
        for message in self._introduction:
            self._tell(server, message)
        for setting in self._settings.values():
            if server in setting.servers:
                self._tell(server, setting.message)
        for question, payload in self._requests.pending(server):
            self._tell(server, question, payload)
        owner = server if len(self._servers) > 1 else None
        for store in self._stores.values():
            for run in store.unanswered(owner):
                self._send(server, store, run)

    def received(self, server: int, frames: Sequence[Any], now: float) -> None:
        """A server has sent a message: the buffers of its frames, header first."""
        try:
            message = wire.DATA.decode(frames[0])
            if isinstance(message, wire.Hello):
                return
            self.outages.end(server)
            handle = self._handlers.get(type(message))
            if handle is None:
                raise ProtocolError(f"{type(message).__name__} is not for a worker")
            handle(server, message, frames[1:])
        except ProtocolError as error:
            self.fail(ProtocolError(f"server {server} broke the protocol: {error}"))
        self._open_window(now)

    def pass_time(self, now: float) -> None:
        """Time has passed, to `due` or beyond."""
        self._window.pass_time(now)
        self._open_window(now)

    def look(self, now: float, is_up: Sequence[bool]) -> Optional[str]:
        """See which links are up. If one has been down for too long, everything fails: returns
        what to tell the job."""
        self.outages.look(now, is_up)
        if self.error is not None or not self.outages.is_too_long():
            return None
        lost = " and ".join(
            f"server {server} ({self._servers[server].endpoint}) for {down_s:.0f} s"
            for server, down_s in self.outages.long()
        )
        what = f"lost {lost}: is the network between their hosts cut, or a firewall in the way?"
        self.fail(PeerError(f"{self._name} has {what}"))
        return what

    # -- sending --------------------------------------------------------------------------------

    def _tell(
        self, server: int, message: wire.Message, payload: Optional[np.ndarray] = None
    ) -> None:
        self.sends.append((server, message, payload, CONTROL))

    def _send(self, server: int, store: WorkerStore, run: Run) -> None:
        store.sent(run)
        message, payload = store.staging.message(run, self._is_shared[server])
        self.sends.append((server, message, payload, run.priority))

    def _open_window(self, now: float) -> None:
        for server, store, run in self._window.take(now):
            self._send(server, store, run)

    def _set(
        self,
        message: Union[Setting, wire.Close],
        done: Callable[[], object] = lambda: None,
        user: object = None,
    ) -> None:
        """Send what every server accepts; it counts as unfinished until then."""
        self.num_unfinished += 1
        servers = set(range(len(self._servers)))
        self._settings[message.store, message.serial] = _Setting(message, servers, done, user)
        for server in servers:
            self._tell(server, message)

    # -- answers --------------------------------------------------------------------------------

    def _on_batch(self, server: int, message: wire.Batch, payloads: Sequence[Any]) -> None:
        if len(payloads) != sum(isinstance(one, wire.AnswerRows) for one in message.messages):
            raise ProtocolError(f"{len(message.messages)} messages with {len(payloads)} payloads")
        rest = iter(payloads)
        for one in message.messages:
            if isinstance(one, wire.AnswerRows):
                self._on_rows(server, one, [next(rest)])
            elif isinstance(one, wire.Answer):
                self._on_answer(server, one, ())
            else:
                raise ProtocolError(f"{one} is not for a worker")

    def _on_answer(self, server: int, message: wire.Answer, payloads: Sequence[Any]) -> None:
        store, is_shared = self._store_of(server, message), self._is_shared[server]
        if len(payloads) != (message.has_value and not is_shared):
            raise ProtocolError(f"{message} with {len(payloads)} payload frames")
        payload = np.frombuffer(payloads[0], np.uint8) if payloads else None
        if not is_shared:
            self._window.answered(store.unanswered_nbytes(message))
        self._finish(store.answered(message, payload))

    def _on_rows(self, server: int, message: wire.AnswerRows, payloads: Sequence[Any]) -> None:
        store = self._store_of(server, message)
        if len(payloads) != 1:
            raise ProtocolError(f"{message} with {len(payloads)} payload frames")
        if not self._is_shared[server]:
            where = message.store, message.bucket, message.position, 1
            self._window.answered(store.unanswered_nbytes(wire.Answer(*where, False)))
        self._finish(store.answered_rows(message, np.frombuffer(payloads[0], np.uint8)))

    def _store_of(self, server: int, message: Union[wire.Answer, wire.AnswerRows]) -> WorkerStore:
        """The store of an answer, if this server may answer for that bucket."""
        store, bucket = self._stores.get(message.store), message.bucket
        if store is None:
            raise ProtocolError(f"{message} names a store that is not open")
        buckets = store.plan.buckets
        if not 0 <= bucket < len(buckets) or self._ways[buckets[bucket].server] != server:
            raise ProtocolError(f"an answer for bucket {bucket}, which another server owns")
        return store

    def _on_reply(self, server: int, message: Any, payloads: Sequence[Any]) -> None:
        payload = np.frombuffer(payloads[0], np.uint8) if payloads else None
        self._requests.answered(server, message, payload)

    def _on_accepted(self, server: int, message: wire.Accepted, _: Sequence[Any]) -> None:
        name = message.store, message.serial
        setting = self._settings.get(name)
        if setting is None or server not in setting.servers:
            return  # a repeat
        setting.servers.remove(server)
        if not setting.servers:
            del self._settings[name]
            setting.done()
            self._count_finished(1)

    def _on_fault(self, server: int, message: wire.Fault, _: Sequence[Any]) -> None:
        self.fail(PeerError(message.text))

    def _finish(self, operations: Collection[Operation]) -> None:
        if operations:
            reason = None if self.error is None else str(self.error)
            for operation in operations:
                operation.done(reason)
            self._count_finished(len(operations))

    def _count_finished(self, count: int) -> None:
        self.num_finished += count
        self.num_unfinished -= count
        if not self.num_unfinished:
            self._release_idle()

    def _release_idle(self) -> None:
        idle, self._idle = self._idle, []
        for callback in idle:
            callback()
