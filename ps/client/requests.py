"""Questions to one server that are answered one by one, like calls. Pure.

They serve what is rare and belongs to no round: optimizer states, and the ends of epochs. After a
new connection the questions without an answer are asked again, so a server must recognise a repeat.
"""

import itertools
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

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
    """A question, ``make(serial)``, to a server.

    ``done()`` is called when the request has its ``answer`` and ``payload``, or when everything
    has failed and it never will.
    """

    def __init__(
        self,
        server: int,
        make: Callable[[int], wire.Message],
        sent_payload: Optional[np.ndarray] = None,
        done: Callable[[], object] = lambda: None,
    ) -> None:
        self.server = server
        self.make = make
        self.sent_payload = sent_payload
        self.done = done
        self.answer: Any = None
        self.payload = np.empty(0, np.uint8)


class Requests:
    """The requests without an answer."""

    def __init__(self) -> None:
        self._serials = itertools.count(1)
        self._pending: Dict[int, Request] = {}

    def add(self, request: Request) -> wire.Message:
        """Returns the message to send."""
        serial = next(self._serials)
        self._pending[serial] = request
        return request.make(serial)

    def pending(self, server: int) -> Iterator[Tuple[wire.Message, Optional[np.ndarray]]]:
        """(message, payload) of each request that waits for a server."""
        for serial, request in self._pending.items():
            if request.server == server:
                yield request.make(serial), request.sent_payload

    def answered(self, server: int, answer: Any, payload: Optional[np.ndarray]) -> None:
        """Take a server's answer. Raises ProtocolError if nobody has asked it that question."""
        serial = answer.serial
        request = self._pending.get(serial)
        if request is None:
            return  # a repeat
        if request.server != server or not isinstance(answer, _ANSWERS[type(request.make(serial))]):
            raise ProtocolError(
                f"{type(answer).__name__} number {serial} answers a question to another server"
            )
        del self._pending[serial]
        request.answer = answer
        if payload is not None:
            request.payload = payload
        request.done()

    def fail(self) -> None:
        """End all requests without an answer."""
        pending, self._pending = self._pending, {}
        for request in pending.values():
            request.done()
