"""Questions of a worker to an owner that are answered one by one, like calls.

For what is rare and not part of any round: optimizer states. Belongs to the reactor's thread; who
asks waits for the request's event in another one. After a new connection what is not answered is
asked again, so servers must take a repeat as a repeat.
"""

import itertools
import threading
from typing import Any, Callable, Dict, Iterator, Optional

import numpy as np

from . import wire

__all__ = ["Request", "Requests"]


class Request:
    """``message(serial)`` to a server; ``answer`` and its ``payload`` are there once it is done."""

    def __init__(
        self, server: int, message: Callable[[int], wire.Message], payload: Optional[np.ndarray]
    ) -> None:
        self.server = server
        self.make = message
        self.sent_payload = payload
        self.done = threading.Event()
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

    def answered(self, serial: int, answer: Any, payload: Optional[np.ndarray]) -> None:
        request = self._pending.pop(serial, None)
        if request is None:
            return  # a repeat
        request.answer = answer
        if payload is not None:
            request.payload = payload
        request.done.set()

    def fail(self) -> None:
        """Release whoever waits."""
        pending, self._pending = self._pending, {}
        for request in pending.values():
            request.done.set()
