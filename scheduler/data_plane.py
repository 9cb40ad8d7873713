"""From a task's credentials to its part in the data plane.

Needs NumPy, so launch.py and the agents do not import it.
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
    """The memory that this task shares with the others of its host, if they share any."""
    if not credentials.member:
        return None
    return HostMemory(os.environ[MEMORY_VARIABLE], credentials.member)


def client_of(
    reactor: Reactor,
    context: zmq.Context,
    credentials: Credentials,
    roster: Roster,
    on_fault: Callable[[str], object],
) -> Client:
    """A client of the servers that this task reports to."""
    peers = [(roster.servers[p.rank], p.is_shared) for p in credentials.parents]
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
        memory=host_memory_of(credentials),
        encrypts=credentials.encrypts_data,
    )
