"""The scheduler's end of its conversations with agents and tasks; control/uplink.py is theirs.

It owns the socket and knows each sender by its CURVE key. Everything runs in the reactor's thread.
"""

import os
from typing import Any, Callable, Dict, List, Optional

import zmq

from baryon.ps import (
    Authenticator,
    KeyPair,
    Message,
    ProtocolError,
    Reactor,
    UsageError,
    bind_to,
    endpoint_of,
    secure_server,
)

from .control import Conversations, decode_envelope, messages

__all__ = ["Downlink"]

_MAX_MESSAGE_NBYTES = messages.MAX_VALUE_NBYTES + (64 << 10)
_LINGER_MS = 500


class Downlink:
    """``public_keys`` are those of all peers, by name.

    ``on_message(peer, message)`` is called for each message, once and in order;
    ``on_unreadable(peer, error)`` for what is none.
    """

    def __init__(
        self,
        keys: KeyPair,
        public_keys: Dict[str, str],
        on_message: Callable[[str, Message], None],
        on_unreadable: Callable[[str, ProtocolError], None],
    ) -> None:
        self._on_message = on_message
        self._on_unreadable = on_unreadable
        self._conversations = Conversations(self._post)
        self._encoded: Optional[Message] = None
        self._frame = zmq.Frame()  # of that message
        self._context = zmq.Context()
        peers = {public: peer for peer, public in public_keys.items()}
        self._authenticator: Authenticator[str] = Authenticator(self._context, peers)
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = _LINGER_MS
        self._socket.router_mandatory = True
        self._socket.sndhwm = 0  # messages are few and small; a peer that does not read is given up
        self._socket.maxmsgsize = _MAX_MESSAGE_NBYTES
        secure_server(self._socket, keys)

    def bind(self, address: str, port: int) -> str:
        """Listen there too, on any free port if it is 0; returns the endpoint.

        Raises UsageError.
        """
        try:
            return bind_to(self._socket, endpoint_of(address, port or "*"))
        except zmq.ZMQError as error:
            raise UsageError(
                f"the scheduler cannot listen on {address} port {port or '*'}: "
                f"{os.strerror(error.errno or 0)}; choose another --port, or leave it out to have "
                "a free one chosen"
            ) from error

    def receive(self, reactor: Reactor) -> None:
        """From now on, call back for what comes."""
        reactor.receive(self._socket, self._on_frames)

    def send(self, peer: str, message: Message) -> None:
        """Send a message, which the peer gets once, after all earlier ones."""
        frame = self._encode(message)
        self._conversations.send(peer, frame, len(frame))

    def send_now(self, peer: str, message: Message) -> None:
        """Send a message, which is lost if there is no connection."""
        self._conversations.send_now(peer, self._encode(message))

    def acknowledge_all(self) -> None:
        """Acknowledge what was not acknowledged at once. Call now and then."""
        self._conversations.acknowledge_all()

    def close(self) -> None:
        try:
            self._authenticator.stop()
        finally:
            self._context.destroy(linger=_LINGER_MS)

    def _on_frames(self, frames: List[zmq.Frame]) -> None:
        peer = self._authenticator.peer(frames[-1])
        if peer is None:
            return  # cannot happen over CURVE
        try:
            if len(frames) not in (2, 3):
                raise ProtocolError(f"{len(frames) - 1} frames")
            route, envelope = frames[0].bytes, decode_envelope(frames[1].buffer)
            body = frames[2].buffer if len(frames) == 3 else b""
            is_new = self._conversations.hear(peer, route, envelope, len(body))
            if not is_new or not body:
                return
            message = messages.CONTROL.decode(body)
        except ProtocolError as error:
            self._on_unreadable(peer, error)
            return
        self._on_message(peer, message)
        if not isinstance(message, messages.Output):  # outputs may be many, and can wait
            self._conversations.acknowledge(peer)

    def _post(self, route: bytes, envelope: bytes, frame: Any) -> None:
        """A message that gets lost is sent again when its peer has another connection."""
        frames = [route, envelope] if frame is None else [route, envelope, frame]
        try:
            self._socket.send_multipart(frames, copy=False)
        except zmq.ZMQError:
            pass  # that connection has gone

    def _encode(self, message: Message) -> zmq.Frame:
        """Its frame; a message to many peers is encoded, and lies in memory, once."""
        if message is not self._encoded:
            self._encoded = message
            self._frame = zmq.Frame(messages.CONTROL.encode(message), copy=True)
        return self._frame
