"""How much of what a worker sends may be under way, over all its links together.

What waits here can still be overtaken by what is more urgent. And workers stay together: a
server's answer needs all of them, so what one sends ahead of the others on one link keeps that link
busy with what nobody can use yet, while another link waits for it.

Workers that send in different orders could wait for each other's windows to open. So after
`_PATIENCE_S` without any answer the window opens once more.
"""

import heapq
import itertools
from typing import Any, Callable, List, Tuple

from ..transport import Reactor

__all__ = ["Window"]

_PATIENCE_S = 0.1


class Window:
    """Calls ``send(*item)`` for what was put into it, the most urgent first, as it opens, and
    ``flush()`` after the last one."""

    def __init__(
        self,
        reactor: Reactor,
        nbytes: int,
        send: Callable[..., None],
        flush: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._nbytes = nbytes
        self._send = send
        self._flush = flush
        self._waiting: List[Tuple[int, int, int, Tuple[Any, ...]]] = []
        self._order = itertools.count()
        self._unanswered_nbytes = 0
        self._num_answers = 0
        self._is_looking = False

    def put(self, priority: int, nbytes: int, *item: Any) -> None:
        """``nbytes`` of it are to be `answered`."""
        heapq.heappush(self._waiting, (-priority, next(self._order), nbytes, item))

    def answered(self, nbytes: int) -> None:
        self._unanswered_nbytes = max(0, self._unanswered_nbytes - nbytes)
        self._num_answers += 1

    def flush(self) -> None:
        """Send what the window has room for, but something in any case."""
        has_sent = False
        while self._waiting:
            _, _, nbytes, item = self._waiting[0]
            if self._unanswered_nbytes and self._unanswered_nbytes + nbytes > self._nbytes:
                self._look_later()
                break
            heapq.heappop(self._waiting)
            self._unanswered_nbytes += nbytes
            self._send(*item)
            has_sent = True
        if has_sent:
            self._flush()

    def clear(self) -> List[Tuple[Any, ...]]:
        """Forget what waits; returns it."""
        waiting, self._waiting = self._waiting, []
        return [item for *_, item in waiting]

    def _look_later(self) -> None:
        if self._is_looking:
            return
        self._is_looking = True
        before = self._num_answers

        def look() -> None:
            self._is_looking = False
            if self._num_answers == before:
                self._unanswered_nbytes = 0
            self.flush()

        self._reactor.call_later(_PATIENCE_S, look)
