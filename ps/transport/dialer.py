"""Connections to one ROUTER, one after the other. Runs in the reactor's thread.

Guarantees: messages on one connection arrive in order, up to its end. A message that was queued for
an old connection never reaches a new one. The caller repeats in ``on_up`` all that may be lost.

Each connection is a ZeroMQ socket of its own. Rejected: ZeroMQ's own reconnecting, which sends the
old queue on the new connection before we can say who we are and what was lost.

ZeroMQ's I/O threads send and answer heartbeats however busy Python is, and so turn a silent
connection into a lost one.
"""

from typing import Any, Callable, List, Optional

import zmq
from zmq.utils.monitor import parse_monitor_message

from .endpoints import connect_to
from .outbox import Outbox
from .reactor import Reactor, Timer

__all__ = ["Dialer"]

_RETRY_S = 0.1  # from the loss of a connection to the next attempt
_LEAST_ATTEMPT_S = 1.0  # a handshake takes a while on a busy machine
_MAX_TTL_S = 6500.0  # it travels as 16 bits of tenths of a second
_LOST = (
    zmq.EVENT_CLOSED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


class Dialer:
    """Connects at once, and again after each loss until `close`.

    ``prepare(socket)`` sets a new DEALER's options before it connects. ``on_up()`` is called
    whenever a connection has come up.
    """

    def __init__(
        self,
        reactor: Reactor,
        context: zmq.Context,
        endpoint: str,
        silence_s: float,
        prepare: Callable[[zmq.Socket], None],
        on_up: Callable[[], None],
        on_message: Callable[[List[zmq.Frame]], None],
    ) -> None:
        self.endpoint = endpoint
        self.is_up = False
        self.connection = 0  # its number
        self._reactor = reactor
        self._context = context
        self._silence_s = silence_s
        self._prepare = prepare
        self._on_up = on_up
        self._on_message = on_message
        self._socket: Optional[zmq.Socket] = None
        self._next: Optional[Timer] = None  # the end of this attempt, or the next one
        self._connect()

    def put(self, frames: List[Any], priority: int = 0) -> None:
        """Queue a message for `flush`. Without a connection, drops it: ``on_up`` repeats it."""
        if self.is_up:
            self._outbox.put(frames, priority)

    def flush(self) -> None:
        if self.is_up:
            self._outbox.flush()

    def close(self) -> None:
        """Hang up. Messages that ZeroMQ has already taken get one second to leave."""
        self._disconnect(linger_ms=1000 if self.is_up else 0)

    # -- inside -------------------------------------------------------------------------------

    def _connect(self) -> None:
        self.connection += 1
        socket = self._socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.reconnect_ivl = -1
        # A heartbeat may wait behind megabytes in the kernel's buffers, so the limits are long.
        limit_ms = int(min(self._silence_s / 2, _MAX_TTL_S) * 1000)
        socket.heartbeat_ivl = int(min(self._silence_s / 5, _MAX_TTL_S) * 1000)
        socket.heartbeat_timeout = limit_ms
        socket.heartbeat_ttl = limit_ms  # then the other end hangs up
        self._prepare(socket)
        self._outbox = Outbox(self._reactor, socket)
        self._monitor = socket.get_monitor_socket(_LOST | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._reactor.receive(self._monitor, self._on_event)
        self._reactor.receive(socket, self._on_message)
        connect_to(socket, self.endpoint)
        # ZeroMQ has no event for an attempt that fails because a name does not resolve.
        limit_s = max(_LEAST_ATTEMPT_S, self._silence_s / 4)
        self._next = self._reactor.call_later(limit_s, self._lost)

    def _on_event(self, frames: List[zmq.Frame]) -> None:
        event = parse_monitor_message([frame.bytes for frame in frames])["event"]
        if event != zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._lost()
            return
        self._stop_timer()
        self.is_up = True
        self._on_up()
        self.flush()

    def _lost(self) -> None:
        self._disconnect(linger_ms=0)
        self._next = self._reactor.call_later(_RETRY_S, self._connect)

    def _disconnect(self, linger_ms: int) -> None:
        self._stop_timer()
        self.is_up = False
        socket, self._socket = self._socket, None
        if socket is None:
            return
        self._reactor.unwatch(self._monitor)
        self._reactor.unwatch(socket)
        socket.disable_monitor()
        self._monitor.close(linger=0)
        socket.close(linger=linger_ms)

    def _stop_timer(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None
