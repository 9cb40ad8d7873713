"""The link from a worker to one server: a connection, and after its loss the next one.

Each connection is a ZeroMQ socket of its own, and ZeroMQ's own reconnecting is switched off: it
would send on a new connection what still waits for the old one, before we can say who we are and
what was lost. So nothing of an old connection reaches a new one, a server hears Hello first and
the rest in order, and whoever uses a link sends in ``on_up`` all that is not answered.

ZeroMQ's heartbeats, which its I/O threads send and answer however busy Python is, turn a silent
link into a lost connection. All of it runs in the reactor's thread.
"""

from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import zmq
from zmq.utils.monitor import parse_monitor_message

from . import wire
from .endpoints import connect_to
from .outbox import Outbox
from .reactor import Reactor, Timer
from .security import KeyPair, secure_client, token_of

__all__ = ["Link", "ServerAddress"]

# Messages handed to ZeroMQ and not yet sent. More would only queue there, where an urgent bucket
# cannot overtake them.
_SEND_AHEAD = 4
_CONTROL = 1 << 40  # goes before any user's priority
_BATCH = 128  # how much goes as one message, where a run in shared memory is 16, some rows are 1
_RUN = 16
_RETRY_S = 0.1  # from the loss of a connection to the next attempt
_MAX_TTL_S = 6500.0  # it travels as 16 bits of tenths of a second
_LOST = (
    zmq.EVENT_CLOSED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


class ServerAddress(NamedTuple):
    """``is_shared``: on this host, and reached through its memory."""

    endpoint: str
    public_key: str
    is_shared: bool = False


class Link:
    """A link that connects at once and again whenever it has to, until `close`.

    ``on_up()`` is called whenever a connection has come up, after Hello was queued on it.
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
        self.is_up = False
        # For how long it has been down since it was last of use, as far as `pass_time` has said:
        # a connection that comes up and breaks under its load, again and again, is of no use.
        self.down_s = 0.0
        # (store, serial) -> SetOptimizer, SetHyper or Close
        self.unaccepted: Dict[Tuple[int, int], wire.Message] = {}
        self._reactor = reactor
        self._context = context
        self._keys = keys
        self._member = member if server.is_shared else 0
        self._encrypts = encrypts
        self._silence_s = silence_s
        self._on_up = on_up
        self._on_message = on_message
        self._batch: List[Union[wire.Run, wire.PushRows, wire.PullRows]] = []
        self._batch_payloads: List[np.ndarray] = []
        self._batch_weight = 0
        self._batch_priority = 0
        self._connection = 0  # counts them
        self._socket: Optional[zmq.Socket] = None
        self._next: Optional[Timer] = None
        self._connect()

    def __repr__(self) -> str:
        state = "up" if self.is_up else f"down for {self.down_s:.0f} s"
        return f"Link({self.server.endpoint}, connection {self._connection}, {state})"

    def send(
        self, message: wire.Message, payload: Optional[np.ndarray] = None, priority: int = _CONTROL
    ) -> None:
        """Queue a message for `flush`; while the link is down, leave it to ``on_up``."""
        self._put(message, [] if payload is None else [payload], priority)

    def send_shared(self, message: wire.Run, priority: int) -> None:
        """The same for what lies in the host's memory: several go as one message."""
        self._join_batch(message, _RUN, priority)

    def send_rows(
        self, message: Union[wire.PushRows, wire.PullRows], payload: np.ndarray, priority: int
    ) -> None:
        """The same for rows: those of many slices go as one message."""
        self._batch_payloads.append(payload)
        self._join_batch(message, 1, priority)

    def flush(self) -> None:
        if self._batch:
            batch, self._batch = self._batch, []
            payloads, self._batch_payloads = self._batch_payloads, []
            self._batch_weight = 0
            self._put(wire.Batch(tuple(batch)), payloads, self._batch_priority)
        if self.is_up:
            self._outbox.flush()

    def _put(self, message: wire.Message, payloads: Sequence[np.ndarray], priority: int) -> None:
        if self.is_up:
            self._outbox.put([wire.DATA.encode(message), *payloads], priority)

    def _join_batch(
        self, message: Union[wire.Run, wire.PushRows, wire.PullRows], weight: int, priority: int
    ) -> None:
        if not self._batch or priority > self._batch_priority:
            self._batch_priority = priority
        self._batch.append(message)
        self._batch_weight += weight
        if self._batch_weight >= _BATCH:
            self.flush()

    def progress(self) -> None:
        """Say that the server has answered more than Hello: what is sent on this link arrives."""
        self.down_s = 0.0

    def pass_time(self, seconds: float) -> None:
        """Say that so much time has passed in which this process could have noticed a change."""
        if not self.is_up:
            self.down_s += seconds

    def close(self) -> None:
        """Give the link up; what was sent still has a second to get out."""
        self._disconnect(linger_ms=1000 if self.is_up else 0)

    # -- connections --------------------------------------------------------------------------

    def _connect(self) -> None:
        self._connection += 1
        socket = self._socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.sndhwm = _SEND_AHEAD
        socket.rcvhwm = 0
        socket.maxmsgsize = wire.MAX_PAYLOAD_NBYTES
        socket.reconnect_ivl = -1
        # A heartbeat may wait behind megabytes in the kernel's buffers: do not be hasty.
        limit_ms = int(min(self._silence_s / 2, _MAX_TTL_S) * 1000)
        socket.heartbeat_ivl = int(min(self._silence_s / 5, _MAX_TTL_S) * 1000)
        socket.heartbeat_timeout = limit_ms
        socket.heartbeat_ttl = limit_ms  # after which the server gives up the connection
        if self._encrypts:
            secure_client(socket, self._keys, self.server.public_key)
        self._outbox = Outbox(self._reactor, socket)
        self._monitor = socket.get_monitor_socket(_LOST | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._reactor.receive(self._monitor, self._on_event)
        self._reactor.receive(socket, self._on_message)
        connect_to(socket, self.server.endpoint)
        # ZeroMQ has no event for an attempt that came to nothing because of a name.
        self._next = self._reactor.call_later(self._silence_s / 4, self._lost)

    def _on_event(self, frames: List[zmq.Frame]) -> None:
        event = parse_monitor_message([frame.bytes for frame in frames])["event"]
        if event != zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._lost()
            return
        self._stop_timer()
        self.is_up = True
        token = "" if self._encrypts else token_of(self._keys.secret)
        self.send(wire.Hello(wire.VERSION, self._connection, self._member, token))
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
