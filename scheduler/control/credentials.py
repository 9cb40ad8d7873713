"""What an agent or a task must know to take part in its job; secret.

An agent reads its `AgentConfig` from its standard input, so it lies nowhere. A task's credentials
lie in a file of mode 0600 that is in memory, kept by the agent, and gone when the agent is. Its
path is in the environment variable BARYON_TASK, which every process that the task starts inherits:
whichever of them creates a store is the worker. BARYON_MEMORY names, in the same way, the memory
that the tasks of a host share (ps/memory.py).
"""

import os
from typing import Optional, Tuple

import msgspec

from baryon.ps import Child

__all__ = [
    "MEMORY_VARIABLE",
    "TASK_VARIABLE",
    "AgentConfig",
    "Credentials",
    "Parent",
    "read_credentials",
]

TASK_VARIABLE = "BARYON_TASK"
MEMORY_VARIABLE = "BARYON_MEMORY"


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


class Parent(msgspec.Struct, frozen=True):
    """Server ``rank``; ``is_shared`` if it is on the same host and shares its memory."""

    rank: int
    is_shared: bool


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """``host_rank`` is its host's number, in host-file order, and ``num_local_workers`` counts the
    workers there.

    ``member`` is the task's number in the memory that the tasks of its host share, 0 if they
    share none. ``parents`` are the servers that it speaks to; ``num_owners`` servers share the
    parameters out. For workers, ``owners`` are these, for what is not added up on the way. For
    servers, ``children`` are the tasks below it in the tree, ``guests`` the other workers that
    speak to an owner. ``staleness`` is that of ``dist_ssp`` stores."""

    job: str
    slug: str
    rank: int
    local_rank: int
    host_rank: int
    num_local_workers: int
    num_workers: int
    num_owners: int
    address: str
    endpoint: str
    scheduler_key: str
    public_key: str
    secret_key: str
    timeout_s: float
    silence_s: float
    kvstore: Optional[str] = None
    member: int = 0
    encrypts_data: bool = True
    parents: Tuple[Parent, ...] = ()
    owners: Tuple[Parent, ...] = ()
    children: Tuple[Child, ...] = ()
    guests: Tuple[Child, ...] = ()
    staleness: int = 0


def read_credentials() -> Optional[Credentials]:
    """This task's credentials, or None outside a job.

    Raises OSError if the file named by BARYON_TASK cannot be read.
    """
    path = os.environ.get(TASK_VARIABLE)
    if not path:
        return None
    with open(path, "rb") as file:
        return msgspec.json.decode(file.read(), type=Credentials)
