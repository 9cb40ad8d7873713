"""What the scheduler knows of each task, and how it puts a task's end into words. Pure."""

import math
import signal
from typing import Optional

from .control import Task
from .control.messages import Exited

__all__ = ["TaskState", "describe_exit", "exit_code_of", "has_hung", "last_line", "own_code_of"]

_MAX_LINE = 200  # characters of a task's last one


class TaskState:
    """``where`` is how people find it: ``worker 1 (node07)``; times are the loop's clock."""

    __slots__ = (
        "due", "ended", "endpoint", "exited", "is_gone", "is_stopped", "joined", "last_heard",
        "last_line", "own_code", "pid", "task", "was_warned", "where",
    )  # fmt: skip

    def __init__(self, task: Task, host: str) -> None:
        self.task = task
        self.where = f"{task.name} ({host})"
        self.joined: Optional[float] = None
        self.endpoint = ""  # where a server listens
        self.pid = 0
        self.last_heard = 0.0
        self.is_stopped = False  # says its agent
        self.is_gone = False  # it has said that it needs nothing more
        self.own_code = 0  # and that this will be its exit code
        self.exited: Optional[Exited] = None  # with 0, while its goodbye is to come
        self.due = math.inf  # until when a process must be gone after its goodbye, or that come
        self.was_warned = False  # the user, of its silence
        self.ended = False
        self.last_line = ""  # of what it wrote

    @property
    def owes_goodbye(self) -> bool:
        """Whether it is a worker that takes part and has not said that it needs nothing more."""
        return self.task.role == "worker" and self.joined is not None and not self.is_gone


def has_hung(state: TaskState, message: Exited) -> bool:
    """Whether the task ended because its process was not gone in time after its goodbye."""
    return (
        state.is_gone
        and message.was_late
        and message.code in (-signal.SIGKILL, 128 + signal.SIGKILL)
    )


def describe_exit(state: TaskState, message: Exited) -> str:
    """How a task ended, and the last line that it wrote; all of it has been shown."""
    if message.error:
        return f"{state.where} could not be started: {message.error}"
    if has_hung(state, message):
        how = f"ended with code {state.own_code}, but its process {state.pid} hung, was killed,"
    elif message.code == 0 and state.own_code:
        how = f"failed with code {state.own_code}, though its command exited with 0"
    elif message.code == 0 and state.owes_goodbye:
        how = (
            "exited with code 0, but without leaving its job, as after os._exit, so that what it "
            "has pushed may be lost (let the script return, or call sys.exit),"
        )
    elif message.code < 0:
        name = signal_name(-message.code)
        how = f"was killed by signal {-message.code} ({name})"
        if name == "SIGKILL" and message.oom_kills:
            how += ", because its host or its cgroup ran out of memory,"
        elif name == "SIGKILL":
            how += ", by somebody,"
    else:
        how = f"exited with code {message.code}"
    text = f"{state.where} {how} after {message.seconds:.1f} s"
    if not state.last_line:
        return f"{text}; it wrote nothing"
    return f"{text}; its last line was: {state.last_line}"


def last_line(data: bytes) -> str:
    """The last line with anything in it, as far as it is for people; empty if there is none."""
    lines = data.rstrip().splitlines()[-1:]
    text = "".join(line.decode(errors="replace").strip() for line in lines)
    return text if len(text) <= _MAX_LINE else f"{text[:_MAX_LINE]}..."


def signal_name(signum: int) -> str:
    """``SIGKILL`` and so on; real-time signals have no names of their own."""
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"real-time signal {signum}"


def own_code_of(state: TaskState, message: Exited) -> int:
    """A task's own exit code: what it has said at its end counts, and SIGKILL after that does not;
    but if it has said that it has done well, what its command did next does."""
    return state.own_code if has_hung(state, message) else message.code or state.own_code


def exit_code_of(code: int) -> int:
    """A job's exit code from a failed task's, as shells do it.

    A task that ends while it is needed has failed even if its code is 0.
    """
    if code < 0:
        return 128 - code
    return code or 1
