"""Processes that hold namespaces, and commands run from outside them.

Namespaces are anonymous. They end with the process that holds them, and the kernel removes their
processes, links, mounts and packet filters. In a test bed with an owner, the holder reads the
lifeline, a pipe whose other end only the owner has open. However the owner ends, even by SIGKILL,
the holder reads the end of the file and exits. PR_SET_PDEATHSIG was rejected: it fires when the
*thread* that started the process ends, and never if the owner ended before the call.
"""

import os
import subprocess
import time
from pathlib import Path
from typing import Callable, List, Optional, Sequence, Union

__all__ = ["COMMAND_ENV", "Holder", "TestbedError", "call", "wait_until"]

COMMAND_ENV = {
    **os.environ,
    "PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin",
    "LC_ALL": "C",
}
LIMIT_S = 20.0  # for any step; each takes milliseconds, or a second on a busy machine


class TestbedError(Exception):
    """A request that the test bed cannot fulfil. The message says why, and what to do."""

    __test__ = False  # not a test class, although pytest would take it for one


def call(argv: Sequence[Union[str, Path]], stdin: str = "") -> str:
    """Run a command and return its output. Raises TestbedError with its error message."""
    ended = subprocess.run(
        [str(word) for word in argv],
        input=stdin,
        capture_output=True,
        env=COMMAND_ENV,
        text=True,
    )
    if ended.returncode:
        command = " ".join(map(str, argv))
        raise TestbedError(f"{command}: {ended.stderr.strip() or f'exit code {ended.returncode}'}")
    return ended.stdout


def wait_until(condition: Callable[[], object], what: str, limit_s: float = LIMIT_S) -> None:
    """Wait until ``condition()`` is true. Raises TestbedError that names ``what``."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise TestbedError(f"waited {limit_s:.0f} s for {what}")
        time.sleep(0.002)


class Holder:
    """A process that holds namespaces, known by its pid and, since pids recur, its start time."""

    def __init__(
        self, pid: int, started: Optional[int], child: "Optional[subprocess.Popen[bytes]]" = None
    ) -> None:
        self.pid = pid
        self._started = started
        self._child = child

    @classmethod
    def start(cls, argv: List[str], lifeline: Optional[int], log: Path) -> "Holder":
        """Start ``unshare``. With ``--fork`` among its arguments, its child is the holder.

        ``lifeline`` is None for a holder that outlives this process.
        """
        with log.open("ab") as output:
            child = subprocess.Popen(
                ["unshare", *argv],
                stdin=subprocess.DEVNULL if lifeline is None else lifeline,
                stdout=output,
                stderr=output,
                cwd="/",
                env=COMMAND_ENV,
                start_new_session=True,  # a terminal's Ctrl-C is for us only
            )

        def holder() -> Optional[int]:
            if child.poll() is not None:
                raise TestbedError(f"unshare {argv[0]}...: {log.read_text().strip()}")
            if "--fork" in argv:
                pids = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
                return int(pids[0]) if pids else None
            own = os.readlink("/proc/self/ns/net")
            return child.pid if os.readlink(f"/proc/{child.pid}/ns/net") != own else None

        wait_until(holder, "unshare")
        pid = holder()
        assert pid is not None
        if lifeline is None:
            child.returncode = 0  # nothing waits for it, and Popen should not warn about that
            return cls(pid, _start_time(pid))
        return cls(pid, _start_time(pid), child)

    @property
    def state(self) -> List[Optional[int]]:
        """The arguments for another Holder of the same process."""
        return [self.pid, self._started]

    def is_alive(self) -> bool:
        return self._started is not None and _start_time(self.pid) == self._started

    def kill(self) -> None:
        """Kill it, with all processes of its pid namespace if it is an init, and wait for that."""
        if self.is_alive():
            try:
                os.kill(self.pid, 9)
            except ProcessLookupError:
                pass  # it ended just now
        if self._child is not None:
            self._child.wait(LIMIT_S)
        wait_until(lambda: not self.is_alive(), f"the end of process {self.pid}")


def _start_time(pid: int) -> Optional[int]:
    """A process's start in clock ticks since boot; None if it does not exist."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])
