"""A task's process, and the signals that its agent sends to it and to what it has started.

Once a process is reaped, the kernel may give its pid, and the number of the group that it led, to
another. So nothing here signals a task that has a `code`, and the agent calls `end` before it
reaps. Everything runs in the agent's main thread.
"""

import functools
import os
import signal
import subprocess
import time
from typing import Callable, List, Optional

import psutil

from baryon.ps import Reactor, Timer

from ..control.messages import TaskSpec
from .output import OutputPipe
from .processes import (
    count_oom_kills,
    is_any_stopped,
    listed_descendants,
    own_pid,
    signal_process,
    status_of,
)

__all__ = ["TaskProcess"]

_AWAKE_S = 5.0  # a task that was suspended gets at least this long before it is killed


class TaskProcess:
    """``code`` is None until the process is reaped: its exit code, or minus the fatal signal."""

    def __init__(
        self, spec: TaskSpec, process: "subprocess.Popen[bytes]", reactor: Reactor
    ) -> None:
        self.slug = spec.slug
        self.process = process
        self.start = time.monotonic()
        self.oom_kills = count_oom_kills()
        self.code: Optional[int] = None
        self.was_late = False  # one of its processes had to be killed (`kill_process_later`)
        self.seconds = 0.0
        self.pipes: List[OutputPipe] = []
        self._reactor = reactor
        self._kills: List[Timer] = []  # that are due later
        self._suspended_since: Optional[float] = None
        self._suspended_s = 0.0  # in total, before that

    def signal_all(self, signum: int) -> None:
        """Signal the task and all its descendants, including those that left its process group."""
        now = time.monotonic()
        self._suspended_s = self._suspended_until(now)
        self._suspended_since = now if signum == signal.SIGSTOP else None
        for process in self._tree():
            signal_process(process, signum)
        self.signal(signum)

    def signal(self, signum: int) -> None:
        """Signal the task's process group, as a terminal would."""
        if self.code is None:
            try:
                os.killpg(self.process.pid, signum)
            except (ProcessLookupError, PermissionError):
                pass  # it has gone, or now runs as another user

    def is_stopped(self) -> bool:
        """Whether any process of the task is stopped (SIGSTOP, Ctrl-Z)."""
        return self.code is None and is_any_stopped(self.process.pid)

    def kill(self) -> None:
        """Kill the task and all its descendants."""
        tree = self._tree()
        self.signal(signal.SIGKILL)
        for process in tree:
            signal_process(process, signal.SIGKILL)

    def kill_later(self, delay_s: float) -> None:
        self._call_later(delay_s, self.kill)

    def kill_process_later(self, pid: int, delay_s: float) -> None:
        """Kill the one process of the task that knows itself as ``pid``, if it runs that long."""
        found = [process for process in self._tree(with_itself=True) if own_pid(process) == pid]
        if len(found) == 1:  # processes in several PID namespaces may have the same
            self._call_later(delay_s, functools.partial(self._kill_if_late, found[0]))

    def _kill_if_late(self, process: psutil.Process) -> None:
        if status_of(process) not in (None, psutil.STATUS_ZOMBIE):
            self.was_late = True
            signal_process(process, signal.SIGKILL)

    def _call_later(self, delay_s: float, kill: Callable[[], None]) -> None:
        """Call ``kill`` after ``delay_s``, not counting time in which the task is suspended."""
        before_s = self._suspended_until(time.monotonic())

        def due() -> None:
            missed_s = self._suspended_until(time.monotonic()) - before_s
            if missed_s > 0.0:
                self._call_later(max(missed_s, _AWAKE_S), kill)
            else:
                kill()

        self._kills.append(self._reactor.call_later(delay_s, due))

    def _suspended_until(self, now: float) -> float:
        """The seconds in which the task was suspended, in total."""
        since = self._suspended_since
        return self._suspended_s + (0.0 if since is None else now - since)

    def new_oom_kills(self) -> int:
        """The processes that the host's kernel killed for lack of memory since the task began."""
        # The count is 0 where it cannot be read, so it may seem to fall.
        return max(0, count_oom_kills() - self.oom_kills)

    def end(self) -> None:
        """The process has ended, and is about to be reaped: kill the rest of its group."""
        for timer in self._kills:
            timer.cancel()
        self.signal(signal.SIGKILL)

    def reaped(self, status: int) -> None:
        """Note the exit code; ``status`` is waitpid(2)'s."""
        signalled = os.WIFSIGNALED(status)
        self.code = -os.WTERMSIG(status) if signalled else os.WEXITSTATUS(status)
        self.process.returncode = self.code  # without it Popen warns that the process still runs
        self.seconds = time.monotonic() - self.start

    def _tree(self, with_itself: bool = False) -> List[psutil.Process]:
        if self.code is not None:
            return []
        try:
            itself = [psutil.Process(self.process.pid)] if with_itself else []
        except psutil.NoSuchProcess:
            return []
        return itself + listed_descendants(self.process.pid)
