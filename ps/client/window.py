"""How much of what a worker sends may be under way, over all its links together. Pure.

Whatever waits here can still be overtaken by something more urgent. The window also keeps workers
together. A server's answer needs all workers: what one of them sends ahead on one link keeps that
link busy with bytes that nobody can use yet, while another link waits.

Workers that send in different orders could each wait for the other's window to open. So the window
opens once more after `_PATIENCE_S` without an answer.
"""

import heapq
import itertools
from typing import Any, List, Optional, Tuple

__all__ = ["Window"]

_PATIENCE_S = 0.1


class Window:
    """Items on their way out, the most urgent first. ``due`` is when to call `pass_time`."""

    def __init__(self, nbytes: int) -> None:
        self.due: Optional[float] = None
        self._nbytes = nbytes
        self._waiting: List[Tuple[int, int, int, Any]] = []
        self._order = itertools.count()
        self._unanswered_nbytes = 0
        self._num_answers = 0
        self._num_answers_before = 0  # when it was full

    def put(self, priority: int, nbytes: int, item: Any) -> None:
        """Add an item whose ``nbytes`` will be `answered`."""
        heapq.heappush(self._waiting, (-priority, next(self._order), nbytes, item))

    def answered(self, nbytes: int) -> None:
        self._unanswered_nbytes = max(0, self._unanswered_nbytes - nbytes)
        self._num_answers += 1

    def take(self, now: float) -> List[Any]:
        """The items that may be sent now: those for which there is room, but at least one if
        nothing is under way."""
        leaving: List[Any] = []
        while self._waiting:
            _, _, nbytes, item = self._waiting[0]
            if self._unanswered_nbytes and self._unanswered_nbytes + nbytes > self._nbytes:
                if self.due is None:
                    self.due = now + _PATIENCE_S
                    self._num_answers_before = self._num_answers
                break
            heapq.heappop(self._waiting)
            self._unanswered_nbytes += nbytes
            leaving.append(item)
        return leaving

    def pass_time(self, now: float) -> None:
        """Open, if ``due`` is over and no answer has come since the window was full."""
        if self.due is None or now < self.due:
            return
        self.due = None
        if self._num_answers == self._num_answers_before:
            self._unanswered_nbytes = 0

    def clear(self) -> List[Any]:
        """Forget the items that wait; returns them."""
        waiting, self._waiting = self._waiting, []
        return [item for *_, item in waiting]
