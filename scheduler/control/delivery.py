"""No control message is lost with its connection, and none is delivered twice. Pure.

The scheduler talks with one *life* of a peer at a time: one process; a later process with the same
keys is another life. Both ends number their messages and keep each until the other end acknowledges
it. On the peer's next connection they send again, in order, what they have kept. An `Envelope` goes
before each message, and acknowledges messages of the other direction. Signs of life have no number:
a late one is of no use. Each end knows how much is not acknowledged, so a busy sender can wait.

Rejected: to send again when no acknowledgement comes in time. A busy scheduler would get everything
twice, and ZeroMQ's heartbeats already tell when a connection is lost.
"""

from collections import deque
from typing import Any, Callable, Deque, Dict, List, Set, Tuple

import msgspec

from baryon.ps import ProtocolError

__all__ = ["WINDOW_NBYTES", "Caller", "Conversations", "Delivery", "Envelope", "decode_envelope"]

WINDOW_NBYTES = 1 << 20
"""An agent that has so much unacknowledged reads no more of its tasks' output for now."""

ACKNOWLEDGE_NBYTES = WINDOW_NBYTES // 4
"""So much is acknowledged at once; less may wait for a moment."""

_MAX_LIVES = 8  # of one peer that are remembered


class Envelope(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """``connection`` counts the connections of this ``life``.

    ``serial`` is the number of the message that follows, or 0. ``heard`` is the last number that
    came from the other end.
    """

    life: int
    connection: int
    serial: int
    heard: int

    def encode(self) -> bytes:
        return _encoder.encode(self)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Envelope)


def decode_envelope(data: Any) -> Envelope:
    """Raises ProtocolError."""
    try:
        envelope = _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolError(f"malformed envelope of {len(data)} bytes: {error}") from error
    if min(envelope.life, envelope.connection, envelope.serial, envelope.heard) < 0:
        raise ProtocolError(f"impossible envelope {envelope}")
    return envelope


class Delivery:
    """One end of a conversation. Messages are opaque; callers give the size of each."""

    def __init__(self) -> None:
        self.heard = 0
        self.owed_nbytes = 0  # received and not acknowledged
        self.kept_nbytes = 0
        self._kept: Deque[Tuple[Any, int]] = deque()
        self._last = 0  # the number of the last message sent

    def __repr__(self) -> str:
        return f"Delivery({self.heard} heard, {self._last} sent, {len(self._kept)} kept)"

    def number(self, message: Any, nbytes: int) -> int:
        """Keep a message until it is acknowledged; returns its number."""
        self._last += 1
        self._kept.append((message, nbytes))
        self.kept_nbytes += nbytes
        return self._last

    def kept(self) -> List[Tuple[int, Any]]:
        """(number, message) of all that the other end may lack; a new connection begins with it."""
        first = self._last - len(self._kept) + 1
        return [(first + index, message) for index, (message, _) in enumerate(self._kept)]

    def take(self, serial: int, heard: int, nbytes: int) -> bool:
        """Take note of an envelope and of the size of its message; returns whether that is new.

        Raises ProtocolError if the numbers are impossible.
        """
        if heard > self._last or serial > self.heard + 1:
            raise ProtocolError(f"message {serial}, {heard} heard: impossible for {self!r}")
        while self._last - len(self._kept) < heard:
            self.kept_nbytes -= self._kept.popleft()[1]
        if not serial:
            return True
        self.owed_nbytes += nbytes  # also for a repeat, which lacked an acknowledgement
        if serial <= self.heard:
            return False
        self.heard = serial
        return True

    def acknowledge(self) -> int:
        self.owed_nbytes = 0
        return self.heard


class Caller(Delivery):
    """A peer's end. ``send(envelope, message)`` sends both, or only the envelope if None follows.

    What it sends without a connection is lost, and sent again over the next connection.
    """

    def __init__(self, life: int, send: Callable[[bytes, Any], object]) -> None:
        super().__init__()
        self._life = life
        self._connection = 0
        self._send = send

    def connected(self, connection: int) -> None:
        """There is a new connection."""
        self._connection = connection
        self._post(0, None)  # tells the scheduler of the connection
        for serial, message in self.kept():
            self._post(serial, message)

    def send(self, message: Any, nbytes: int) -> None:
        """Send a message, which the scheduler gets once, after all earlier ones."""
        self._post(self.number(message, nbytes), message)

    def send_now(self, message: Any) -> None:
        """Send a message without a number, which is lost if there is no connection."""
        self._post(0, message)

    def hear(self, envelope: Envelope, nbytes: int) -> bool:
        """Whether the message behind an envelope is new. Raises ProtocolError."""
        is_new = self.take(envelope.serial, envelope.heard, nbytes)
        if self.owed_nbytes:
            self._post(0, None)
        return is_new

    def _post(self, serial: int, message: Any) -> None:
        envelope = Envelope(self._life, self._connection, serial, self.acknowledge())
        self._send(envelope.encode(), message)


class _Conversation:
    def __init__(self, life: int) -> None:
        self.life = life
        self.connection = -1
        self.route = b""
        self.delivery = Delivery()


class Conversations:
    """The scheduler's end of all conversations; it sends over the last connection of each peer.

    ``send(route, envelope, message)`` sends both, or only the envelope if the message is None.
    Either may get lost.
    """

    def __init__(self, send: Callable[[bytes, bytes, Any], object]) -> None:
        self._send = send
        self._lives: Dict[str, Dict[int, _Conversation]] = {}  # of each peer, the latest last
        self._owing: Set[_Conversation] = set()

    def hear(self, peer: str, route: bytes, envelope: Envelope, nbytes: int) -> bool:
        """Whether the message behind an envelope is new. Raises ProtocolError."""
        lives = self._lives.setdefault(peer, {})
        conversation = lives.get(envelope.life)
        if conversation is None:
            conversation = lives[envelope.life] = _Conversation(envelope.life)
            if len(lives) > _MAX_LIVES:
                del lives[next(iter(lives))]
        delivery = conversation.delivery
        is_new = delivery.take(envelope.serial, envelope.heard, nbytes)
        if envelope.connection > conversation.connection:
            conversation.connection, conversation.route = envelope.connection, route
            for serial, message in delivery.kept():
                self._post(conversation, serial, message)
        if delivery.owed_nbytes >= ACKNOWLEDGE_NBYTES:
            self._post(conversation, 0, None)
        elif delivery.owed_nbytes:
            self._owing.add(conversation)
        return is_new

    def send(self, peer: str, message: Any, nbytes: int) -> None:
        """Send a message to the latest life of a peer; to none if the peer never spoke."""
        for conversation in list(self._lives.get(peer, {}).values())[-1:]:
            self._post(conversation, conversation.delivery.number(message, nbytes), message)

    def send_now(self, peer: str, message: Any) -> None:
        """Send a message without a number, which is lost if there is no connection."""
        for conversation in list(self._lives.get(peer, {}).values())[-1:]:
            self._post(conversation, 0, message)

    def acknowledge(self, peer: str) -> None:
        """Acknowledge all that a peer has sent."""
        for conversation in self._lives.get(peer, {}).values():
            if conversation in self._owing:
                self._post(conversation, 0, None)

    def acknowledge_all(self) -> None:
        for conversation in list(self._owing):
            self._post(conversation, 0, None)

    def _post(self, conversation: _Conversation, serial: int, message: Any) -> None:
        self._owing.discard(conversation)
        heard = conversation.delivery.acknowledge()
        envelope = Envelope(conversation.life, conversation.connection, serial, heard)
        self._send(conversation.route, envelope.encode(), message)
