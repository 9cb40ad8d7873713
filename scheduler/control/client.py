"""A task's side of the control plane: join the job, stay alive, meet the others.

The reactor's thread owns the socket. Methods that wait are for other threads. They return when the
scheduler answers. Their own limit is only a backstop: the scheduler ends a job whose tasks wait for
too long, and its message names the tasks that did not come.
"""

import os
import threading
import time
from typing import Callable, Dict, Optional, Tuple

import zmq

from baryon.ps import (
    BaryonError,
    Message,
    PeerError,
    Reactor,
    UsageError,
    WaitTimeout,
    wait_awake,
)

from . import messages
from .credentials import Credentials
from .uplink import Uplink

__all__ = ["ControlClient"]

_MAX_TEXT = 64 << 10
_BACKSTOP_S = 60.0  # on top of the scheduler's own limit


class _Gathering:
    """A thread's wait in `ControlClient.gather`."""

    __slots__ = ("done", "values")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.values: Tuple[Tuple[int, bytes], ...] = ()


class ControlClient:
    """``on_roster(roster)`` is called once, when every task has joined.

    ``on_left(rank)``, for servers, is called when a worker has ended well. ``on_abort(error)``, for
    workers, is called when the job is stopping and no round will complete. ``positions()``, for
    workers, returns the positions that the scheduler compares (positions.py).
    """

    def __init__(
        self,
        reactor: Reactor,
        context: zmq.Context,
        credentials: Credentials,
        on_left: Callable[[int], object] = lambda rank: None,
        on_abort: Callable[[BaryonError], object] = lambda error: None,
        on_roster: Callable[[messages.Roster], object] = lambda roster: None,
        positions: Callable[[], Tuple[messages.Position, ...]] = tuple,
    ) -> None:
        self._reactor = reactor
        self._context = context
        self._credentials = credentials
        self._on_left = on_left
        self._on_roster = on_roster
        self._on_abort = on_abort
        self._positions = positions
        self._error: Optional[BaryonError] = None
        self._gatherings: Dict[str, _Gathering] = {}
        self._roster: Optional[messages.Roster] = None
        self._has_roster = threading.Event()
        self._uplink: Optional[Uplink] = None
        self._settled: Optional[threading.Event] = None
        reactor.post(self._connect)

    # -- from any thread ----------------------------------------------------------------------

    def join(self, endpoint: str = "") -> None:
        """Join the job; ``endpoint`` is where a server listens."""
        self._reactor.post(self._send, messages.Join(os.getpid(), endpoint))

    def gone(self, code: int) -> None:
        """Leave the job, with the exit code that this process will have.

        The scheduler then no longer minds if this task is silent.
        """
        self._reactor.post(self._send, messages.Gone(code))

    def failed(self, text: str) -> None:
        """Tell the scheduler that this task cannot go on; the scheduler ends the job."""
        self._reactor.post(self._send, messages.Failed(text[:_MAX_TEXT]))

    def give_up(self, error: BaryonError) -> None:
        """End every wait, in any thread, by raising ``error`` there."""
        self._reactor.post(self._abort, error)

    # -- from any thread but the reactor's ----------------------------------------------------

    def settle(self, limit_s: float) -> bool:
        """Wait until the scheduler has all that was sent; returns whether it has."""
        settled = threading.Event()
        self._reactor.post(self._settle, settled)
        return settled.wait(limit_s)

    def wait_for_roster(self) -> messages.Roster:
        """Wait until every task has joined; returns the servers."""
        self._wait(self._has_roster, "all tasks to join")
        assert self._roster is not None  # or the wait would have raised
        return self._roster

    def gather(self, name: str, call: str, value: bytes) -> Tuple[Tuple[int, bytes], ...]:
        """Meet all workers: give them ``value``; returns (rank, value) of each, in rank order.

        Waits until every worker has come to the meeting ``name``, or has ended well. ``call`` is
        the name of the call in messages to the user, and must be the same everywhere. A value has
        at most `messages.MAX_VALUE_NBYTES`.

        Raises UsageError if another thread waits in the same meeting.
        """
        assert len(value) <= messages.MAX_VALUE_NBYTES  # the scheduler would hang up
        gathering = _Gathering()
        if self._gatherings.setdefault(name, gathering) is not gathering:
            raise UsageError(f"two threads call {call} ({name}) at once; only one may")
        try:
            self._reactor.post(self._send, messages.Gather(name, call, value))
            self._wait(gathering.done, f"all workers to reach {call} ({name})")
        finally:
            del self._gatherings[name]
        return gathering.values

    def _wait(self, event: threading.Event, what: str) -> None:
        limit_s = self._credentials.timeout_s + _BACKSTOP_S
        if self._error is None and not wait_awake(event, limit_s):
            raise WaitTimeout(f"waited {limit_s:.0f} s for {what}")
        if self._error is not None:
            raise self._error

    # -- in the reactor's thread --------------------------------------------------------------

    def close(self) -> None:
        if self._uplink is not None:  # the task may have been told to end before
            self._uplink.close()

    def _connect(self) -> None:
        self._uplink = Uplink(
            self._reactor,
            self._context,
            self._credentials,
            on_message=self._on_message,
            on_heard=self._look_whether_settled,
        )
        self._last_look = time.monotonic()
        self._reactor.call_every(self._credentials.silence_s / 5, self._keep_in_touch)

    def _send(self, message: Message) -> None:
        assert self._uplink is not None
        self._uplink.send(message)

    def _settle(self, settled: threading.Event) -> None:
        self._settled = settled
        self._look_whether_settled()

    def _look_whether_settled(self) -> None:
        if self._settled is not None and (self._uplink is None or self._uplink.is_done):
            self._settled.set()

    def _keep_in_touch(self) -> None:
        """Send a sign of life, and end this process if the scheduler sends none.

        The agent would end it earlier, unless both the agent and its guard were killed.
        """
        uplink = self._uplink
        assert uplink is not None
        uplink.send_now(messages.Alive(positions=self._positions()))
        now, silence_s = time.monotonic(), self._credentials.silence_s
        if now - self._last_look > silence_s / 2:
            uplink.last_heard = now  # this process was stopped, so it could hear nothing
        self._last_look = now
        if now - uplink.last_heard > 2 * silence_s:
            try:
                os.write(
                    2, b"baryon: the scheduler has been silent for too long; ending this task\n"
                )
            finally:  # the reader of our output may be gone, too
                os._exit(1)

    def _on_message(self, message: Message) -> None:
        if isinstance(message, messages.Roster):
            self._roster = message
            self._has_roster.set()
            self._on_roster(message)
        elif isinstance(message, messages.Gathered):
            gathering = self._gatherings.get(message.name)
            if gathering is not None:
                gathering.values = message.values
                gathering.done.set()
        elif isinstance(message, messages.Left):
            self._on_left(message.rank)
        elif isinstance(message, messages.Abort):
            self._abort(PeerError(message.text))

    def _abort(self, error: BaryonError) -> None:
        self._error = error
        self._on_abort(error)
        self._has_roster.set()
        for gathering in list(self._gatherings.values()):
            gathering.done.set()
