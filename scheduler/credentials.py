"""What an agent or a task must know to take part in its job; secret.

An agent reads its `AgentConfig` from its standard input, so it lies nowhere. A task's credentials
lie in a file of mode 0600 that is in memory, kept by the agent, and gone when the agent is. Its
path is in the environment variable BARYON_TASK, which every process that the task starts inherits:
whichever of them creates a store is the worker.
"""

import os
from typing import Dict, Optional, Tuple

import msgspec

__all__ = ["TASK_VARIABLE", "AgentConfig", "Credentials", "read_credentials"]

TASK_VARIABLE = "BARYON_TASK"


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True):
    """``endpoint`` is where the scheduler listens; ``address`` where other hosts reach this one,
    empty to have the agent find out, with the help of ``interfaces``."""

    job: str
    host: int
    endpoint: str
    scheduler_key: str
    public_key: str
    secret_key: str
    silence_s: float
    address: str = ""
    interfaces: Tuple[str, ...] = ()

    def line(self) -> bytes:
        """It, as one line for the agent's standard input."""
        return msgspec.json.encode(self) + b"\n"


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """``workers`` (for servers): the public keys of the workers and their ranks."""

    job: str
    slug: str
    rank: int
    local_rank: int
    num_workers: int
    num_servers: int
    address: str
    endpoint: str
    scheduler_key: str
    public_key: str
    secret_key: str
    timeout_s: float
    silence_s: float
    kvstore: Optional[str] = None
    workers: Dict[str, int] = msgspec.field(default_factory=dict)


def read_credentials() -> Optional[Credentials]:
    """This task's credentials, or None outside a job.

    Raises OSError if the file named by BARYON_TASK cannot be read.
    """
    path = os.environ.get(TASK_VARIABLE)
    if not path:
        return None
    with open(path, "rb") as file:
        return msgspec.json.decode(file.read(), type=Credentials)
