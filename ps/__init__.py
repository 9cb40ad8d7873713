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
from .wire import Codec, GetState, Message, Multipliers, Open, PutState, Scalar, StateSpec

if TYPE_CHECKING:
    from .client import Client, Operation, RowOperation, StoreClient
    from .compression import Compression, compression_of
    from .memory import MAX_STORES, HostMemory
    from .mxnet_compat import array_over, import_mxnet
    from .optimizer import dump_optimizer, needs_whole_keys
    from .plan import Key, Slice
    from .rows import Rows, ids_in, rows_in, summed, union
    from .server import Server
    from .states import SliceState, flatten, layout_of, piece_of, pieces, unflatten
    from .versions import is_scalar

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
    "PeerError",
    "ProtocolError",
    "PutState",
    "Reactor",
    "RowOperation",
    "Rows",
    "Scalar",
    "Server",
    "ServerAddress",
    "Slice",
    "SliceState",
    "StateSpec",
    "StoreClient",
    "Timer",
    "UsageError",
    "WaitTimeout",
    "array_over",
    "bind_to",
    "compression_of",
    "connect_to",
    "dump_optimizer",
    "endpoint_of",
    "flatten",
    "ids_in",
    "import_mxnet",
    "is_scalar",
    "layout_of",
    "needs_whole_keys",
    "new_key_pair",
    "piece_of",
    "pieces",
    "raise_also_as",
    "rows_in",
    "secure_client",
    "secure_server",
    "summed",
    "token_of",
    "unflatten",
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
    "flatten": "states",
    "layout_of": "states",
    "piece_of": "states",
    "pieces": "states",
    "unflatten": "states",
    "Operation": "client",
    "RowOperation": "client",
    "Rows": "rows",
    "ids_in": "rows",
    "rows_in": "rows",
    "summed": "rows",
    "union": "rows",
    "Server": "server",
    "StoreClient": "client",
    "array_over": "mxnet_compat",
    "dump_optimizer": "optimizer",
    "import_mxnet": "mxnet_compat",
    "is_scalar": "versions",
    "needs_whole_keys": "optimizer",
}


def __getattr__(name: str) -> Any:  # PEP 562
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
