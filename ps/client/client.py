"""A worker's side of the data plane: the loop round its core, and what other threads call.

The script's thread and MXNet's engine threads call a `StoreClient` (store_client.py) or the first
half of `Client`. They only post: the rest runs in the reactor's thread, which owns the connections
and the core (core.py). Settings, keys and operations reach the core in program order.

An operation says where its bytes lie and where its values go: the script's own arrays, or the key's
place in the store's staging memory (staging.py). The engine's dependencies keep everybody else
away from both until the operation is done.

A store is closed when nothing refers to its `StoreClient` any more. An operation under way refers
to it, and so does a setting that is not accepted, so a store that is closed has nothing under way.
Python may notice that in any thread, where no more is done than to post it.
"""

import functools
import os
import threading
import time
import weakref
from collections import deque
from typing import Any, Callable, Deque, List, Optional, Tuple

import numpy as np
import zmq

from .. import wire
from ..errors import BaryonError, UsageError, WaitTimeout
from ..memory import HostMemory, Memory, staging
from ..plan import Plan
from ..transport import KeyPair, Link, Reactor, ServerAddress, Timer
from ..waits import wait_awake
from .core import ClientCore, Introduction, Setting
from .departures import Operation
from .requests import Request
from .staging import Staging
from .store_client import StoreClient
from .worker_store import WorkerStore

__all__ = ["Client"]

_forks = 0  # that led to this process; asking the kernel for our pid costs more at every call


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


class Client:
    """All of a worker's connections to servers, and the stores that it has opened.

    ``name`` is the task's, for messages. ``num_owners`` servers share the parameters; ``servers``
    are all of them, or the one server in front of them. ``on_fault(text)`` is called in the
    reactor's thread when a server has been out of reach for ``silence_s``; everything has failed
    by then.
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
        self._encrypts = encrypts
        self._timeout_s = timeout_s
        self._silence_s = silence_s
        self._on_fault = on_fault
        self._memory = memory
        self._when_failed: Callable[[BaryonError], object] = lambda error: None
        self._links: List[Link] = []
        self._timer: Optional[Timer] = None  # for the core's `due`
        # What other threads have said and the core has not heard: (one of its methods, arguments).
        self._said: Deque[Tuple[Callable[..., None], Tuple[Any, ...]]] = deque()
        self._core = ClientCore(
            servers,
            num_owners,
            name=name,
            silence_s=silence_s,
            now=time.monotonic(),
            on_failure=self._on_failure,
        )
        reactor.post(self._connect)

    # -- from any thread ----------------------------------------------------------------------

    def open(
        self, message: wire.Open, memory: Optional[Tuple[Memory, Memory]] = None
    ) -> StoreClient:
        """Open a new store. All workers open the same stores under the same numbers.

        ``memory`` is where its gradients leave from and where its values arrive, if not the usual.
        """
        if memory is None:
            memory = staging(self._memory, message.store)
            if self._memory is None:  # a place is not filled again before its answer has come
                memory = memory[0], memory[0]
        plan = Plan(self._num_owners, has_whole_keys=message.has_whole_keys)
        store = WorkerStore(message.store, plan, Staging(message.store, *memory))
        self._tell(self._core.open, store, message)
        client = StoreClient(self, store)
        weakref.finalize(client, self._reactor.post, self._close_store, store).atexit = False
        return client

    def introduce(self, message: Introduction) -> None:
        """Tell all servers, on each connection, before anything that is sent later."""
        self._tell(self._core.introduce, message)

    def announce(self, store: WorkerStore, operation: Operation) -> None:
        """Take note that an operation will become ready."""
        self._said.append((self._core.announce, (store, operation)))

    def flush(self, store: WorkerStore, take_ready: Callable[[], List[Operation]]) -> None:
        """Send the operations that are ready by then."""
        self._reactor.post(self._flush, store, take_ready)

    def configure(
        self,
        store: WorkerStore,
        make: Callable[[int], Setting],
        done: Callable[[], object],
        user: object,
    ) -> None:
        """Send the store's next setting, ``make(serial)``; ``done()`` when all servers have
        accepted it. Both are called in the reactor's thread. Until then ``user`` is kept."""
        self._tell(self._core.configure, store, make, done, user)

    def raise_if_failed(self) -> None:
        """Raise the error that has made the stores useless, if there is one."""
        self.raise_if_forked()
        if self._core.error is not None:
            raise self._core.error

    def raise_if_forked(self) -> None:
        """Raise UsageError in a process forked from the one whose connections these are."""
        if self._forks != _forks:
            raise UsageError(
                "this process was forked from the one that created the dist kvstore, which alone "
                "can use it; create the store after the fork, or in one process"
            )

    def fail(self, error: BaryonError) -> None:
        """Fail every operation under way or to come; `raise_if_failed` raises ``error``."""
        self._tell(self._core.fail, error)

    def drain(self, limit_s: Optional[float] = None) -> None:
        """Wait until everything is answered. Raises WaitTimeout, or the error by which all has
        failed."""
        limit_s = self._timeout_s if limit_s is None else limit_s
        idle = threading.Event()
        self._tell(self._core.when_idle, idle.set)
        if not wait_awake(idle, limit_s):
            count = self._core.num_unfinished
            raise WaitTimeout(f"{count} operations were not answered in {limit_s:.0f} s")
        self.raise_if_failed()

    def wait(self, done: threading.Event, what: str) -> None:
        """Wait for ``done``, which an answer sets; ``what`` names that in the message.

        Raises WaitTimeout when nothing at all has been answered for as long as a wait may take:
        this answer may have to wait for others.
        """
        seen = -1
        while not wait_awake(done, self._timeout_s):
            if self._core.num_finished == seen:
                raise WaitTimeout(f"waited {2 * self._timeout_s:.0f} s for {what}; see --timeout")
            seen = self._core.num_finished

    def ask(
        self,
        owner: int,
        message: Callable[[int], wire.Message],
        payload: Optional[np.ndarray] = None,
    ) -> Tuple[Any, np.ndarray]:
        """Send ``message(serial)`` to an owner and wait. Returns its answer and the answer's
        payload (uint8). Only for clients that speak to the owners.

        Raises as `drain`, and UsageError if the owner refuses.
        """
        answered = threading.Event()
        request = Request(owner, message, payload, answered.set)
        self._tell(self._core.ask, request)
        if not wait_awake(answered, self._timeout_s):
            raise WaitTimeout(f"server {owner} did not answer in {self._timeout_s:.0f} s")
        self.raise_if_failed()
        if isinstance(request.answer, wire.State) and request.answer.error:
            raise UsageError(f"server {owner}: {request.answer.error}")
        return request.answer, request.payload

    def join(self, store: WorkerStore, done: Callable[[Optional[BaryonError]], object]) -> None:
        """Join the others at the end of an epoch; ``done(None)``, in the reactor's thread, when
        all have, or ``done(error)``. Nothing may be under way."""
        self._tell(self._core.join, store, done)

    def wait_for_others(self, store: WorkerStore) -> None:
        """`join` when nothing is under way any more, and wait for all. Raises as `drain`."""
        self.drain()
        joined = threading.Event()
        self.join(store, lambda error: joined.set())
        if not wait_awake(joined, self._timeout_s):
            raise WaitTimeout(
                f"waited {self._timeout_s:.0f} s for other workers to join; see --timeout"
            )
        self.raise_if_failed()

    def _tell(self, event: Callable[..., None], *args: Any) -> None:
        self._said.append((event, args))
        self._reactor.post(self._on_said)

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
                    on_up=functools.partial(self._on_up, index),
                    on_message=functools.partial(self._on_message, index),
                )
            )
        self._reactor.call_every(self._core.outages.interval_s, self._look_at_links)

    def _on_said(self) -> None:
        self._listen()
        self._send()

    def _listen(self) -> None:
        said = self._said
        while said:
            event, args = said.popleft()
            event(*args)

    def _flush(self, store: WorkerStore, take_ready: Callable[[], List[Operation]]) -> None:
        ready = take_ready()  # they were announced before, so listen afterwards
        self._listen()
        self._core.flush(store, ready, time.monotonic())
        self._send()

    def _close_store(self, store: WorkerStore) -> None:
        """Nobody refers to a store: the servers hear of it when nobody uses its values either."""
        self._listen()
        close = self._core.forget(store)
        area = store.staging.incoming.area
        weakref.finalize(area, self._tell, self._core.close, close).atexit = False
        self._send()

    def _on_up(self, server: int) -> None:
        self._core.connected(server)
        self._send()

    def _on_message(self, server: int, frames: List[zmq.Frame]) -> None:
        self._core.received(server, [frame.buffer for frame in frames], time.monotonic())
        self._send()

    def _on_due(self) -> None:
        self._timer = None
        self._core.pass_time(time.monotonic())
        self._send()

    def _look_at_links(self) -> None:
        what = self._core.look(time.monotonic(), [link.is_up for link in self._links])
        if what is not None:
            self._on_fault(what)

    def _send(self) -> None:
        """Send what the core wants sent, and set its timer."""
        sends = self._core.sends
        if sends:
            for server, message, payload, priority in sends:
                self._links[server].send(message, payload, priority)
            sends.clear()
            for link in self._links:
                link.flush()
        due = self._core.due
        if due is not None and self._timer is None:
            self._timer = self._reactor.call_later(due - time.monotonic(), self._on_due)

    def _on_failure(self, error: BaryonError) -> None:
        self.close()  # what is still queued lies in memory that will not be ours to send
        self._when_failed(error)
