"""How bytes travel and who may send them: a process's one loop, its connections, its keys.

Both ends of every connection use it, on the data plane and on the control plane.
"""

from .dialer import Dialer
from .endpoints import bind_to, connect_to, endpoint_of
from .link import CONTROL, Link, ServerAddress
from .outbox import Outbox
from .reactor import Reactor, Timer
from .security import Authenticator, KeyPair, new_key_pair, secure_client, secure_server, token_of

__all__ = [
    "CONTROL",
    "Authenticator",
    "Dialer",
    "KeyPair",
    "Link",
    "Outbox",
    "Reactor",
    "ServerAddress",
    "Timer",
    "bind_to",
    "connect_to",
    "endpoint_of",
    "new_key_pair",
    "secure_client",
    "secure_server",
    "token_of",
]
