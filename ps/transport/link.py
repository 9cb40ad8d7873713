"""The link from a worker to one server: a connection, and after its loss the next one (dialer.py).

A server hears Hello first on each and the rest in order, and whoever uses a link sends in ``on_up``
all that is not answered. All of it runs in the reactor's thread.
"""

from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import zmq

from .. import wire
from .dialer import Dialer
from .reactor import Reactor
from .security import KeyPair, secure_client, token_of

__all__ = ["Link", "ServerAddress"]

# Messages handed to ZeroMQ and not yet sent. More would only queue there, where an urgent bucket
# cannot overtake them.
_SEND_AHEAD = 4
_CONTROL = 1 << 40  # goes before any user's priority
_BATCH = 128  # how much goes as one message, where a run in shared memory is 16, some rows are 1
_RUN = 16


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
        # For how long it has been down since it was last of use, as far as `pass_time` has said:
        # a connection that comes up and breaks under its load, again and again, is of no use.
        self.down_s = 0.0
        # (store, serial) -> SetUpdater, SetHyper or Close
        self.unaccepted: Dict[Tuple[int, int], wire.Message] = {}
        self._keys = keys
        self._member = member if server.is_shared else 0
        self._encrypts = encrypts
        self._on_up = on_up
        self._batch: List[Union[wire.Run, wire.PushRows, wire.PullRows]] = []
        self._batch_payloads: List[np.ndarray] = []
        self._batch_weight = 0
        self._batch_priority = 0
        self._dialer = Dialer(
            reactor, context, server.endpoint, silence_s, self._prepare, self._say_hello, on_message
        )

    def __repr__(self) -> str:
        state = "up" if self.is_up else f"down for {self.down_s:.0f} s"
        return f"Link({self.server.endpoint}, connection {self._dialer.connection}, {state})"

    @property
    def is_up(self) -> bool:
        return self._dialer.is_up

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
        self._dialer.flush()

    def _put(self, message: wire.Message, payloads: Sequence[np.ndarray], priority: int) -> None:
        if self.is_up:
            self._dialer.put([wire.DATA.encode(message), *payloads], priority)

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
