"""Questions of a worker to an owner that are answered one by one, like calls.

For what is rare and not part of any round: optimizer states. Belongs to the reactor's thread; who
asks waits for the request's event in another one. After a new connection what is not answered is
asked again, so servers must take a repeat as a repeat.
"""

import itertools
import threading
from typing import Any, Callable, Dict, Iterator, Optional

import numpy as np

from .. import wire
from ..errors import ProtocolError

__all__ = ["Request", "Requests"]

_ANSWERS: Dict[type, type] = {
    wire.GetState: wire.State,
    wire.PutState: wire.Stored,
    wire.Join: wire.Joined,
}


class Request:
    """``message(serial)`` to a server; ``answer`` and its ``payload`` are there once it is done, or
    it is done without them since everything has failed."""

    def __init__(
        self,
        server: int,
        message: Callable[[int], wire.Message],
        payload: Optional[np.ndarray] = None,
        on_done: Callable[[], object] = lambda: None,
    ) -> None:
        self.server = server
        self.make = message
        self.sent_payload = payload
        self.done = threading.Event()
        self.on_done = on_done  # called in the reactor's thread, if it is answered
        self.answer: Any = None
        self.payload = np.empty(0, np.uint8)


class Requests:
    """Those that are not answered yet."""

    def __init__(self) -> None:
        self._serials = itertools.count(1)
        self._pending: Dict[int, Request] = {}

    def add(self, request: Request) -> wire.Message:
        """Returns the message to send."""
        serial = next(self._serials)
        self._pending[serial] = request
        return request.make(serial)

    def pending(self, server: int) -> Iterator[Any]:
        """(message, payload) of those that wait for a server."""
        for serial, request in self._pending.items():
            if request.server == server:
                yield request.make(serial), request.sent_payload

    def answered(self, server: int, answer: Any, payload: Optional[np.ndarray]) -> None:
        """Take a server's answer; raises ProtocolError if it is to nothing that it was asked."""
        serial = answer.serial
        request = self._pending.get(serial)
        if request is None:
            return  # a repeat
        if request.server != server or not isinstance(answer, _ANSWERS[type(request.make(serial))]):
            raise ProtocolError(
                f"{type(answer).__name__} number {serial}, which was asked of others"
            )
        del self._pending[serial]
        request.answer = answer
        if payload is not None:
            request.payload = payload
        request.on_done()
        request.done.set()

    def fail(self) -> None:
        """Release whoever waits."""
        pending, self._pending = self._pending, {}
        for request in pending.values():
            request.done.set()
