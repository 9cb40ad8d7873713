"""A worker's side of the data plane.

The script's thread and MXNet's engine threads call a `StoreClient` (store_client.py), which only
posts. `Client` and everything behind it runs in the reactor's thread. An operation says where its
bytes lie and where its values go: the script's own arrays, or the key's place in the store's
staging memory (staging.py). The engine's dependencies see to it that nobody else touches either
before the operation is done.

A connection that breaks is made anew, and what is not answered is sent again: all that servers
must know (`Open`, `Declare`), then settings not accepted, then operations not answered. A link
that stays down for ``silence_s`` fails everything, with the server's name.

A store is closed when nobody refers to its `StoreClient` any more. Whoever begins an operation does
so until it is done, and so do settings that are not accepted: nothing is under way then. Python may
notice that in any thread, so no more is done there than to post it.
"""

import functools
import os
import threading
import time
import weakref
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterable, List, Optional, Tuple, Union

import numpy as np
import zmq

from .. import wire
from ..errors import BaryonError, PeerError, ProtocolError, UsageError, WaitTimeout
from ..memory import HostMemory, Memory, staging
from ..plan import Plan
from ..transport import KeyPair, Link, Reactor, ServerAddress
from ..waits import wait_awake
from .departures import Operation, Run
from .requests import Request, Requests
from .staging import WorkerStore
from .store_client import StoreClient
from .window import Window

__all__ = ["Client"]

# What may be on its way, being summed, or on its way back: measured at 1 Gbit/s, 4 hosts, where 8
# MiB are too few and 24 too many; and as much as keeps a link busy, however many there are.
_WINDOW_NBYTES = 16 << 20
_LINK_NBYTES = 4 << 20
_LOOKS = 10  # at the links, while the longest silence lasts


_forks = 0  # that led to this process; asking the kernel who we are costs more at every call


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


Introduction = Union[wire.Open, wire.SetCompression, wire.Declare]
Setting = Union[wire.SetUpdater, wire.SetHyper]


class _Setting:
    """A SetUpdater, SetHyper or Close that some servers have not accepted yet; until then
    ``user`` is not closed."""

    __slots__ = ("done", "remaining", "user")

    def __init__(
        self, remaining: int, done: Callable[[], None], user: Optional[StoreClient] = None
    ) -> None:
        self.remaining = remaining
        self.done = done
        self.user = user


class Client:
    """All of a worker's connections to servers, and the stores that it has opened.

    ``name`` is the task's, for messages. ``num_owners`` servers share the parameters out, and
    ``servers`` are either all of them or the one server in front of them.
    ``on_fault(text)`` is called, in the reactor's thread, when a server cannot be reached for
    ``silence_s``; everything has failed then.
    """

    def __init__(
        self,
        reactor: Reactor,
        context: zmq.Context,
        *,
        keys: KeyPair,
        servers: List[ServerAddress],
        num_owners: int,
        timeout_s: float,
        silence_s: float,
        on_fault: Callable[[str], object],
        name: str = "",
        memory: Optional[HostMemory] = None,
        encrypts: bool = True,
    ) -> None:
        self._reactor = reactor
        self._forks = _forks
        self._context = context
        self._keys = keys
        self._servers = servers
        self._num_owners = num_owners
        self._name = name
        self._encrypts = encrypts
        self._timeout_s = timeout_s
        self._silence_s = silence_s
        self._on_fault = on_fault
        self._memory = memory
        self._when_failed: Callable[[BaryonError], object] = lambda error: None
        self._links: List[Link] = []
        window_nbytes = max(_WINDOW_NBYTES, _LINK_NBYTES * len(servers))
        self._window = Window(reactor, window_nbytes, self._send_now, self._flush_links)
        self._introduction: List[Introduction] = []  # what each server must know, in order
        self._new: Deque[Introduction] = deque()  # the same, not yet told
        self._new_settings: Deque[Callable[[], None]] = deque()
        self._stores: Dict[int, WorkerStore] = {}
        self._error: Optional[BaryonError] = None
        self._requests = Requests()
        self._unfinished = 0
        self._num_finished = 0
        self._accepting: Dict[Tuple[int, int], _Setting] = {}  # (store, serial)
        self._idle: List[threading.Event] = []
        reactor.post(self._connect)

    # -- from any thread ----------------------------------------------------------------------

    def open(
        self, message: wire.Open, memory: Optional[Tuple[Memory, Memory]] = None
    ) -> StoreClient:
        """Open a new store; workers open the same stores under the same numbers.

        ``memory`` is where its gradients leave from and where its values arrive, if not the usual.
        """
        number = message.store
        if memory is None:
            memory = staging(self._memory, number)
            if self._memory is None:  # a place is not filled again before its answer has come
                memory = memory[0], memory[0]
        plan = Plan(self._num_owners, has_whole_keys=message.has_whole_keys)
        store = self._stores[number] = WorkerStore(number, plan, *memory)
        self.will_introduce(message)
        client = StoreClient(self, store)
        weakref.finalize(client, self._reactor.post, self._close_store, store).atexit = False
        return client

    def will_introduce(self, message: Introduction) -> None:
        """Tell all servers, on each connection, before anything that is sent later."""
        self._new.append(message)
        self._reactor.post(self._introduce)

    def will_flush(self, store: WorkerStore) -> None:
        """Send what has become ready in a store."""
        self._reactor.post(self._flush, store)

    def will_configure(
        self,
        user: StoreClient,
        store: WorkerStore,
        make: Callable[[int], Setting],
        done: Callable[[], None],
    ) -> None:
        """Send the store's next setting, ``make(serial)``; ``done()`` when all servers have
        accepted it. Both are called in the reactor's thread. Till then ``user`` is not closed."""

        def configure() -> None:
            self._unfinished += store.take_announced()  # before, which `make` may ask about
            self._configure(make(store.next_setting()), done, user)

        self._new_settings.append(configure)
        self._reactor.post(self._configure_new)

    def raise_if_failed(self) -> None:
        """Raise what has made the stores useless, if anything has."""
        self.raise_if_forked()
        if self._error is not None:
            raise self._error

    def raise_if_forked(self) -> None:
        """Raise UsageError in a process forked from the one whose connections these are."""
        if self._forks != _forks:
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
        if not wait_awake(idle, limit_s):
            count = self._unfinished
            raise WaitTimeout(f"{count} operations were not answered in {limit_s:.0f} s")
        self.raise_if_failed()

    def wait(self, done: threading.Event, what: str) -> None:
        """Wait for ``done``, which something that is answered sets; ``what`` names that.

        Raises WaitTimeout when nothing at all has been answered for as long as a wait may take:
        what is waited for may have to wait for others itself.
        """
        seen = -1
        while not wait_awake(done, self._timeout_s):
            if self._num_finished == seen:
                raise WaitTimeout(f"waited {2 * self._timeout_s:.0f} s for {what}; see --timeout")
            seen = self._num_finished

    def ask(
        self,
        owner: int,
        message: Callable[[int], wire.Message],
        payload: Optional[np.ndarray] = None,
    ) -> Tuple[Any, np.ndarray]:
        """Send ``message(serial)`` to an owner; waits for the answer and returns it and its payload
        (uint8). For clients that speak to the owners.

        Raises as `drain`, and UsageError with what the owner says against an answer.
        """
        request = Request(owner, message, payload)
        self._reactor.post(self._ask, request)
        if not wait_awake(request.done, self._timeout_s):
            raise WaitTimeout(f"server {owner} did not answer in {self._timeout_s:.0f} s")
        self.raise_if_failed()
        if isinstance(request.answer, wire.State) and request.answer.error:
            raise UsageError(f"server {owner}: {request.answer.error}")
        return request.answer, request.payload

    def join(self, store: WorkerStore, done: Callable[[], None]) -> List[Request]:
        """Join the others at the end of an epoch; ``done()``, in the reactor's thread, when all
        have. Nothing may be under way."""
        epoch = store.next_epoch()
        remaining = set(range(len(self._servers)))

        def joined(server: int) -> None:
            remaining.discard(server)
            if not remaining:
                store.forget_rounds()
                done()

        requests = [
            Request(
                server,
                lambda serial: wire.Join(store.number, serial, epoch),
                on_done=functools.partial(joined, server),
            )
            for server in remaining
        ]
        for request in requests:
            self._reactor.post(self._ask, request)
        return requests

    def wait_for_others(self, store: WorkerStore) -> None:
        """`join`, when nothing is under way any more, and wait for all. Raises as `drain`."""
        self.drain()
        for request in self.join(store, lambda: None):
            if not wait_awake(request.done, self._timeout_s):
                raise WaitTimeout(
                    f"waited {self._timeout_s:.0f} s for other workers to join; see --timeout"
                )
        self.raise_if_failed()

    # -- in the reactor's thread --------------------------------------------------------------

    def when_failed(self, callback: Callable[[BaryonError], object]) -> None:
        """Call ``callback(error)`` when everything has failed."""
        self._when_failed = callback

    def close(self) -> None:
        for link in self._links:
            link.close()

    def _connect(self) -> None:
        for index, server in enumerate(self._servers):
            self._links.append(
                Link(
                    self._reactor,
                    self._context,
                    server,
                    self._keys,
                    member=0 if self._memory is None else self._memory.member,
                    encrypts=self._encrypts,
                    silence_s=self._silence_s,
                    on_up=functools.partial(self._tell_all, index),
                    on_message=functools.partial(self._on_message, index),
                )
            )
        self._last_look = time.monotonic()
        self._reactor.call_every(self._silence_s / _LOOKS, self._look_at_links)

    def _tell_all(self, server: int) -> None:
        """Send on a new connection all that the server may not know."""
        link = self._links[server]
        for message in [*self._introduction, *link.unaccepted.values()]:
            link.send(message)
        for message, payload in self._requests.pending(server):
            link.send(message, payload)
        for store in list(self._stores.values()):  # others may open more
            is_only = len(self._links) == 1
            for run in store.unanswered(None if is_only else server):
                self._send(link, store, run)

    def _look_at_links(self) -> None:
        """Fail if a link has been down for too long, of the time that this process was awake."""
        now = time.monotonic()
        elapsed_s = min(now - self._last_look, 2 * self._silence_s / _LOOKS)
        self._last_look = now
        for link in self._links:
            link.pass_time(elapsed_s)
        if self._error is not None or all(link.down_s <= self._silence_s for link in self._links):
            return
        lost = " and ".join(
            f"server {index} ({link.server.endpoint}) for {link.down_s:.0f} s"
            for index, link in enumerate(self._links)
            if link.down_s > self._silence_s / 2
        )
        what = f"lost {lost}: is the network between their hosts cut, or a firewall in the way?"
        self._fail(PeerError(f"{self._name} has {what}"))
        self._on_fault(what)

    def _ask(self, request: Request) -> None:
        self._introduce()
        message = self._requests.add(request)
        if self._error is not None:
            self._requests.fail()
            return
        link = self._links[request.server]
        link.send(message, request.sent_payload)
        link.flush()

    def _introduce(self) -> None:
        while self._new:
            message = self._new.popleft()
            self._introduction.append(message)
            for link in self._links:
                link.send(message)
                link.flush()

    def _close_store(self, store: WorkerStore) -> None:
        """Forget a store; the servers hear of it when its values are not looked at any more.

        Where values lie in the memory of the host, MXNet may still copy some, and they are the
        servers' to discard when all have closed.
        """
        self._introduce()
        number = store.number
        del self._stores[number]
        self._introduction = [one for one in self._introduction if one.store != number]
        buckets = store.plan.buckets
        near = {b.region.start for b in buckets if self._servers[self._way(b.server)].is_shared}
        store.incoming.discard(keep=near)  # what servers of this host have written
        store.outgoing.discard()
        close = wire.Close(number, store.next_setting())
        area = store.incoming.area
        weakref.finalize(area, self._reactor.post, self._configure, close).atexit = False

    def _configure_new(self) -> None:
        while self._new_settings:
            self._new_settings.popleft()()

    def _configure(
        self,
        message: Union[Setting, wire.Close],
        done: Callable[[], None] = lambda: None,
        user: Optional[StoreClient] = None,
    ) -> None:
        """Send what every server accepts or fails at; `drain` waits for that, too."""
        self._unfinished += 1
        name = message.store, message.serial
        self._accepting[name] = _Setting(len(self._links), done, user)
        for link in self._links:
            link.unaccepted[name] = message
            link.send(message)
            link.flush()

    def _on_accepted(self, server: int, message: wire.Accepted) -> None:
        name = message.store, message.serial
        if self._links[server].unaccepted.pop(name, None) is None:
            return  # a repeat
        setting = self._accepting[name]
        setting.remaining -= 1
        if not setting.remaining:
            del self._accepting[name]
            setting.done()
            self._count_down()

    def _flush(self, store: WorkerStore) -> None:
        """Send what has become ready."""
        store.is_flush_posted = False  # before looking: what comes later posts another
        ready = store.take_ready()
        self._introduce()  # their keys, if they are new
        self._configure_new()  # whose versions they may name
        self._unfinished += store.take_announced()
        if self._error is not None:
            for operation in ready:
                self._finish(operation)
            return
        self._send_runs(store, store.depart(ready))
        self._flush_links()

    def _flush_links(self) -> None:
        for link in self._links:
            link.flush()

    def _way(self, owner: int) -> int:
        """The number of the link to an owner: its own, or the only one there is."""
        return owner if len(self._servers) > 1 else 0

    def _send_runs(self, store: WorkerStore, runs: Iterable[Run]) -> None:
        for run in runs:
            link = self._links[self._way(run.slices[0].bucket.server)]
            if link.server.is_shared:
                if not run.is_framed:
                    store.fill(run)
                store.sent(run)
                self._send(link, store, run)
            else:
                for part in store.apart(run):
                    self._window.put(part.priority, part.nbytes, link, store, part)
        self._window.flush()

    def _send_now(self, link: Link, store: WorkerStore, run: Run) -> None:
        store.sent(run)
        self._send(link, store, run)

    @staticmethod
    def _send(link: Link, store: WorkerStore, run: Run) -> None:
        if run.is_framed:
            link.send_rows(*store.framed(run), run.priority)
        elif link.server.is_shared:
            link.send_shared(store.header(run), run.priority)
        else:
            link.send(*store.message(run), run.priority)

    def _on_message(self, server: int, frames: List[zmq.Frame]) -> None:
        try:
            message = wire.DATA.decode(frames[0].buffer)
            if not isinstance(message, wire.Hello):
                self._links[server].progress()
            if isinstance(message, wire.Batch):
                self._on_batch(server, message, frames[1:])
            elif isinstance(message, wire.Answer):
                self._on_answer(server, message, frames[1:])
            elif isinstance(message, wire.AnswerRows):
                self._on_rows(server, message, frames[1:])
            elif isinstance(message, (wire.State, wire.Stored, wire.Joined)):
                payload = np.frombuffer(frames[1].buffer, np.uint8) if len(frames) > 1 else None
                self._requests.answered(server, message, payload)
            elif isinstance(message, wire.Accepted):
                self._on_accepted(server, message)
            elif isinstance(message, wire.Fault):
                self._fail(PeerError(message.text))
            elif not isinstance(message, wire.Hello):
                raise ProtocolError(f"{type(message).__name__} is not for a worker")
        except ProtocolError as error:
            self._fail(ProtocolError(f"server {server} sent what it must not: {error}"))

    def _on_batch(self, server: int, message: wire.Batch, payloads: List[zmq.Frame]) -> None:
        if len(payloads) != sum(isinstance(one, wire.AnswerRows) for one in message.messages):
            raise ProtocolError(f"{len(message.messages)} messages with {len(payloads)} payloads")
        rest = iter(payloads)
        for answer in message.messages:
            if isinstance(answer, wire.AnswerRows):
                self._on_rows(server, answer, [next(rest)])
            else:
                self._on_answer(server, answer, [])

    def _on_answer(self, server: int, message: Any, payloads: List[zmq.Frame]) -> None:
        if not isinstance(message, wire.Answer) or message.store not in self._stores:
            raise ProtocolError(f"{message} is not for a worker")
        if len(payloads) != (message.has_value and not self._servers[server].is_shared):
            raise ProtocolError(f"{message} with {len(payloads)} payload frames")
        store = self._stores[message.store]
        self._check_owner(server, store, message.bucket)
        payload = np.frombuffer(payloads[0].buffer, np.uint8) if payloads else None
        if not self._servers[server].is_shared:
            self._window.answered(store.unanswered_nbytes(message))
        for operation in store.answered(message, payload):
            self._finish(operation)
        self._window.flush()

    def _on_rows(self, server: int, message: wire.AnswerRows, payloads: List[zmq.Frame]) -> None:
        if message.store not in self._stores or len(payloads) != 1:
            raise ProtocolError(f"{message} with {len(payloads)} payload frames")
        store = self._stores[message.store]
        self._check_owner(server, store, message.bucket)
        if not self._servers[server].is_shared:
            where = message.store, message.bucket, message.position, 1
            self._window.answered(store.unanswered_nbytes(wire.Answer(*where, False)))
        payload = np.frombuffer(payloads[0].buffer, np.uint8)
        for operation in store.answered_rows(message, payload):
            self._finish(operation)
        self._window.flush()

    def _check_owner(self, server: int, store: WorkerStore, bucket: int) -> None:
        """Raise ProtocolError if a server speaks of a bucket that is asked of another."""
        buckets = store.plan.buckets
        if not 0 <= bucket < len(buckets) or self._way(buckets[bucket].server) != server:
            raise ProtocolError(f"an answer for bucket {bucket}, which is none of its")

    def _finish(self, operation: Operation) -> None:
        operation.done(None if self._error is None else str(self._error))
        self._count_down()

    def _count_down(self) -> None:
        self._num_finished += 1
        self._unfinished -= 1
        if not self._unfinished:
            self._release_waiters()

    def _fail(self, error: BaryonError) -> None:
        if self._error is None:
            self._error = error
            self._when_failed(error)
        self.close()  # what is still queued lies in memory that is no longer ours to send
        operations = {op: None for _, _, run in self._window.clear() for op in run.operations}
        for store in list(self._stores.values()):  # others may open more
            operations.update(dict.fromkeys(store.forget_all()))
        for operation in operations:
            self._finish(operation)
        self._requests.fail()
        self._release_waiters()

    def _call_when_idle(self, idle: threading.Event) -> None:
        self._idle.append(idle)
        for store in list(self._stores.values()):  # others may open more
            self._unfinished += store.take_announced()
        if not self._unfinished or self._error is not None:
            self._release_waiters()

    def _release_waiters(self) -> None:
        for idle in self._idle:
            idle.set()
        self._idle.clear()
