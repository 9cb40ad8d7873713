"""An agent's or a task's end of its conversation with the scheduler; downlink.py is the other end.

Nothing that it sends is lost with a connection (delivery.py). Everything runs in the reactor's
thread.
"""

import os
import time
from typing import Callable, List, Optional, Union

import zmq

from baryon.ps import Dialer, KeyPair, Message, ProtocolError, Reactor, secure_client

from . import messages
from .credentials import AgentConfig, Credentials
from .delivery import WINDOW_NBYTES, Caller, decode_envelope

__all__ = ["Uplink"]


class Uplink:
    """Connects at once, and again when a connection is lost.

    ``on_message(message)`` is called for each message, once and in order; ``on_heard()`` when the
    scheduler has acknowledged something; ``on_unreadable(error)`` when a message cannot be read.
    ``last_heard`` is the time of the last message, on time.monotonic's clock.
    """

    def __init__(
        self,
        reactor: Reactor,
        context: zmq.Context,
        config: Union[AgentConfig, Credentials],
        on_message: Callable[[Message], None],
        on_heard: Callable[[], None] = lambda: None,
        on_unreadable: Callable[[ProtocolError], None] = lambda error: None,
    ) -> None:
        self.last_heard = time.monotonic()
        self._on_message = on_message
        self._on_heard = on_heard
        self._on_unreadable = on_unreadable
        keys = KeyPair(config.public_key, config.secret_key)
        self._caller = Caller(int.from_bytes(os.urandom(7), "little"), self._post)
        self._dialer = Dialer(
            reactor,
            context,
            config.endpoint,
            config.silence_s,
            lambda socket: secure_client(socket, keys, config.scheduler_key),
            self._on_up,
            self._on_frames,
        )

    @property
    def is_full(self) -> bool:
        """Whether so much is unacknowledged that the agent should read no more output for now."""
        return self._caller.kept_nbytes > WINDOW_NBYTES

    @property
    def is_done(self) -> bool:
        """Whether the scheduler has all that was sent."""
        return not self._caller.kept_nbytes

    def send(self, message: Message) -> None:
        """Send a message, which the scheduler gets once, after all earlier ones."""
        frame = messages.CONTROL.encode(message)
        self._caller.send(frame, len(frame))
        self._dialer.flush()

    def send_now(self, message: Message) -> None:
        """Send a message, which is lost if there is no connection."""
        self._caller.send_now(messages.CONTROL.encode(message))
        self._dialer.flush()

    def close(self) -> None:
        self._dialer.close()

    def _on_up(self) -> None:
        self._caller.connected(self._dialer.connection)

    def _post(self, envelope: bytes, frame: Optional[bytes]) -> None:
        self._dialer.put([envelope] if frame is None else [envelope, frame])

    def _on_frames(self, frames: List[zmq.Frame]) -> None:
        self.last_heard = time.monotonic()
        kept_nbytes = self._caller.kept_nbytes
        message: Optional[Message] = None
        try:
            envelope = decode_envelope(frames[0].buffer)
            body = frames[1].buffer if len(frames) > 1 else b""
            if self._caller.hear(envelope, len(body)) and body:
                message = messages.CONTROL.decode(body)
        except ProtocolError as error:
            self._on_unreadable(error)
        self._dialer.flush()  # an acknowledgement
        if self._caller.kept_nbytes < kept_nbytes:
            self._on_heard()
        if message is not None:
            self._on_message(message)
