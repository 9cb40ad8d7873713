"""ZeroMQ endpoints of addresses, IPv4 and IPv6.

A ZeroMQ socket uses IPv6 only if that is switched on before it binds or connects. We do so for IPv6
addresses alone, because ZeroMQ would otherwise bind, and report, an IPv4 address as a mapped one.
"""

from typing import Union

import zmq

__all__ = ["bind_to", "connect_to", "endpoint_of"]


def endpoint_of(address: str, port: Union[int, str] = "*") -> str:
    """``tcp://address:port``, with an IPv6 address in brackets. Port "*" means any free port."""
    return f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"


def bind_to(socket: zmq.Socket, endpoint: str) -> str:
    """Bind ``socket``; returns the endpoint with its real port. Raises zmq.ZMQError."""
    _prepare(socket, endpoint)
    socket.bind(endpoint)
    return str(socket.get_string(zmq.LAST_ENDPOINT))


def connect_to(socket: zmq.Socket, endpoint: str) -> None:
    """Connect ``socket``, in the background."""
    _prepare(socket, endpoint)
    socket.connect(endpoint)


def _prepare(socket: zmq.Socket, endpoint: str) -> None:
    if "[" in endpoint:
        socket.ipv6 = True
