"""What an agent or a task must know to join its job. All of it is secret.

An agent reads its `AgentConfig` from its standard input, so no file has it. A task's `Credentials`
are in a file of mode 0600, in memory, which the agent keeps open and which goes with the agent. The
environment variable BARYON_TASK has the file's path. Every process that the task starts inherits
it; the one that creates a store is the worker. BARYON_MEMORY has the path of the memory that the
tasks of a host share (ps/memory.py).
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
    """``endpoint`` is where the scheduler listens.

    ``address`` is where other hosts reach this one. If it is empty, the agent finds it out:
    ``interfaces`` are those by which hosts reach each other, if not the usual ones.
    """

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
        """The line for the agent's standard input."""
        return msgspec.json.encode(self) + b"\n"


class Parent(msgspec.Struct, frozen=True):
    """Server ``rank``; it ``is_shared`` if it is on the same host and shares the host's memory."""

    rank: int
    is_shared: bool


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """``host_rank`` is the number of the task's host, in host-file order.

    ``num_local_workers`` counts the workers of that host. ``member`` is the task's number in the
    memory that the tasks of its host share; 0 if they share none. ``parents`` are the servers to
    which the task reports. ``num_owners`` servers own the parameters; workers connect to these
    ``owners`` for what is not summed on the way. A server's ``children`` are the tasks below it in
    the tree; an owner's ``guests`` are the other workers that connect to it. ``staleness`` is that
    of ``dist_ssp`` stores.
    """

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
