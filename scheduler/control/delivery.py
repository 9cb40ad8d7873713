"""No control message is lost with the connection that carried it, and none is heard twice. Pure.

The scheduler and one *life* of a peer (one process; another one with the same keys is another life)
number what they send to each other, keep it until the other end has it, and send it again, in
order, on the peer's next connection. An `Envelope` goes before each message; it also acknowledges.
Signs of life have no number: late ones are of no use. What is not acknowledged is counted, so that
whoever sends much can wait.

Rejected: to send again after some time without an acknowledgement. A busy scheduler would get
everything twice; heartbeats of ZeroMQ say when a connection is lost.
"""

from collections import deque
from typing import Any, Callable, Deque, Dict, List, Set, Tuple

import msgspec

from baryon.ps import ProtocolError

__all__ = ["WINDOW_NBYTES", "Caller", "Conversations", "Delivery", "Envelope", "decode_envelope"]

WINDOW_NBYTES = 1 << 20
"""Who passes on what others write waits while so much is not acknowledged."""

ACKNOWLEDGE_NBYTES = WINDOW_NBYTES // 4
"""So much, and it is acknowledged at once; less may wait for a moment."""

_MAX_LIVES = 8  # of one peer that are remembered


class Envelope(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """``connection`` counts those of this ``life``; ``serial`` is the number of the message that
    follows, 0 if that has none; ``heard`` is the last number that has come from the other end."""

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
    """One end of a conversation. A message is whatever is sent; its size is given with it."""

    def __init__(self) -> None:
        self.heard = 0
        self.owed_nbytes = 0  # heard and not acknowledged
        self.kept_nbytes = 0
        self._kept: Deque[Tuple[Any, int]] = deque()
        self._last = 0  # the number of the last one

    def __repr__(self) -> str:
        return f"Delivery({self.heard} heard, {self._last} sent, {len(self._kept)} kept)"

    def number(self, message: Any, nbytes: int) -> int:
        """Keep a message that is sent; returns its number."""
        self._last += 1
        self._kept.append((message, nbytes))
        self.kept_nbytes += nbytes
        return self._last

    def kept(self) -> List[Tuple[int, Any]]:
        """(number, message) of all that the other end may lack: a new connection begins so."""
        first = self._last - len(self._kept) + 1
        return [(first + index, message) for index, (message, _) in enumerate(self._kept)]

    def take(self, serial: int, heard: int, nbytes: int) -> bool:
        """What an envelope says, before a message of so many bytes; returns whether it is new.

        Raises ProtocolError if that cannot be.
        """
        if heard > self._last or serial > self.heard + 1:
            raise ProtocolError(f"message {serial}, {heard} heard: impossible for {self!r}")
        while self._last - len(self._kept) < heard:
            self.kept_nbytes -= self._kept.popleft()[1]
        if not serial:
            return True
        self.owed_nbytes += nbytes  # also for a repeat: it was sent for want of this
        if serial <= self.heard:
            return False
        self.heard = serial
        return True

    def acknowledge(self) -> int:
        self.owed_nbytes = 0
        return self.heard


class Caller(Delivery):
    """A peer's end. ``send(envelope, message)`` does it; the message may be None.

    What is sent while there is no connection is lost, and sent again over the next.
    """

    def __init__(self, life: int, send: Callable[[bytes, Any], object]) -> None:
        super().__init__()
        self._life = life
        self._connection = 0
        self._send = send

    def connected(self, connection: int) -> None:
        """There is another connection."""
        self._connection = connection
        self._post(0, None)  # or the scheduler would not know of it
        for serial, message in self.kept():
            self._post(serial, message)

    def send(self, message: Any, nbytes: int) -> None:
        """The scheduler gets it, once, after all that was sent before."""
        self._post(self.number(message, nbytes), message)

    def send_now(self, message: Any) -> None:
        """Without a number: now or never."""
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
    """The scheduler's with all its peers: each is sent to where its last connection is.

    ``send(route, envelope, message)`` does it; the message may be None, and may get lost.
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
        """To the latest life of a peer, sooner or later; to none if nothing was heard of it."""
        for conversation in list(self._lives.get(peer, {}).values())[-1:]:
            self._post(conversation, conversation.delivery.number(message, nbytes), message)

    def send_now(self, peer: str, message: Any) -> None:
        """Without a number: now or never."""
        for conversation in list(self._lives.get(peer, {}).values())[-1:]:
            self._post(conversation, 0, message)

    def acknowledge(self, peer: str) -> None:
        """Acknowledge what a peer has sent."""
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
