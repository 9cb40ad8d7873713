"""Ctrl-Z: all tasks are stopped before launch.py is, so that none is missed meanwhile. Pure.

The loop's clock stands still from `Pause` to `on_resume`. An agent that began in that time would
hear nobody and give up. So agents that are coming up are waited for, unless a queue holds them.
"""

from typing import List

from .actions import Action, Pause, Send
from .control import messages
from .observers import Notice
from .starting import Starting
from .state import OVER, STARTING, HostState, JobState

__all__ = ["Suspending"]

SUSPEND_S = 2.0  # for agents to stop their tasks


class Suspending:
    def __init__(self, state: JobState, starting: Starting) -> None:
        self._state = state
        self._starting = starting
        self._is_postponed = False  # until all agents are there
        self._deadline = 0.0

    def on_suspend(self, now: float) -> List[Action]:
        """The shell wants to stop this process."""
        state = self._state
        if state.suspending is not None or state.phase == OVER:
            return []
        hosts = state.hosts.values()
        is_awaited = state.phase == STARTING and any(host.heard is None for host in hosts)
        self._is_postponed = is_awaited and not state.is_queued
        if self._is_postponed:
            return []
        told: List[Action] = []
        if is_awaited:
            text = (
                "launch.py stops while its job is queued: if its hosts come meanwhile, their "
                f"agents give up after {state.job.silence_s:.0f} s"
            )
            told = [Notice(now, text)]
        state.suspending = {host.number for host in hosts if host.is_there}
        # An agent is silent once it has stopped its tasks: end the wait before it seems lost.
        self._deadline = now + min(SUSPEND_S, state.job.silence_s / 2)
        suspend = messages.Suspend(state.job.timeout_s)
        sends: List[Action] = [Send(state.hosts[n].peer, suspend) for n in state.suspending]
        return told + sends + self._pause_if_ready(now)

    def on_suspended(
        self, host: HostState, message: messages.Suspended, now: float
    ) -> List[Action]:
        """The tasks of a host are stopped."""
        if not self._state.suspending:
            return []
        self._state.suspending.discard(host.number)
        return self._pause_if_ready(now)

    def on_resume(self) -> List[Action]:
        """The shell lets this process go on (fg, bg), or has changed its mind."""
        self._is_postponed = False
        if self._state.suspending is None:
            return []
        self._state.suspending = None
        heard = [host for host in self._state.hosts.values() if host.heard is not None]
        resume: List[Action] = [Send(host.peer, messages.Resume()) for host in heard]
        return resume + self._starting.start_hosts()

    def look(self, now: float) -> List[Action]:
        return self.on_suspend(now) if self._is_postponed else self._pause_if_ready(now)

    def forgive(self, absence: float) -> None:
        """Do not count an ``absence`` of this process."""
        self._deadline += absence

    def _pause_if_ready(self, now: float) -> List[Action]:
        suspending = self._state.suspending
        is_ready = not suspending or now >= self._deadline
        return [Pause()] if suspending is not None and is_ready else []
