"""A task's process, as its agent has it.

A pid is the task's, and a process group's number is the group's, only until the process is reaped;
then both may be another's. So nothing here signals a task that has a `code`, and the agent tells it
to `end` before it reaps.
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
from .processes import (
    count_oom_kills,
    is_any_stopped,
    listed_descendants,
    own_pid,
    signal_process,
    status_of,
)

__all__ = ["TaskProcess"]

_AWAKE_S = 5.0  # for a task that was suspended to do what it is late with


class TaskProcess:
    """``code`` is its exit code, or minus the signal that ended it, once it is reaped."""

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
        self.open_pipes = 2
        self.finishers: List[Callable[[], None]] = []  # pass on the rest of each pipe
        self._reactor = reactor
        self._kills: List[Timer] = []  # to come
        self._suspended_since: Optional[float] = None
        self._suspended_s = 0.0  # in all, before that

    def signal_all(self, signum: int) -> None:
        """Signal the task and all below it, also what has left its process group."""
        now = time.monotonic()
        self._suspended_s = self._suspended_until(now)
        self._suspended_since = now if signum == signal.SIGSTOP else None
        for process in self._tree():
            signal_process(process, signum)
        self.signal(signum)

    def signal(self, signum: int) -> None:
        """Signal the task and what it has started, as a terminal would."""
        if self.code is None:
            try:
                os.killpg(self.process.pid, signum)
            except (ProcessLookupError, PermissionError):
                pass  # it has gone, or has become another user's

    def is_stopped(self) -> bool:
        """Whether a process of the task is stopped (SIGSTOP, Ctrl-Z)."""
        return self.code is None and is_any_stopped(self.process.pid)

    def kill(self) -> None:
        """End the task, and its descendants that left its process group."""
        tree = self._tree()
        self.signal(signal.SIGKILL)
        for process in tree:
            signal_process(process, signal.SIGKILL)

    def kill_later(self, delay_s: float) -> None:
        self._call_later(delay_s, self.kill)

    def kill_process_later(self, pid: int, delay_s: float) -> None:
        """End the one process of the task that calls itself ``pid``, if it then still runs."""
        found = [process for process in self._tree(with_itself=True) if own_pid(process) == pid]
        if len(found) == 1:  # several PID namespaces may each have one
            self._call_later(delay_s, functools.partial(self._kill_if_late, found[0]))

    def _kill_if_late(self, process: psutil.Process) -> None:
        if status_of(process) not in (None, psutil.STATUS_ZOMBIE):
            self.was_late = True
            signal_process(process, signal.SIGKILL)

    def _call_later(self, delay_s: float, kill: Callable[[], None]) -> None:
        """``delay_s`` of its own time from now: none of that in which it is suspended."""
        before_s = self._suspended_until(time.monotonic())

        def due() -> None:
            missed_s = self._suspended_until(time.monotonic()) - before_s
            if missed_s > 0.0:
                self._call_later(max(missed_s, _AWAKE_S), kill)
            else:
                kill()

        self._kills.append(self._reactor.call_later(delay_s, due))

    def _suspended_until(self, now: float) -> float:
        """For how many seconds in all it has been suspended."""
        since = self._suspended_since
        return self._suspended_s + (0.0 if since is None else now - since)

    def new_oom_kills(self) -> int:
        """How many processes the host's kernel has ended for want of memory since it began."""
        # The counter may go back: where it cannot be read, it is 0.
        return max(0, count_oom_kills() - self.oom_kills)

    def end(self) -> None:
        """It has ended and will be reaped: end what it has left in its process group."""
        for timer in self._kills:
            timer.cancel()
        self.signal(signal.SIGKILL)

    def reaped(self, status: int) -> None:
        """``status`` is as waitpid(2) says it."""
        signalled = os.WIFSIGNALED(status)
        self.code = -os.WTERMSIG(status) if signalled else os.WEXITSTATUS(status)
        self.process.returncode = self.code  # or Popen would warn that it still runs
        self.seconds = time.monotonic() - self.start

    def _tree(self, with_itself: bool = False) -> List[psutil.Process]:
        if self.code is not None:
            return []
        try:
            itself = [psutil.Process(self.process.pid)] if with_itself else []
        except psutil.NoSuchProcess:
            return []
        return itself + listed_descendants(self.process.pid)
