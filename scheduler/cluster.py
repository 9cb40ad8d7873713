"""The interface of clusters: run one agent on each host, and report whether it still runs."""

import abc
from typing import AbstractSet, List, NamedTuple, Optional, Tuple

from .control import AgentConfig, Job

__all__ = ["Cluster", "Trouble"]


class Trouble(NamedTuple):
    """A failure of a cluster as a whole, which ends the job with ``exit_code``.

    ``grace_s`` is how long workers may take to save their work, if not as long as the job says.
    """

    text: str
    exit_code: int = 1
    grace_s: Optional[float] = None


class Cluster(abc.ABC):
    """Implemented in launcher/clusters/, one class each."""

    @abc.abstractmethod
    def scheduler_address(self, job: Job, host: int) -> str:
        """The address of this machine at which host number ``host`` reaches the scheduler."""

    @abc.abstractmethod
    def start(self, job: Job, host: int, config: AgentConfig) -> None:
        """Start the agent of host number ``host`` without waiting for it.

        The agent gets ``config.line()`` on its standard input. The input stays open: its end tells
        the agent that the scheduler has gone. Or the line is in a file (``agent_argv``); then only
        the scheduler's silence tells the agent.
        """

    @abc.abstractmethod
    def ended(self) -> List[Tuple[int, str]]:
        """(host number, how it ended) of each agent that has ended since the last call."""

    @abc.abstractmethod
    def release(self, host: int) -> None:
        """Let go of an agent: close its standard input, if it has one.

        The agent then ends everything on its host, and itself. A message tells it the same, but
        does not reach an agent that has not said hello.
        """

    @abc.abstractmethod
    def kill(self, lost: AbstractSet[int] = frozenset()) -> None:
        """End all agents at once. Do not wait for hosts ``lost``, which cannot be reached."""

    # -- for clusters that get their hosts from a manager ----------------------

    def name(self) -> Optional[str]:
        """The manager's name for the job (``Slurm job 12``); None until it has accepted it."""
        return ""

    def is_queued(self) -> bool:
        """Whether the job still waits for its hosts; that time does not count as starting."""
        return False

    def trouble(self) -> Optional[Trouble]:
        """A failure of the cluster since the last call."""
        return None

    def was_interrupted(self) -> bool:
        """Whether the manager took the hosts away, through no fault of the job."""
        return False
