"""Processes that cannot outlive the benchmark that started them.

Guarantees: every process started here leads a process group of its own; leaving the `with` block
ends all of those groups, however it is left; and should the parent be killed outright, the kernel
kills the leaders (PR_SET_PDEATHSIG). Output goes to unnamed temporary files, so no process
blocks on a full pipe and nothing is left on the disk.

A leader is reaped only after its group was killed: until then its number belongs to nobody else.

Rejected: `preexec_fn` to set PDEATHSIG. It forks the parent, which may be a test process with
MXNet's engine threads in it. A short-lived interpreter that sets it and then becomes the command
costs some 15 ms and no fork of threads.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import IO, Callable, List, Mapping, Optional, Sequence

POLL_S = 0.05
TERM_LIMIT_S = 10.0
KILL_LIMIT_S = 10.0

_BECOME = """\
import ctypes, os, sys
PR_SET_PDEATHSIG, SIGKILL = 1, 9
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent ended before its child was ready")
os.execvp(sys.argv[2], sys.argv[2:])
"""


class Child:
    """One started process: its output so far, and its exit code once it has ended."""

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str], stdout: IO[bytes], stderr: IO[bytes]
    ) -> None:
        self._stdout, self._stderr = stdout, stderr
        become = [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid())]
        self._popen = subprocess.Popen(
            [*become, *argv],
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        self.pid = self._popen.pid

    @property
    def stdout(self) -> str:
        return _text(self._stdout)

    @property
    def stderr(self) -> str:
        return _text(self._stderr)

    def exit_code(self) -> Optional[int]:
        """The exit code, or minus the signal's number; None while it runs. Does not reap."""
        if self._popen.returncode is not None:
            return self._popen.returncode
        state = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if state is None:
            return None
        return state.si_status if state.si_code == os.CLD_EXITED else -state.si_status

    def signal_group(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass  # nobody left in it

    def reap(self) -> None:
        self._popen.wait(KILL_LIMIT_S)


class Processes:
    """A `with` block that ends what was started in it."""

    def __init__(self) -> None:
        self._children: List[Child] = []
        self._outputs = contextlib.ExitStack()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._outputs:
            self.end()

    def start(self, argv: Sequence[str], env: Mapping[str, str]) -> Child:
        stdout = self._outputs.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        stderr = self._outputs.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        child = Child(argv, env, stdout, stderr)
        self._children.append(child)
        return child

    def wait(
        self,
        awaited: Sequence[Child],
        timeout_s: float,
        grace_s: float,
        is_done: Callable[[Child], bool],
    ) -> None:
        """Return when all of `awaited` have exited, or after `timeout_s`.

        Only `grace_s` more is waited once each of them has exited or `is_done`, or once any
        process of the block has failed.
        """
        deadline = time.monotonic() + timeout_s
        is_ending = False
        while time.monotonic() < deadline:
            running = [child for child in awaited if child.exit_code() is None]
            if not running:
                return
            has_failure = any(child.exit_code() for child in self._children)
            if not is_ending and (has_failure or all(is_done(child) for child in running)):
                is_ending = True
                deadline = min(deadline, time.monotonic() + grace_s)
            time.sleep(POLL_S)

    def end(self) -> None:
        """End every group: SIGTERM, then SIGKILL for what is left of it."""
        for number, limit_s in ((signal.SIGTERM, TERM_LIMIT_S), (signal.SIGKILL, KILL_LIMIT_S)):
            for child in self._children:
                child.signal_group(number)
            deadline = time.monotonic() + limit_s
            while time.monotonic() < deadline:
                if all(child.exit_code() is not None for child in self._children):
                    break
                time.sleep(POLL_S)
        for child in self._children:
            child.reap()


def exit_on_sigterm() -> None:
    """Make SIGTERM leave through the `with` blocks, as Ctrl-C does. For a command's `main`."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def _text(file: IO[bytes]) -> str:
    # The child writes through the same file offset, so read at a position instead of seeking.
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), size, 0).decode("utf-8", "replace")
