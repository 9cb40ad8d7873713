"""The messages that wait for one peer's socket: the most urgent first, equals in order.

Runs in the reactor's thread and never blocks it.
"""

import heapq
import itertools
from typing import Any, List, Tuple

import zmq

from .reactor import Reactor

__all__ = ["Outbox"]


class Outbox:
    """Hands messages to a socket as fast as its high-water mark allows."""

    def __init__(self, reactor: Reactor, socket: zmq.Socket) -> None:
        self._reactor = reactor
        self._socket = socket
        self._queue: List[Tuple[int, int, List[Any]]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, frames: List[Any], priority: int = 0) -> None:
        """Queue a message; `flush` sends it."""
        heapq.heappush(self._queue, (-priority, next(self._order), frames))

    def flush(self) -> None:
        """Send as many messages as the socket takes now, and the others when it takes more."""
        while self._queue:
            try:
                self._socket.send_multipart(self._queue[0][2], zmq.NOBLOCK)
            except zmq.Again:
                self._reactor.watch_writable(self._socket, self.flush)
                return
            heapq.heappop(self._queue)
        self._reactor.unwatch_writable(self._socket)
