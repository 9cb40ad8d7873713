"""What the scheduler asks of a cluster: run the agent once per host and say whether it runs."""

from typing import List, Protocol, Tuple

from .job import Job

__all__ = ["Cluster"]


class Cluster(Protocol):
    """Implemented in launcher/clusters/, one class each."""

    def scheduler_address(self, job: Job) -> str:
        """The address of this machine that the job's hosts can reach."""

    def start(self, job: Job, host: int, secrets: bytes) -> None:
        """Start the agent of host number ``host`` without waiting for it.

        ``secrets`` is one line for the agent's standard input, which stays open: its end tells
        the agent that the scheduler has gone.
        """

    def ended(self) -> List[Tuple[int, str]]:
        """(host number, how it ended) of each agent that has ended since the last call."""

    def release(self, host: int) -> None:
        """Close an agent's standard input: it ends whatever still runs there, and itself."""

    def kill(self) -> None:
        """End all agents at once."""
