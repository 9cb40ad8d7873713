"""A server: one socket, one loop, and a store for each store number that workers open.

All of it runs in the thread of its reactor. A malformed message is answered with a Fault to its
sender and a log line. An error that leaves the workers without a right answer (keys that disagree,
an optimizer that raises) goes to all of them and to the caller, who ends the job.

What a message means is decided in pure parts: the table of stores (table.py), the stores
themselves, joins (epochs.py), states (transfers.py). What differs between an owner and a server
with servers above it is in owner.py and relay.py.
"""

import functools
import logging
import time
import traceback
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
import zmq

from .. import wire
from ..child import Child
from ..client import Client
from ..compression import compression_of
from ..errors import BaryonError, ProtocolError, UsageError
from ..memory import HostMemory, Memory
from ..transport import Authenticator, KeyPair, Reactor, bind_to, endpoint_of, secure_server
from ..updater import check_kind
from ..waits import AwakeClock
from .children import Children
from .epochs import Epochs
from .owner import Owner
from .relay import Relay
from .slot import Payload, Reply
from .stalls import StallWatch
from .store import Store
from .table import StoreTable
from .transfers import Transfers
from .upstream import Site, Upstream

__all__ = ["Server"]

log = logging.getLogger("baryon.server")

_STALL_WARNING_S = 60.0
_LOOK_S = 1.0  # how often
_MAX_TEXT = 1000  # characters of what is wrong with a message
_BATCH = 128  # answers that go as one message
_PAYLOAD = (wire.Init, wire.Push)  # in a frame, or in the memory of a host
_FRAMED = (wire.PutState, wire.PushRows, wire.PullRows)  # always in a frame


class Server:
    """Server number ``index``, for ``children`` and ``guests`` (children.py) only.

    ``num_owners`` servers divide the parameters among them. ``memory`` is the host's, if its tasks
    share memory. ``on_fault(text)`` is called when the job cannot go on. The server reads nothing
    before `serve`.
    """

    def __init__(
        self,
        reactor: Reactor,
        context: zmq.Context,
        *,
        index: int,
        num_owners: int,
        children: Sequence[Child],
        guests: Sequence[Child] = (),
        keys: KeyPair,
        address: str,
        timeout_s: float,
        on_fault: Callable[[str], None],
        memory: Optional[HostMemory] = None,
        encrypts: bool = True,
    ) -> None:
        self._reactor = reactor
        self._index = index
        self._on_fault = on_fault
        self._memory = memory
        self._areas: Dict[Tuple[int, int], Memory] = {}  # (store, member) -> its payloads
        self._epochs = Epochs()
        self._transfers = Transfers()
        self._failure: Optional[str] = None
        self._stalls = StallWatch(min(_STALL_WARNING_S, timeout_s / 2), timeout_s)
        self._clock = AwakeClock(_LOOK_S, time.monotonic())
        self._authenticator: Optional[Authenticator[int]] = None
        self._socket = context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.sndhwm = 0  # at most one answer per slice and child is ever under way
        # With a limit, ZeroMQ would stop reading while Python is busy, and answer no heartbeat.
        self._socket.rcvhwm = 0
        self._socket.maxmsgsize = wire.MAX_PAYLOAD_NBYTES
        if encrypts:
            everyone = enumerate((*children, *guests))
            public_keys = {child.public_key: index for index, child in everyone}
            self._authenticator = Authenticator(context, public_keys)
            secure_server(self._socket, keys)
        self._children = Children(children, guests, self._authenticator)
        self._stores = StoreTable(self._children.all, lambda message: self._upstream.open(message))
        self._site = Site(index, num_owners, self._children, memory)
        # Only an encrypted connection proves that an optimizer comes from worker 0.
        self._upstream: Upstream = Owner(self._site, self._accepted, may_run_code=encrypts)
        self.endpoint = bind_to(self._socket, endpoint_of(address))
        self._handlers: Dict[type, Callable[..., List[Reply]]] = {
            wire.Hello: self._hello,
            wire.Open: self._open,
            wire.Close: self._close,
            wire.Declare: self._declare,
            wire.Init: self._init,
            wire.Push: self._push,
            wire.Pull: self._pull,
            wire.PushRows: self._push_rows,
            wire.PullRows: self._pull_rows,
            wire.SetUpdater: self._set_updater,
            wire.SetHyper: self._set_hyper,
            wire.SetCompression: self._set_compression,
            wire.Join: self._join,
            wire.GetState: self._get_state,
            wire.PutState: self._put_state,
        }

    def __repr__(self) -> str:
        return f"Server({self._index}, {self.endpoint}, {list(self._stores.values())})"

    def serve(self, above: Optional[Client] = None) -> None:
        """Begin to read; ``above`` reaches the servers above, if there are some."""
        if above is not None:
            self._upstream = Relay(self._site, self._accepted, above, self._send)
            above.when_failed(lambda error: self._fail(str(error), is_told=True))
        self._reactor.receive(self._socket, self._on_message)
        self._reactor.call_every(_LOOK_S, self._look_for_stalls)

    def worker_left(self, rank: int) -> None:
        """Stop waiting for a worker that has ended well, and answer what waited only for it."""
        child = self._children.senders.get(rank)
        if child is not None:  # an owner is above every worker
            self._guarded(child, self._leave, rank)

    def close(self) -> None:
        self._socket.close()
        if self._authenticator is not None:
            self._authenticator.stop()

    # -- one message --------------------------------------------------------------------------

    def _on_message(self, frames: List[zmq.Frame]) -> None:
        child = self._children.sender(frames)
        if child is None:  # cannot happen over CURVE
            return
        try:
            is_heard, is_new = self._children.is_heard(child, frames)
        except ProtocolError as error:  # it is heard on an older connection still
            self._send_to(frames[0].bytes, self._refusal(child, error))
            return
        if not is_heard:
            return
        if is_new:
            for store in self._stores.values():
                store.forget_requests(child)
        if self._failure is not None:
            self._fault([child], self._failure)
            return
        self._guarded(child, self._handle, child, frames[1:])

    def _guarded(self, child: int, handle: Callable[..., None], *args: Any) -> None:
        """Handle an event that a child has caused, and report any error."""
        try:
            handle(*args)
        except ProtocolError as error:
            self._reply(child, self._refusal(child, error))
        except BaryonError as error:
            self._fail(str(error))
        except Exception as error:
            # An optimizer can raise anything, and only its author knows what it means.
            log.error("%s", traceback.format_exc().rstrip())
            name = f"server {self._index}"
            what = "".join(traceback.format_exception_only(type(error), error)).strip()
            self._fail(f"{name} failed: {what} (where: see server-{self._index}.log)")

    def _refusal(self, child: int, error: ProtocolError) -> wire.Fault:
        text = str(error)
        if len(text) > _MAX_TEXT:  # it quotes the message
            text = f"{text[:_MAX_TEXT]} [...]"
        log.error("%s: %s", self._children.name(child), text)
        return wire.Fault(f"server {self._index} refused a message: {text}")

    def _handle(self, child: int, frames: List[zmq.Frame]) -> None:
        if not frames or len(frames[0]) > wire.MAX_HEADER_NBYTES:
            raise ProtocolError("no header, or one beyond the limit")
        message = wire.DATA.decode(frames[0].buffer)
        if not (self._children[child].is_introduced or isinstance(message, wire.Hello)):
            raise ProtocolError(f"{type(message).__name__} came before Hello")
        if isinstance(message, wire.Batch):
            self._batch(child, message, frames[1:])
            return
        self._send(getattr(message, "store", 0), self._replies(child, message, frames[1:]))

    def _replies(self, child: int, message: Any, frames: List[zmq.Frame]) -> List[Reply]:
        """Handle one message with its payloads; returns the answers that it causes."""
        handler = self._handlers.get(type(message))
        if handler is None:
            raise ProtocolError(f"{type(message).__name__} is not for a server")
        if isinstance(message, _PAYLOAD):
            return handler(child, message, self._payload(child, message, frames))
        if len(frames) != isinstance(message, _FRAMED):
            raise ProtocolError(f"{type(message).__name__} came in {1 + len(frames)} frames")
        return handler(child, message, *(np.frombuffer(f.buffer, np.uint8) for f in frames))

    def _payload(self, child: int, message: Any, frames: List[zmq.Frame]) -> Payload:
        """The bytes that come with a message, or its sender's area of the host's memory."""
        member = self._children[child].member
        if len(frames) != (0 if member else 1):
            raise ProtocolError(f"{type(message).__name__} came in {1 + len(frames)} frames")
        if not member:
            return np.frombuffer(frames[0].buffer, np.uint8)
        self._store(child, message)  # raises if there is no such store
        area = self._areas.get((message.store, member))
        if area is None:
            assert self._memory is not None  # or the child would be no member of it
            area = Memory(self._memory.area(message.store, member))
            self._areas[message.store, member] = area
        return area

    def _batch(self, child: int, message: wire.Batch, frames: List[zmq.Frame]) -> None:
        """Handle the messages of a batch one after the other, and send the answers together.

        If one message is wrong, the others still count, and the answers that they cause are sent.
        """
        if len(frames) != sum(isinstance(inner, _FRAMED) for inner in message.messages):
            raise ProtocolError(f"{len(message.messages)} messages with {len(frames)} payloads")
        rest = iter(frames)
        replies: Dict[int, List[Reply]] = {}
        refused: List[ProtocolError] = []
        for inner in message.messages:
            payloads = [next(rest)] if isinstance(inner, _FRAMED) else []
            try:
                replies.setdefault(inner.store, []).extend(self._replies(child, inner, payloads))
            except ProtocolError as error:
                refused.append(error)
        for store, some in replies.items():
            self._send(store, some)
        if len(refused) > 1:
            raise ProtocolError(f"{refused[0]}; and {len(refused) - 1} more of its batch")
        if refused:
            raise refused[0]

    def _hello(self, child: int, message: wire.Hello) -> List[Reply]:
        self._children.introduce(child, message)
        self._reply(child, wire.Hello(message.version, message.connection))
        return []

    def _open(self, child: int, message: wire.Open) -> List[Reply]:
        if self._stores.open(child, message):
            for rank in self._stores.left:
                self._store_left(message.store, rank)
        return []

    def _close(self, child: int, message: wire.Close) -> List[Reply]:
        self._stores.close(child, message.store)
        self._reply(child, wire.Accepted(message.store, message.serial))
        self._drop_if_closed(message.store)
        return []

    def _drop_if_closed(self, number: int) -> None:
        """Forget a store if each of its children has closed it or left."""
        store = self._stores.take_finished(number)
        if store is None:
            return
        self._epochs.forget(number)
        self._transfers.close(number)
        self._areas = {name: area for name, area in self._areas.items() if name[0] != number}
        self._upstream.close(number, store)

    def _leave(self, rank: int) -> None:
        self._stores.leave(rank)
        for number in list(self._stores):
            self._store_left(number, rank)
            self._drop_if_closed(number)

    def _store_left(self, number: int, rank: int) -> None:
        self._send(number, self._stores.without(number, rank))
        self._look_for_end_of_epoch(number)
        if rank == 0:
            self._stores[number].lose_first()

    def _join(self, child: int, message: wire.Join) -> List[Reply]:
        store = self._store(child, message)
        if message.epoch == store.epoch:  # a repeat whose answer was lost
            self._reply(child, wire.Joined(message.serial))
            return []
        self._send(message.store, store.join(child, message.epoch))
        self._epochs.join(message.store, child, message.serial)
        self._look_for_end_of_epoch(message.store)
        return []

    def _look_for_end_of_epoch(self, number: int) -> None:
        if self._epochs.must_end(number, self._stores[number]):
            self._upstream.join(number, functools.partial(self._end_epoch, number))

    def _end_epoch(self, number: int) -> None:
        for child, serial in self._epochs.end(number, self._stores[number]).items():
            if not self._stores.has_left(child):
                self._reply(child, wire.Joined(serial))

    def _declare(self, child: int, message: wire.Declare) -> List[Reply]:
        store = self._store(child, message)
        store.declare(child, message.first, message.keys)
        self._upstream.declare(message.store, store.plan)
        return []

    def _init(self, child: int, message: wire.Init, payload: Payload) -> List[Reply]:
        m = message
        return self._store(child, m).init(child, m.bucket, m.first, m.count, payload)

    def _push(self, child: int, message: wire.Push, payload: Payload) -> List[Reply]:
        m = message
        store = self._store(child, m)
        where = m.bucket, m.first, m.count
        payload = store.contribution(child, *where, payload, m.is_compressed)
        return store.push(child, *where, m.round, m.want_value, payload, m.version)

    def _pull(self, child: int, message: wire.Pull) -> List[Reply]:
        m = message
        return self._store(child, m).pull(child, m.bucket, m.first, m.count)

    def _push_rows(self, child: int, message: wire.PushRows, payload: np.ndarray) -> List[Reply]:
        m = message
        store = self._store(child, m)
        return store.push_rows(child, m.bucket, m.position, m.round, payload, m.version)

    def _pull_rows(self, child: int, message: wire.PullRows, payload: np.ndarray) -> List[Reply]:
        return self._store(child, message).pull_rows(
            child, message.bucket, message.position, payload
        )

    def _set_updater(self, child: int, message: wire.SetUpdater) -> List[Reply]:
        store = self._store(child, message)
        self._check_first(child, store, "sent an optimizer; only rank 0's counts")
        check_kind(message.kind)  # what is refused is not counted as a setting
        is_new = store.settings.is_new(message.serial)
        if is_new:
            self._transfers.drop_arrivals(message.store)
        return self._upstream.set_updater(message, store, is_new)

    def _set_hyper(self, child: int, message: wire.SetHyper) -> List[Reply]:
        store = self._store(child, message)
        self._check_first(child, store, "changed an optimizer that is not its own")
        self._upstream.check_hyper(message, store)
        is_new = store.settings.is_new(message.serial)
        if is_new:
            store.settings.next_version(message.version, message.oldest)
        self._upstream.set_hyper(message, store, is_new)
        return []

    def _set_compression(self, child: int, message: wire.SetCompression) -> List[Reply]:
        try:
            compression = compression_of(message.params)
        except UsageError as error:  # the worker has not checked it
            raise ProtocolError(str(error)) from error
        if self._store(child, message).set_compression(child, compression):
            self._upstream.compress(message.store, compression)
        return []

    def _get_state(self, child: int, message: wire.GetState) -> List[Reply]:
        store = self._stores.get(message.store)
        name = self._children.name(child)
        state, payload = self._transfers.get(child, name, message, store)
        self._reply(child, state, *([] if payload is None else [payload]))
        return []

    def _put_state(self, child: int, message: wire.PutState, payload: np.ndarray) -> List[Reply]:
        name = self._children.name(child)
        if child != self._children.workers().get(0):
            raise ProtocolError(f"{name} sent a state; only rank 0's counts")
        self._transfers.put(name, message, self._store(child, message), payload)
        self._reply(child, wire.Stored(message.serial))
        return []

    def _check_first(self, child: int, store: Store[Any], wrong: str) -> None:
        """Raise ProtocolError unless the child is worker 0, or speaks for it."""
        if child != store.first:
            raise ProtocolError(f"{self._children.name(child)} {wrong}")

    def _store(self, child: int, message: Any) -> Store[Any]:
        """Raises ProtocolError if the child cannot use that store."""
        return self._stores.used_by(child, message.store)

    # -- answers ------------------------------------------------------------------------------

    def _send(self, number: int, replies: List[Reply]) -> None:
        """Send answers, small ones together, and send up the sums that are complete now."""
        small: Dict[int, List[Reply]] = {}
        for r in replies:
            if r.rows is None and r.has_value and not self._children[r.child].member:
                self._send_values(number, r)
            else:
                small.setdefault(r.child, []).append(r)
        for child, some in small.items():
            for start in range(0, len(some), _BATCH):
                self._send_small(number, child, some[start : start + _BATCH])
        self._upstream.rise(number)

    def _send_small(self, number: int, child: int, replies: List[Reply]) -> None:
        answers = tuple(
            wire.Answer(number, r.bucket, r.first, r.num_slices, r.has_value)
            if r.rows is None
            else wire.AnswerRows(number, r.bucket, r.first)
            for r in replies
        )
        self._reply(child, wire.Batch(answers), *(r.rows for r in replies if r.rows is not None))

    def _send_values(self, number: int, reply: Reply) -> None:
        store = self._stores[number]
        for r, compressed in store.parts(reply):
            where = number, r.bucket, r.first, r.num_slices, True
            if compressed is None:
                self._reply(r.child, wire.Answer(*where), store.values(r))
            else:
                answer = wire.Answer(*where, True, compressed.is_change)
                self._reply(r.child, answer, compressed.payload)

    def _accepted(self, message: wire.Accepted) -> None:
        first = self._stores[message.store].first
        assert first is not None  # the setting came from it
        self._reply(first, message)

    def _reply(self, child: int, message: wire.Message, *payloads: np.ndarray) -> None:
        self._send_to(self._children[child].route, message, *payloads)

    def _send_to(self, route: bytes, message: wire.Message, *payloads: np.ndarray) -> None:
        frames = [route, wire.DATA.encode(message), *payloads]
        # Copy the payloads: the next round may change the store's memory before ZeroMQ has sent it.
        self._socket.send_multipart(frames, copy=True)

    def _fault(self, children: List[int], text: str) -> None:
        for child in children:
            self._reply(child, wire.Fault(text))

    def _fail(self, text: str, is_told: bool = False) -> None:
        """Tell all children that the job is over, and the caller unless it knows (``is_told``)."""
        log.error("%s", text)
        self._failure = text
        self._fault(self._children.connected(), text)
        if not is_told:
            self._on_fault(text)

    def _look_for_stalls(self) -> None:
        if self._failure is not None:
            return
        now = self._clock.look(time.monotonic())
        waits = [wait for store in self._stores.values() for wait in store.waits()]
        for stall in self._stalls.observe(waits, now):
            if stall.is_fatal:
                self._fail(stall.text(self._children.name))
                return
            log.warning("%s", stall.text(self._children.name))
