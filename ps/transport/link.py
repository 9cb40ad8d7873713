"""The link from a worker to one server. Runs in the reactor's thread.

A link is one connection after the other (dialer.py). On each of them the server hears Hello first
and then the other messages in order. The client repeats in ``on_up`` all that is not answered.
"""

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

import numpy as np
import zmq

from .. import wire
from .dialer import Dialer
from .reactor import Reactor
from .security import KeyPair, secure_client, token_of

__all__ = ["CONTROL", "Link", "ServerAddress"]

# How many messages ZeroMQ may hold. An urgent bucket cannot overtake a message that is in ZeroMQ's
# queue, so the others wait in the outbox.
_SEND_AHEAD = 4
CONTROL = 1 << 40  # a priority above any user's

# Small messages travel together in a Batch, up to this weight. Each type has its own: over a shared
# link a run of slices is only a header, while rows travel with their payload over any link.
_BATCH = 128
_ROWS: Dict[type, int] = {wire.PushRows: 1, wire.PullRows: 1}
_SHARED: Dict[type, int] = {**_ROWS, wire.Init: 16, wire.Push: 16, wire.Pull: 16}


class ServerAddress(NamedTuple):
    """``is_shared``: the server is on this host and reads our gradients in the host's memory."""

    endpoint: str
    public_key: str
    is_shared: bool = False


class Link:
    """Connects at once, and again after each loss until `close`.

    ``on_up()`` is called whenever a connection has come up and Hello is queued on it.
    """

    def __init__(
        self,
        reactor: Reactor,
        context: zmq.Context,
        server: ServerAddress,
        keys: KeyPair,
        *,
        member: int,
        encrypts: bool,
        silence_s: float,
        on_up: Callable[[], None],
        on_message: Callable[[List[zmq.Frame]], None],
    ) -> None:
        self.server = server
        self._keys = keys
        self._member = member if server.is_shared else 0
        self._encrypts = encrypts
        self._on_up = on_up
        self._weights = _SHARED if server.is_shared else _ROWS
        self._batch: List[Any] = []
        self._batch_payloads: List[np.ndarray] = []
        self._batch_weight = 0
        self._batch_priority = 0
        self._dialer = Dialer(
            reactor, context, server.endpoint, silence_s, self._prepare, self._say_hello, on_message
        )

    def __repr__(self) -> str:
        state = "up" if self.is_up else "down"
        return f"Link({self.server.endpoint}, connection {self._dialer.connection}, {state})"

    @property
    def is_up(self) -> bool:
        return self._dialer.is_up

    def send(
        self, message: wire.Message, payload: Optional[np.ndarray] = None, priority: int = CONTROL
    ) -> None:
        """Queue a message for `flush`. While the link is down, drops it: ``on_up`` repeats it."""
        weight = self._weights.get(type(message))
        if weight is None:
            self._put(message, () if payload is None else (payload,), priority)
            return
        if not self._batch or priority > self._batch_priority:
            self._batch_priority = priority
        self._batch.append(message)
        if payload is not None:
            self._batch_payloads.append(payload)
        self._batch_weight += weight
        if self._batch_weight >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Send the queued messages as fast as the connection takes them."""
        if self._batch:
            batch, self._batch = self._batch, []
            payloads, self._batch_payloads = self._batch_payloads, []
            self._batch_weight = 0
            self._put(wire.Batch(tuple(batch)), payloads, self._batch_priority)
        self._dialer.flush()

    def _put(self, message: wire.Message, payloads: Sequence[np.ndarray], priority: int) -> None:
        if self.is_up:
            self._dialer.put([wire.DATA.encode(message), *payloads], priority)

    def close(self) -> None:
        """Hang up. Messages that ZeroMQ has already taken get one second to leave."""
        self._dialer.close()

    def _prepare(self, socket: zmq.Socket) -> None:
        socket.sndhwm = _SEND_AHEAD
        socket.rcvhwm = 0
        socket.maxmsgsize = wire.MAX_PAYLOAD_NBYTES
        if self._encrypts:
            secure_client(socket, self._keys, self.server.public_key)

    def _say_hello(self) -> None:
        token = "" if self._encrypts else token_of(self._keys.secret)
        self.send(wire.Hello(wire.VERSION, self._dialer.connection, self._member, token))
        self._on_up()
        self.flush()
