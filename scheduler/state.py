"""What the scheduler knows of its job: the phase, and a record for each host and each task. Pure.

The parts of the core (starting, running, watching, stopping, suspending) share one `JobState`. What
only one of them needs lies in that part. Times are the loop's clock.
"""

import math
from typing import Dict, List, Optional, Set

from .control import Job, Task
from .control.messages import AgentHello, Exited
from .meetings import Wait

__all__ = [
    "ACTIVE",
    "ALWAYS",
    "OVER",
    "RUNNING",
    "STARTING",
    "STOPPING",
    "HostState",
    "JobState",
    "TaskState",
]

STARTING, RUNNING, STOPPING, OVER = "starting", "running", "stopping", "over"
ACTIVE = (STARTING, RUNNING)
ALWAYS = (STARTING, RUNNING, STOPPING, OVER)


class TaskState:
    """``where`` names the task and its host: ``worker 1 (node07)``."""

    __slots__ = (
        "due", "ended", "endpoint", "exited", "is_gone", "is_stopped", "joined", "last_heard",
        "last_line", "own_code", "pid", "task", "was_warned", "where",
    )  # fmt: skip

    def __init__(self, task: Task, host: str) -> None:
        self.task = task
        self.where = f"{task.name} ({host})"
        self.joined: Optional[float] = None  # when
        self.endpoint = ""  # where a server listens
        self.pid = 0
        self.last_heard = 0.0
        self.is_stopped = False  # its agent has found a stopped process (SIGSTOP)
        self.is_gone = False  # it has sent Gone
        self.own_code = 0  # the exit code that its Gone announced
        self.exited: Optional[Exited] = None  # an exit with code 0 that waits for a Gone
        self.due = math.inf  # when the Gone, or after it the end of the process, is late
        self.was_warned = False  # the user was told of its silence
        self.ended = False
        self.last_line = ""  # of its output

    @property
    def owes_goodbye(self) -> bool:
        """Whether it is a worker that has joined and has not sent Gone."""
        return self.task.role == "worker" and self.joined is not None and not self.is_gone

    @property
    def is_active(self) -> bool:
        """Whether it has joined and has not ended."""
        return self.joined is not None and not self.ended


class HostState:
    """A host that has tasks, and its agent."""

    __slots__ = (
        "has_ended", "has_greeted", "heard", "hello", "is_lost", "is_started", "name", "number",
    )  # fmt: skip

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.name = name
        self.heard: Optional[float] = None  # when last
        self.has_greeted = False  # its agent has sent AgentHello
        self.hello: Optional[AgentHello] = None  # until the agent is told what to start
        self.is_started = False  # its agent was told what to start
        self.has_ended = False  # its agent has
        self.is_lost = False  # its agent was silent for too long

    @property
    def peer(self) -> str:
        return f"agent-{self.number}"

    @property
    def where(self) -> str:
        return f"the agent on {self.name}"

    @property
    def is_there(self) -> bool:
        """Whether its agent can still answer."""
        return self.heard is not None and not self.has_ended and not self.is_lost


class JobState:
    def __init__(self, job: Job, now: float) -> None:
        self.job = job
        self.phase = STARTING
        self.start = now
        self.is_queued = False
        self.start_clock = now  # stands still while the job waits for its hosts in a queue
        self.joining: Optional[Wait] = None  # workers for others to join, from the first one on
        self.suspending: Optional[Set[int]] = None  # hosts whose tasks still run, from Ctrl-Z on
        numbers = sorted({task.host for task in job.tasks})  # a host without tasks has no agent
        self.hosts = {number: HostState(number, job.hosts[number].name) for number in numbers}
        self.tasks: Dict[str, TaskState] = {
            task.slug: TaskState(task, self.hosts[task.host].name) for task in job.tasks
        }

    @property
    def is_active(self) -> bool:
        """Whether the job has not begun to stop."""
        return self.phase in ACTIVE

    def of_role(self, role: str) -> List[TaskState]:
        return [state for state in self.tasks.values() if state.task.role == role]

    def of_host(self, host: int) -> List[TaskState]:
        return [state for state in self.tasks.values() if state.task.host == host]

    def forgive(self, absence: float, now: float) -> None:
        """Shift all times by an ``absence`` in which this process heard nobody."""
        for state in self.tasks.values():
            state.last_heard = min(now, state.last_heard + absence)
            state.due += absence
        for host in self.hosts.values():
            if host.heard is not None:
                host.heard = min(now, host.heard + absence)
        if self.joining is not None:
            self.joining.forgive(absence, now)
        self.start_clock = min(now, self.start_clock + absence)
