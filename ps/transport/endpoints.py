"""ZeroMQ endpoints of addresses, IPv4 and IPv6.

A ZeroMQ socket knows IPv6 only if it is told to before it is bound or connected. It is told so for
IPv6 addresses alone: otherwise an IPv4 address would be bound, and reported, as a mapped one.
"""

from typing import Union

import zmq

__all__ = ["bind_to", "connect_to", "endpoint_of"]


def endpoint_of(address: str, port: Union[int, str] = "*") -> str:
    """``tcp://address:port``, with brackets round an IPv6 address; port "*" is any free one."""
    return f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"


def bind_to(socket: zmq.Socket, endpoint: str) -> str:
    """Bind ``socket``; returns the endpoint with its real port. Raises zmq.ZMQError."""
    _prepare(socket, endpoint)
    socket.bind(endpoint)
    return str(socket.get_string(zmq.LAST_ENDPOINT))


def connect_to(socket: zmq.Socket, endpoint: str) -> None:
    """Connect ``socket``, which happens in the background."""
    _prepare(socket, endpoint)
    socket.connect(endpoint)


def _prepare(socket: zmq.Socket, endpoint: str) -> None:
    if "[" in endpoint:
        socket.ipv6 = True
