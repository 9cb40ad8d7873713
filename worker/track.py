"""Where a worker's script is in one store: what the scheduler compares (scheduler/positions.py).

Counted in the script's order, also of what MXNet's engine has not done yet. The script's threads
write, the communication thread reads: each attribute is replaced as a whole.
"""

from baryon.scheduler.control import Position

__all__ = ["Track"]


class Track:
    """Of store number ``store``, an asynchronous one if ``is_async``: its pushes do not count."""

    def __init__(self, store: int, is_async: bool) -> None:
        self._store = store
        self._is_async = is_async
        self._now = (0, 0)
        self._event = (0, "", (0, 0))

    def event(self, what: str) -> None:
        """This worker has done what all workers do at this place of the script."""
        self._event = (self._event[0] + 1, what, self._now)

    def push(self) -> None:
        if not self._is_async:
            self.meet()

    def meet(self) -> None:
        joins, calls = self._now
        self._now = (joins, calls + 1)

    def join(self) -> None:
        """Pushes count from here: up to here, some workers may have had fewer."""
        self._now = (self._now[0] + 1, 0)

    def position(self) -> Position:
        now = self._now  # first, since an event must not seem to be missing where it has been
        events, last, at = self._event
        return Position(self._store, events, last, at, now)
