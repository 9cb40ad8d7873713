"""The scheduler's decisions: events and the time in, actions out; no sockets, clock or processes.

Life of a job::

    STARTING   agents say hello, start their tasks; tasks join              starting.py
       │  all servers and workers have joined: everyone gets the roster
    RUNNING    meetings, signs of life, workers end well one by one         running.py, watching.py
       │  all workers have ended well, or something failed, or the user wants to stop
    STOPPING   workers are told to end, then servers, then agents           stopping.py
       │  every agent has ended (or the time for it is over)
    OVER       `Finish` was returned

The core only looks up which part of it acts on an event. All parts share one `JobState` (state.py).
"""

import signal
from typing import Any, Callable, Dict, List, Tuple

from baryon.ps import Message

from . import news
from .actions import Action
from .checks import impossible
from .cluster import Trouble
from .control import Job, messages
from .meetings import Meetings
from .observers import Notice
from .running import Running
from .starting import Starting
from .state import ACTIVE, ALWAYS, OVER, STARTING, STOPPING, HostState, JobState, TaskState
from .stopping import Stopping
from .suspending import Suspending
from .watching import Watching

__all__ = ["SchedulerCore"]

_Handler = Callable[[Any, Any, float], List[Action]]
"""Called with the host (for a message from its agent) or the task, the message, and the time."""


class SchedulerCore:
    """``specs(host, hello)``: the processes that an agent which says ``hello`` has to start."""

    def __init__(
        self,
        job: Job,
        specs: Callable[[int, messages.AgentHello], messages.StartTasks],
        public_keys: Dict[str, str],
        now: float,
    ) -> None:
        self.job = job
        self.state = JobState(job, now)
        self._meetings = Meetings()
        self._stopping = Stopping(self.state)
        self._starting = Starting(self.state, self._stopping, specs, public_keys)
        self._running = Running(self.state, self._starting, self._stopping, self._meetings)
        self._watching = Watching(self.state, self._stopping, self._meetings, now)
        self._suspending = Suspending(self.state, self._starting)
        self._handlers = self._table()

    def _table(self) -> Dict[Tuple[str, type, str], _Handler]:
        """Who may send what in which phase, and the part that acts on it. All else is illegal."""
        starting, running, watching = self._starting, self._running, self._watching
        rows: List[Tuple[str, type, Tuple[str, ...], _Handler]] = [
            ("agent", messages.AgentHello, ACTIVE, starting.on_hello),
            ("agent", messages.AgentHello, (STOPPING, OVER), self._stopping.on_hello),
            ("agent", messages.Alive, ALWAYS, watching.on_agent_alive),
            ("agent", messages.Output, ALWAYS, self._of_task(running.on_output)),
            ("agent", messages.Exited, ALWAYS, self._of_task(running.on_exited)),
            ("agent", messages.Suspended, ALWAYS, self._suspending.on_suspended),
            ("server", messages.Join, ALWAYS, starting.on_join),
            ("server", messages.Alive, ALWAYS, _nothing_more),
            ("server", messages.Gone, ALWAYS, _nothing_more),
            ("server", messages.Failed, ALWAYS, watching.on_failed),
            ("worker", messages.Join, ALWAYS, starting.on_join),
            ("worker", messages.Alive, ALWAYS, running.on_alive),
            ("worker", messages.Failed, ALWAYS, watching.on_failed),
            ("worker", messages.Gather, ALWAYS, running.on_gather),
            ("worker", messages.Gone, ALWAYS, running.on_gone),
        ]
        return {
            (sender, kind, phase): handler
            for sender, kind, phases, handler in rows
            for phase in phases
        }

    @property
    def phase(self) -> str:
        return self.state.phase

    # -- messages -----------------------------------------------------------------------------

    def on_message(self, peer: str, message: Message, now: float) -> List[Action]:
        """A message from ``peer`` (``agent-0``, ``worker-1``, ...), authenticated as such."""
        if peer.startswith("agent-"):
            host = self.state.hosts[int(peer.split("-")[1])]
            host.heard = now
            return self._look_up("agent", host, message, now)
        task = self.state.tasks[peer]
        task.last_heard = now
        task.was_warned = False
        return self._look_up(task.task.role, task, message, now)

    def _look_up(self, sender: str, one: Any, message: Message, now: float) -> List[Action]:
        kind = type(message)
        wrong = impossible(message)
        if wrong:
            text = f"{one.where} has sent {kind.__name__} with an impossible {wrong}"
            return self._stopping.fail(text, 1, now)
        handler = self._handlers.get((sender, kind, self.phase))
        if handler is None:
            text = (
                f"{one.where} has sent {kind.__name__}, which no {sender} may send while the job "
                f"is {self.phase}"
            )
            return [Notice(now, text)]
        return handler(one, message, now)

    def _of_task(self, handler: _Handler) -> _Handler:
        """For what an agent tells of one of its tasks."""

        def on_message(host: HostState, message: Any, now: float) -> List[Action]:
            task = self.state.tasks.get(message.task)
            if task is None or task.task.host != host.number or not host.has_greeted:
                kind = type(message).__name__
                text = f"{host.where} has sent {kind} of {message.task}, which is not its task"
                return [Notice(now, text)]
            return handler(task, message, now)

        return on_message

    # -- other events -------------------------------------------------------------------------

    def on_start(self, now: float) -> List[Action]:
        """The agents are about to be started."""
        return [] if self.job.is_quiet else [Notice(now, news.begun(self.job))]

    def on_agent_ended(self, host: int, how: str, now: float) -> List[Action]:
        """The cluster reports that the agent of ``host`` has ended."""
        return self._watching.on_agent_ended(self.state.hosts[host], how, now)

    def on_queue(self, is_queued: bool, now: float) -> List[Action]:
        """The cluster reports whether the job still waits for hosts."""
        return self._starting.on_queue(is_queued, now)

    def on_trouble(self, trouble: Trouble, now: float) -> List[Action]:
        """The cluster as a whole has failed; the user is told also if the job stops already."""
        if self.phase == OVER:
            return []
        fail = self._stopping.fail(trouble.text, trouble.exit_code, now, trouble.grace_s)
        return fail or [Notice(now, trouble.text)]

    def on_signal(self, signum: int, now: float) -> List[Action]:
        """The user wants to stop (SIGINT, SIGTERM, SIGHUP), or to see where things are (USR1)."""
        if signum == signal.SIGUSR1:
            return [Notice(now, self.status(now))]
        return self._stopping.on_signal(signum, now)

    def on_suspend(self, now: float) -> List[Action]:
        """The shell wants to stop this process (Ctrl-Z)."""
        return self._suspending.on_suspend(now)

    def on_resume(self) -> List[Action]:
        """The shell lets this process go on (fg, bg), or has changed its mind."""
        return self._suspending.on_resume()

    def on_tick(self, now: float) -> List[Action]:
        """Time passes: look for what is late or silent."""
        actions = self._forgive_own_absence(now)
        if self.phase == OVER:
            return []
        actions += self._suspending.look(now)
        actions += self._watching.keep_in_touch(now)
        looks: Tuple[Tuple[Tuple[str, ...], Callable[[float], List[Action]]], ...] = (
            ((STOPPING,), self._watching.look_for_lost_hosts),
            ((STOPPING,), self._stopping.look),
            (ACTIVE, self._watching.look_for_silence),
            ((STARTING,), self._starting.look_for_wait),
            ((STARTING,), self._starting.look_for_late),
            (ACTIVE, self._watching.look_for_late_arrivals),
            (ACTIVE, self._running.look_for_goodbyes),
        )
        for phases, look in looks:
            if self.phase in phases:  # each look may change it
                actions += look(now)
        return actions

    def _forgive_own_absence(self, now: float) -> List[Action]:
        """If this process was suspended, nobody was silent or late in that time.

        Agents that were awake had heard nothing, though, and may have given up.
        """
        absence = self._watching.absence(now)
        if not absence:
            return []
        self.state.forgive(absence, now)
        for wait in self._meetings.waits():
            wait.forgive(absence, now)
        self._stopping.forgive(absence)
        self._suspending.forgive(absence)
        if absence <= self.job.silence_s or not self.state.is_active:
            return []
        text = (
            f"this machine slept, or launch.py was stopped, for {absence:.0f} s; agents that "
            f"were awake give up after {self.job.silence_s:.0f} s (--heartbeat-timeout)"
        )
        return [Notice(now, text)]

    # -- what it knows ------------------------------------------------------------------------

    def status(self, now: float) -> str:
        """One line for the job, one for each task, and one for each open meeting."""
        seconds = now - self.state.start
        lines = [f"job {self.job.id} is {self.phase}, {seconds:.0f} s after its start"]
        lines += [f"  {_status_of(task, now)}" for task in self.state.tasks.values()]
        lines += [f"  {line}" for line in self._meetings.status(self.job.num_workers)]
        return "\n".join(lines)

    def __repr__(self) -> str:
        tasks = self.state.tasks.values()
        joined, ended = sum(t.joined is not None for t in tasks), sum(t.ended for t in tasks)
        return f"SchedulerCore({self.phase}, {joined} joined, {ended} ended, of {len(tasks)})"


def _nothing_more(task: TaskState, message: Message, now: float) -> List[Action]:
    """For a message that only shows that its sender is alive."""
    return []


def _status_of(task: TaskState, now: float) -> str:
    if task.ended:
        return f"{task.where} has ended"
    if task.joined is None:
        return f"{task.where} has not joined"
    silent_s = now - task.last_heard
    return f"{task.where} joined as process {task.pid}, last heard {silent_s:.1f} s ago"
