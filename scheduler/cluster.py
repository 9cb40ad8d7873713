"""What the scheduler asks of a cluster: run the agent once per host and say whether it runs."""

from typing import AbstractSet, List, Protocol, Tuple

from .credentials import AgentConfig
from .job import Job

__all__ = ["Cluster"]


class Cluster(Protocol):
    """Implemented in launcher/clusters/, one class each."""

    def scheduler_address(self, job: Job, host: int) -> str:
        """The address of this machine at which host number ``host`` reaches the scheduler."""

    def start(self, job: Job, host: int, config: AgentConfig) -> None:
        """Start the agent of host number ``host`` without waiting for it.

        Its standard input gets ``config.line()`` and stays open: its end tells the agent that the
        scheduler has gone.
        """

    def ended(self) -> List[Tuple[int, str]]:
        """(host number, how it ended) of each agent that has ended since the last call."""

    def release(self, host: int) -> None:
        """Close an agent's standard input: it ends whatever still runs there, and itself."""

    def kill(self, lost: AbstractSet[int] = frozenset()) -> None:
        """End all agents at once; those of hosts ``lost`` cannot be reached, so do not wait."""
