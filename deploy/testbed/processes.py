"""Processes that hold namespaces, and commands run from outside them.

Namespaces are anonymous: they and all that is in them (processes, links, mounts, packet filters)
end with the process that holds them, and the kernel cleans up. The holder of an owned test bed
reads the lifeline, a pipe whose other end the owner alone has open: however the owner ends, SIGKILL
included, the holder reads the end of the file and exits. Rejected: PR_SET_PDEATHSIG, which
fires at the end of the *thread* that started the process, and too late if the owner ended before.
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
LIMIT_S = 20.0  # for any step; each takes milliseconds, on a busy machine a second


class TestbedError(Exception):
    """The test bed cannot do what was asked; the message says why and what to do."""

    __test__ = False  # no test class, whatever pytest takes it for


def call(argv: Sequence[Union[str, Path]], stdin: str = "") -> str:
    """Run a command and return its output; raises TestbedError with what it said."""
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
    """Wait for ``condition()`` to be true; raises TestbedError naming ``what``."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise TestbedError(f"waited {limit_s:.0f} s for {what}")
        time.sleep(0.002)


class Holder:
    """A process that holds namespaces, known by its pid and, as pids return, its start time."""

    def __init__(
        self, pid: int, started: Optional[int], child: "Optional[subprocess.Popen[bytes]]" = None
    ) -> None:
        self.pid = pid
        self._started = started
        self._child = child

    @classmethod
    def start(cls, argv: List[str], lifeline: Optional[int], log: Path) -> "Holder":
        """Start ``unshare``; with ``--fork`` among its arguments its child is the holder.

        ``lifeline`` is None for a holder that outlives us.
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
            child.returncode = 0  # nobody waits for it, and Popen is not to warn about that
            return cls(pid, _start_time(pid))
        return cls(pid, _start_time(pid), child)

    @property
    def state(self) -> List[Optional[int]]:
        """What ``Holder(*state)`` makes another object for the same process of."""
        return [self.pid, self._started]

    def is_alive(self) -> bool:
        return self._started is not None and _start_time(self.pid) == self._started

    def kill(self) -> None:
        """End it and, if it is the init of a pid namespace, all processes there; waits for that."""
        if self.is_alive():
            try:
                os.kill(self.pid, 9)
            except ProcessLookupError:
                pass  # it ended just now
        if self._child is not None:
            self._child.wait(LIMIT_S)
        wait_until(lambda: not self.is_alive(), f"the end of process {self.pid}")


def _start_time(pid: int) -> Optional[int]:
    """In clock ticks since the machine's start; None if there is no such process (any more)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])
