"""How a job stops: workers first, since they may need the servers, then servers, then agents. Pure.

Only the first failure counts: later ones are its consequences. `Stopping.fail` is the one way from
a failure to the job's exit code.
"""

import signal
from typing import List, Optional

from . import news
from .actions import Action, Finish, Kill, ReleaseAgent, Send
from .control import messages
from .observers import Notice
from .state import OVER, STOPPING, HostState, JobState

__all__ = ["Stopping"]

_REST_S = 5.0  # for messages and agents, beyond the time that tasks have


class Stopping:
    def __init__(self, state: JobState) -> None:
        self._state = state
        self._exit_code = 0
        self._has_failed = False
        self._role = ""  # that was told to end last: worker, server, or at last agent
        self._signal = int(signal.SIGTERM)  # for workers
        self._grace_s = state.job.grace_s  # for workers
        self._deadline = 0.0

    @property
    def role(self) -> str:
        """The role that was told to end last; empty while the job goes on."""
        return self._role

    # -- why it stops -------------------------------------------------------------------------

    def fail(
        self, text: str, exit_code: int, now: float, grace_s: Optional[float] = None
    ) -> List[Action]:
        """Stop the job because of a failure, unless it stops already.

        ``grace_s`` is how long workers may take to end, if not as long as the job says.
        """
        state = self._state
        if not state.is_active:
            return []
        self._exit_code = exit_code
        self._has_failed = True
        others = sum(
            state.hosts[t.task.host].is_started and not t.ended for t in state.tasks.values()
        )
        what = f"; stopping {others} other task{'s' * (others > 1)}" if others else ""
        end = f"exit code {exit_code}{what}; logs are in {state.job.log_dir}"
        return [Notice(now, text), Notice(now, end), *self.stop(signal.SIGTERM, now, grace_s)]

    def on_signal(self, signum: int, now: float) -> List[Action]:
        """The user wants the job to stop, or no longer wants to wait until it has."""
        name = signal.Signals(signum).name
        if self._state.is_active:
            text = f"{name}: stopping all tasks ({name} again to kill them at once)"
            self._exit_code = 128 + signum
            # Python scripts get Ctrl-C as KeyboardInterrupt; any other signal just ends them.
            to_workers = signum if signum == signal.SIGINT else signal.SIGTERM
            return [Notice(now, text), *self.stop(to_workers, now)]
        if self._state.phase == STOPPING and signum != signal.SIGPIPE:
            return [Notice(now, f"{name} while stopping: killing all tasks"), self._kill()]
        return []

    def stop(self, signum: int, now: float, grace_s: Optional[float] = None) -> List[Action]:
        """Begin to stop, by a signal to the workers."""
        state = self._state
        state.phase = STOPPING
        for host in state.hosts.values():
            if host.hello is not None:  # nothing was started there
                for task in state.of_host(host.number):
                    task.ended = True
        for task in state.tasks.values():
            task.ended |= task.exited is not None
        self._signal = signum
        self._grace_s = state.job.grace_s if grace_s is None else grace_s
        self._deadline = now + self._grace_s + state.job.grace_s + _REST_S
        return self.go_on(now)

    # -- how it stops -------------------------------------------------------------------------

    def go_on(self, now: float) -> List[Action]:
        """Take the next step, if the one before is done."""
        state = self._state
        if state.phase != STOPPING:
            return []
        for role, signum in (("worker", self._signal), ("server", int(signal.SIGTERM))):
            if all(task.ended for task in state.of_role(role)):
                continue
            return [] if self._role == role else self._stop_role(role, signum)
        if all(host.has_ended or host.is_lost for host in state.hosts.values()):
            return self._finish(now)
        if self._role == "agent":
            return []
        self._role = "agent"
        self._deadline = now + state.job.grace_s
        return [ReleaseAgent(host) for host in state.hosts]

    def _stop_role(self, role: str, signum: int) -> List[Action]:
        self._role = role
        grace_s = self._grace_s if role == "worker" else self._state.job.grace_s
        stop = messages.StopTasks(role, signum, grace_s)
        # An agent that has said nothing has started nothing.
        return [
            ReleaseAgent(host.number) if host.heard is None else Send(host.peer, stop)
            for host in self._state.hosts.values()
        ]

    def release_workers(self, ended: str) -> List[Action]:
        """Tell workers of a job that stops to wait for nothing more, since ``ended`` has ended.

        A worker that waits inside MXNet would not even notice a signal.
        """
        abort = messages.Abort(f"the job is stopping, and {ended} has ended")
        return [Send(t.task.slug, abort) for t in self._state.of_role("worker") if t.is_active]

    def on_hello(self, host: HostState, message: messages.AgentHello, now: float) -> List[Action]:
        """An agent comes up in a job that stops."""
        return [ReleaseAgent(host.number)]

    def look(self, now: float) -> List[Action]:
        """Finish if the time to stop is over."""
        state = self._state
        if now < self._deadline:
            return []
        late = [
            t for t in state.tasks.values() if state.hosts[t.task.host].is_started and not t.ended
        ]
        names = ", ".join(task.task.name for task in late)
        told: List[Action] = [Notice(now, f"{names} did not end in time")] if late else []
        return told + self._finish(now)

    def forgive(self, absence: float) -> None:
        """Do not count an ``absence`` of this process."""
        self._deadline += absence

    def _finish(self, now: float) -> List[Action]:
        state = self._state
        state.phase = OVER
        told: List[Action] = []
        if not self._has_failed and not state.job.is_quiet:
            text = news.ended(state.job, self._exit_code, now - state.start)
            told = [Notice(now, text)]
        is_left = not all(host.has_ended for host in state.hosts.values())
        kill: List[Action] = [self._kill()] if is_left else []
        return [*kill, *told, Finish(self._exit_code)]

    def _kill(self) -> Kill:
        hosts = self._state.hosts.values()
        return Kill(frozenset(host.number for host in hosts if host.is_lost))
