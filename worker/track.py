"""How far a worker's script is in one store: what the scheduler compares (scheduler/positions.py).

A call counts when the script makes it, even if the engine has not done the work yet. The script's
threads write, and the communication thread reads: each attribute is replaced as a whole.
"""

from baryon.scheduler.control import Position

__all__ = ["Track"]


class Track:
    """The position in store number ``store``. In an asynchronous store pushes do not count."""

    def __init__(self, store: int, is_async: bool) -> None:
        self._store = store
        self._is_async = is_async
        self._now = (0, 0)
        self._event = (0, "", (0, 0))

    def event(self, what: str) -> None:
        """This worker has done something that all workers do at this place of the script."""
        self._event = (self._event[0] + 1, what, self._now)

    def push(self) -> None:
        if not self._is_async:
            self.meet()

    def meet(self) -> None:
        joins, calls = self._now
        self._now = (joins, calls + 1)

    def join(self) -> None:
        """Count calls from 0 again: before this point some workers may have pushed less often."""
        self._now = (self._now[0] + 1, 0)

    def position(self) -> Position:
        now = self._now  # read first: otherwise an event could seem to be missing
        events, last, at = self._event
        return Position(self._store, events, last, at, now)
