"""Who is silent or late: signs of life, lost hosts, and workers that wait for others. Pure.

A host whose agent is silent for too long is *lost*. The scheduler waits for nothing more from
there: that agent does not hear the scheduler either, and ends everything on its host by itself.
"""

from typing import Dict, List

from .actions import Action, Send
from .control import messages
from .meetings import Meetings
from .observers import Notice
from .state import STARTING, HostState, JobState, TaskState
from .stopping import Stopping

__all__ = ["Watching"]

STALL_WARNING_S = 60.0


class Watching:
    def __init__(self, state: JobState, stopping: Stopping, meetings: Meetings, now: float) -> None:
        self._state = state
        self._stopping = stopping
        self._meetings = meetings
        self._last_tick = now
        self._next_alive = now

    # -- events -------------------------------------------------------------------------------

    def on_agent_alive(self, host: HostState, message: messages.Alive, now: float) -> List[Action]:
        for task in self._state.of_host(host.number):
            task.is_stopped = task.task.slug in message.stopped
        return []

    def on_failed(self, task: TaskState, message: messages.Failed, now: float) -> List[Action]:
        """A task cannot go on, perhaps because of a host that is silent but not yet lost."""
        also = "".join(
            f"; {self._state.hosts[host].where} has been silent for {silent_s:.0f} s"
            for host, silent_s in self._silent_hosts(now).items()
        )
        return self._stopping.fail(f"{task.where}: {message.text}{also}", 1, now)

    def on_agent_ended(self, host: HostState, how: str, now: float) -> List[Action]:
        """The cluster reports that an agent has ended; its tasks end with it."""
        host.has_ended = True
        orphaned = [task for task in self._state.of_host(host.number) if not task.ended]
        for task in orphaned:
            task.ended = True
        if not self._state.is_active:
            return self._stopping.go_on(now)
        names = ", ".join(task.task.name for task in orphaned)
        text = f"{host.where} {how}" + (f", and with it {names}" if names else "")
        fail = self._stopping.fail(text, 1, now)
        return fail + self._stopping.release_workers(host.where)

    # -- time ---------------------------------------------------------------------------------

    def absence(self, now: float) -> float:
        """How long this process was suspended before this tick; 0 if it was not."""
        absence, self._last_tick = now - self._last_tick, now
        return absence if absence > self._state.job.silence_s / 2 else 0.0

    def keep_in_touch(self, now: float) -> List[Action]:
        """Send signs of life: agents and tasks end if they hear nothing from the scheduler."""
        state = self._state
        if now < self._next_alive:
            return []
        self._next_alive = now + state.job.silence_s / 5
        agents = [host.peer for host in state.hosts.values() if host.heard is not None]
        tasks = [task.task.slug for task in state.tasks.values() if task.is_active]
        return [Send(peer, messages.Alive()) for peer in agents + tasks]

    def look_for_silence(self, now: float) -> List[Action]:
        """Look for silent hosts, then for silent tasks."""
        lost = self.look_for_lost_hosts(now)
        if lost:
            return lost
        job = self._state.job
        actions: List[Action] = []
        for task in self._state.tasks.values():
            silent_s = now - task.last_heard
            if not task.is_active or task.is_gone or silent_s <= job.silence_s:
                continue
            text = f"{task.where} has been silent for {silent_s:.0f} s"
            if task.is_stopped:
                text += f": its process {task.pid} is stopped"
                return self._stopping.fail(text, 1, now)
            if silent_s > job.timeout_s:
                return self._stopping.fail(f"{text}: its process {task.pid} hangs", 1, now)
            if not task.was_warned:  # a long call may let no other Python thread run
                task.was_warned = True
                actions.append(Notice(now, f"{text}; its process {task.pid} still runs"))
        return actions

    def look_for_lost_hosts(self, now: float) -> List[Action]:
        """Give up all silent hosts once one of them has been silent for too long."""
        state = self._state
        silent = self._silent_hosts(now)
        seconds = max(silent.values(), default=0.0)
        if seconds <= state.job.silence_s:
            return []
        names = ", ".join(state.hosts[host].name for host in silent)
        plural = len(silent) > 1
        text = (
            f"the agent{'s' * plural} on {names} {'have' if plural else 'has'} been silent "
            f"for {seconds:.0f} s: host down, network cut, or agent stopped"
        )
        if plural and len(silent) == len(state.hosts):
            text += "; all agents are silent, so look at this machine's own network first"
        for host in silent:
            state.hosts[host].is_lost = True
            for task in state.of_host(host):
                task.ended = True
        stop = self._stopping.fail(text, 1, now) or self._stopping.go_on(now)
        return stop + self._stopping.release_workers(f"the agent on {names}")

    def _silent_hosts(self, now: float) -> Dict[int, float]:
        """The seconds of silence of each host that has missed two signs of life."""
        silent_s = {
            host.number: now - host.heard
            for host in self._state.hosts.values()
            if host.heard is not None and host.is_there
        }
        return {host: s for host, s in silent_s.items() if s > self._state.job.silence_s / 2}

    def look_for_late_arrivals(self, now: float) -> List[Action]:
        """Look for workers that others wait for, to join or to come to a meeting."""
        state = self._state
        workers = state.of_role("worker")
        waits = self._meetings.waits()
        if state.phase == STARTING and state.joining is not None:
            joined = [task.task.rank for task in workers if task.joined is not None]
            state.joining.arrived = dict.fromkeys(joined, b"")
            waits.append(state.joining)
        actions: List[Action] = []
        for wait in waits:
            seconds = now - wait.since
            late = [t for t in workers if t.task.rank not in wait.arrived and not t.ended]
            missing = ", ".join(task.where for task in late)
            waiting = ", ".join(f"worker {rank}" for rank in sorted(wait.arrived))
            text = f"{waiting} waited {seconds:.0f} s for {missing} to {wait.what}"
            if seconds >= state.job.timeout_s:
                hint = "; see its log, or raise --timeout if it only needs longer"
                return self._stopping.fail(text + hint, 1, now)
            if seconds >= STALL_WARNING_S and not wait.was_told:
                wait.was_told = True
                actions.append(Notice(now, text))
        return actions
