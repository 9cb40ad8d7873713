"""The parameter server: wire format, transport, plan, stores, the server and its client.

Imports none of its sibling packages.
"""

from .client import Client, StoreClient
from .departures import Operation
from .endpoints import bind_to, connect_to, endpoint_of
from .errors import BaryonError, PeerError, ProtocolError, UsageError, WaitTimeout
from .link import ServerAddress
from .mxnet_compat import array_over, import_mxnet
from .optimizer import dump_optimizer
from .outbox import Outbox
from .reactor import Reactor, Timer
from .security import Authenticator, KeyPair, new_key_pair, secure_client, secure_server
from .server import Server
from .wire import Codec, Message, Multipliers

__all__ = [
    "Authenticator",
    "BaryonError",
    "Client",
    "Codec",
    "KeyPair",
    "Message",
    "Multipliers",
    "Operation",
    "Outbox",
    "PeerError",
    "ProtocolError",
    "Reactor",
    "Server",
    "ServerAddress",
    "StoreClient",
    "Timer",
    "UsageError",
    "WaitTimeout",
    "array_over",
    "bind_to",
    "connect_to",
    "dump_optimizer",
    "endpoint_of",
    "import_mxnet",
    "new_key_pair",
    "secure_client",
    "secure_server",
]
