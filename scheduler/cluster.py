"""What the scheduler asks of a cluster: run the agent once per host and say whether it runs."""

import abc
from typing import AbstractSet, List, NamedTuple, Optional, Tuple

from .control import AgentConfig, Job

__all__ = ["Cluster", "Trouble"]


class Trouble(NamedTuple):
    """What has gone wrong with a cluster as a whole, and the exit code of the job that it ends.

    ``grace_s`` is how long workers may take to save their work, if that is not as usual.
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

        It gets ``config.line()`` on its standard input, which stays open: its end tells the agent
        that the scheduler has gone. Or it gets that from a file (``agent_argv``), and knows from
        the scheduler's silence alone.
        """

    @abc.abstractmethod
    def ended(self) -> List[Tuple[int, str]]:
        """(host number, how it ended) of each agent that has ended since the last call."""

    @abc.abstractmethod
    def release(self, host: int) -> None:
        """Let go of an agent: close its standard input, if it has one.

        It ends whatever still runs there, and itself. It is told so by a message as well, which
        those that have not said hello yet do not get.
        """

    @abc.abstractmethod
    def kill(self, lost: AbstractSet[int] = frozenset()) -> None:
        """End all agents at once; those of hosts ``lost`` cannot be reached, so do not wait."""

    # -- what only those have to say that get their hosts from a manager ----------------------

    def name(self) -> Optional[str]:
        """What the manager calls the job, as ``Slurm job 12``; None until it has taken it."""
        return ""

    def is_queued(self) -> bool:
        """Whether the job waits for its hosts, so that the time to start has not begun."""
        return False

    def trouble(self) -> Optional[Trouble]:
        """What has gone wrong since the last call."""
        return None

    def was_interrupted(self) -> bool:
        """Whether the hosts were taken away, by no fault of the job: it may go on on others."""
        return False
