"""Makes a task's end of the data plane from its credentials.

This file needs NumPy, so launch.py and the agents do not import it.
"""

import os
from typing import Callable, Optional

import zmq

from baryon.ps import Client, HostMemory, KeyPair, Reactor, ServerAddress

from .credentials import MEMORY_VARIABLE, Credentials
from .messages import Roster

__all__ = ["client_of", "host_memory_of", "keys_of"]


def keys_of(credentials: Credentials) -> KeyPair:
    return KeyPair(credentials.public_key, credentials.secret_key)


def host_memory_of(credentials: Credentials) -> Optional[HostMemory]:
    """The memory that the tasks of this host share; None if they share none."""
    if not credentials.member:
        return None
    return HostMemory(os.environ[MEMORY_VARIABLE], credentials.member)


def client_of(
    reactor: Reactor,
    context: zmq.Context,
    credentials: Credentials,
    roster: Roster,
    on_fault: Callable[[str], object],
    is_direct: bool = False,
) -> Client:
    """A client of the servers to which this task reports; of all owners if it ``is_direct``."""
    parents = credentials.owners if is_direct else credentials.parents
    peers = [(roster.servers[p.rank], p.is_shared) for p in parents]
    # Only servers of this host may write what it receives. Without them each worker of a direct
    # client would write it for the others, at its own pace.
    has_memory = not is_direct or all(parent.is_shared for parent in parents)
    if not has_memory:
        peers = [(server, False) for server, _ in peers]
    return Client(
        reactor,
        context,
        keys=keys_of(credentials),
        servers=[ServerAddress(peer.endpoint, peer.public_key, is_) for peer, is_ in peers],
        num_owners=credentials.num_owners,
        timeout_s=credentials.timeout_s,
        silence_s=credentials.silence_s,
        on_fault=on_fault,
        name=credentials.slug.replace("-", " "),
        memory=host_memory_of(credentials) if has_memory else None,
        encrypts=credentials.encrypts_data,
    )
