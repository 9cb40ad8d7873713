"""The loop that owns every socket of a process.

Guarantees: all callbacks run in the one thread that calls `run`, so the data that they use needs no
lock. `post` and `stop` may be called from any thread. An exception in a callback ends the loop, and
`run` raises it: a callback that can go on catches its own errors.

Rejected: asyncio, whose tasks and futures cost several times a callback and whose ZeroMQ support
polls one edge-triggered file descriptor per socket; a thread per socket, which moves the locking
problem into the stores.
"""

import heapq
import itertools
import os
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Tuple

import zmq

__all__ = ["Reactor", "Timer"]

_BURST = 64  # messages taken from one socket before the others get their turn


class Timer:
    """A callback to come. `cancel` costs nothing."""

    __slots__ = ("callback", "cancelled")

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Reactor:
    """Sockets, file descriptors, timers and posted calls in one thread."""

    def __init__(self) -> None:
        self._poller = zmq.Poller()
        self._readers: Dict[Any, Callable[[], None]] = {}
        self._writers: Dict[Any, Callable[[], None]] = {}
        self._posted: Deque[Tuple[Callable[..., None], Tuple[Any, ...]]] = deque()
        self._timers: List[Tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._stopped = False
        self._sleeping = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self.watch(self._wake_read, self._drain_wake_ups)

    # -- from any thread ----------------------------------------------------------------------

    def post(self, callback: Callable[..., None], *args: Any) -> None:
        """Call ``callback(*args)`` soon in the loop's thread, in the order of posting."""
        self._posted.append((callback, args))
        # The loop sets ``_sleeping`` and then looks at ``_posted`` once more. We append and then
        # look at ``_sleeping``. So at least one of the two sees the other.
        if self._sleeping:
            self._wake()

    def stop(self) -> None:
        """Make `run` return after the callback that is running."""
        self._stopped = True
        self._wake()

    # -- from the loop's thread, or before it runs --------------------------------------------

    def receive(self, socket: zmq.Socket, handler: Callable[[List[zmq.Frame]], None]) -> None:
        """Call ``handler(frames)`` for each message that arrives at a ZeroMQ socket."""

        def take() -> None:
            for _ in range(_BURST):
                if socket.closed:
                    return
                try:
                    frames = socket.recv_multipart(zmq.NOBLOCK, copy=False)
                except zmq.Again:
                    return
                handler(frames)

        self.watch(socket, take)

    def watch(self, source: Any, on_readable: Callable[[], None]) -> None:
        """Call ``on_readable()`` while ``source`` (ZeroMQ socket or descriptor) can be read."""
        self._readers[source] = on_readable
        self._register(source)

    def watch_writable(self, source: Any, on_writable: Callable[[], None]) -> None:
        """Call ``on_writable()`` while ``source`` can be written."""
        self._writers[source] = on_writable
        self._register(source)

    def unwatch_writable(self, source: Any) -> None:
        if self._writers.pop(source, None) is not None:  # an outbox calls this at every flush
            self._register(source)

    def unwatch(self, source: Any) -> None:
        self._readers.pop(source, None)
        self._writers.pop(source, None)
        self._register(source)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(callback)
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._order), timer))
        return timer

    def call_every(self, interval_s: float, callback: Callable[[], None]) -> None:
        def again() -> None:
            callback()
            self.call_later(interval_s, again)

        self.call_later(interval_s, again)

    def run(self) -> None:
        """Serve until `stop`, and then finish this turn of the loop."""
        while not self._stopped:
            self._sleeping = True
            wait_ms = 0 if self._posted else self._until_next_timer_ms()
            try:
                ready = self._poller.poll(wait_ms)
            finally:
                self._sleeping = False
            self._run_posted()
            for source, events in ready:
                if events & (zmq.POLLIN | zmq.POLLERR) and source in self._readers:
                    self._readers[source]()
                if events & zmq.POLLOUT and source in self._writers:
                    self._writers[source]()
            self._run_timers()

    def close(self) -> None:
        """Free the loop's own descriptors. Each socket's owner closes the socket."""
        self.unwatch(self._wake_read)
        read, write = self._wake_read, self._wake_write
        self._wake_read = self._wake_write = -1  # other threads may still call `post` and `stop`
        os.close(read)
        os.close(write)

    # -- inside -------------------------------------------------------------------------------

    def _register(self, source: Any) -> None:
        events = (zmq.POLLIN if source in self._readers else 0) | (
            zmq.POLLOUT if source in self._writers else 0
        )
        if events:
            self._poller.register(source, events)
        elif source in self._poller:
            self._poller.unregister(source)

    def _until_next_timer_ms(self) -> int:
        if not self._timers:
            return -1
        return max(0, int((self._timers[0][0] - time.monotonic()) * 1000) + 1)

    def _run_posted(self) -> None:
        for _ in range(len(self._posted)):
            callback, args = self._posted.popleft()
            callback(*args)

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if not timer.cancelled:
                timer.callback()

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b".")
        except OSError:
            pass  # the pipe is full of wake-ups, or closed

    def _drain_wake_ups(self) -> None:
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            pass
