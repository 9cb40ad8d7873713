"""A cluster manager as the launcher sees it, and the way to run its commands."""

import subprocess
from typing import List, Protocol, Sequence, Tuple

from baryon.ps import PeerError

from .watch import Status

__all__ = ["COMMAND_LIMIT_S", "SUBMIT_LIMIT_S", "Manager", "call"]

COMMAND_LIMIT_S = 30.0  # for one command of a manager
SUBMIT_LIMIT_S = 300.0  # submission commands retry by themselves while the manager is busy


class Manager(Protocol):
    """One job of a cluster manager.

    One thread calls all methods, and each may block for a while. Meanwhile another thread may call
    `cancel`, but there are never two calls of `cancel` at a time.

    ``name`` is the manager's usual name. ``outputs`` are paths: the manager writes the output of
    the job and of its agents there.
    """

    name: str
    outputs: Sequence[str]

    def submit(self) -> str:
        """Request the agents' start. Returns the job's name, as ``Slurm job 12``.

        Raises PeerError with the manager's own words if it refuses.
        """

    def status(self) -> Status:
        """The state of the job. Raises PeerError if the manager does not answer."""

    def cancel(self) -> None:
        """End the job at once. Raises PeerError if the manager does not accept that."""

    def ended_agents(self, line: str) -> List[Tuple[int, str]]:
        """(host number, how it ended) of each agent whose end this line of output reports."""


def call(argv: Sequence[str], limit_s: float = COMMAND_LIMIT_S) -> str:
    """Run a manager's command and return its standard output.

    Raises PeerError, with the command's own error text, if it fails or takes too long.
    """
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limit_s,
            start_new_session=True,  # Ctrl-C is for launch.py
        )
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"{argv[0]} did not end in {limit_s:.0f} s") from error
    except OSError as error:
        raise PeerError(f"{argv[0]}: {error.strerror}") from error
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip()  # Grid Engine's is on the latter
        words = "; ".join(said.decode(errors="replace").splitlines())
        raise PeerError(words or f"{argv[0]} exited with code {done.returncode}")
    return done.stdout.decode(errors="replace")
