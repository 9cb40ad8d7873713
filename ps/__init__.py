"""The parameter server: wire format, transport, plan, stores, the server and its client.

Imports none of its sibling packages. What needs NumPy is imported when it is first asked for:
launch.py and the agents use only the transport, and there is an agent on every host.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .child import Child
from .errors import (
    BaryonError,
    PeerError,
    ProtocolError,
    UsageError,
    WaitTimeout,
    raise_also_as,
)
from .transport import (
    Authenticator,
    Dialer,
    KeyPair,
    Outbox,
    Reactor,
    ServerAddress,
    Timer,
    bind_to,
    connect_to,
    endpoint_of,
    new_key_pair,
    secure_client,
    secure_server,
    token_of,
)
from .waits import wait_awake
from .wire import Codec, GetState, Message, Multipliers, Open, PutState, Scalar, SetHyper, StateSpec

if TYPE_CHECKING:
    from .client import Client, Operation, RowOperation, StoreClient
    from .compression import Compression, compression_of
    from .memory import MAX_STORES, HostMemory
    from .plan import Key, Slice
    from .rows import Part, Rows, ids_in, rows_in, summed, union
    from .server import Server
    from .states import SliceState, piece_of, pieces
    from .updater import Updater, import_updater
    from .versions import Versions, is_scalar, set_scalars

__all__ = [
    "Authenticator",
    "BaryonError",
    "Child",
    "Client",
    "Codec",
    "Compression",
    "Dialer",
    "GetState",
    "HostMemory",
    "MAX_STORES",
    "Key",
    "KeyPair",
    "Message",
    "Multipliers",
    "Open",
    "Operation",
    "Outbox",
    "Part",
    "PeerError",
    "ProtocolError",
    "PutState",
    "Reactor",
    "RowOperation",
    "Rows",
    "Scalar",
    "SetHyper",
    "Server",
    "ServerAddress",
    "Slice",
    "SliceState",
    "StateSpec",
    "StoreClient",
    "Timer",
    "Updater",
    "UsageError",
    "Versions",
    "WaitTimeout",
    "bind_to",
    "compression_of",
    "connect_to",
    "endpoint_of",
    "ids_in",
    "import_updater",
    "is_scalar",
    "new_key_pair",
    "piece_of",
    "pieces",
    "raise_also_as",
    "rows_in",
    "secure_client",
    "secure_server",
    "set_scalars",
    "summed",
    "token_of",
    "union",
    "wait_awake",
]

_LATER = {
    "Client": "client",
    "Compression": "compression",
    "compression_of": "compression",
    "MAX_STORES": "memory",
    "HostMemory": "memory",
    "Key": "plan",
    "Slice": "plan",
    "SliceState": "states",
    "piece_of": "states",
    "pieces": "states",
    "Operation": "client",
    "RowOperation": "client",
    "Part": "rows",
    "Rows": "rows",
    "ids_in": "rows",
    "rows_in": "rows",
    "summed": "rows",
    "union": "rows",
    "Server": "server",
    "StoreClient": "client",
    "Updater": "updater",
    "import_updater": "updater",
    "Versions": "versions",
    "is_scalar": "versions",
    "set_scalars": "versions",
}


def __getattr__(name: str) -> Any:  # PEP 562
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
