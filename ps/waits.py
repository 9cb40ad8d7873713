"""Time that counts only while this process is awake.

A job that was stopped overnight (Ctrl-Z, a sleeping machine) has not waited all night.
"""

import threading

__all__ = ["AwakeClock", "wait_awake"]

_SLICE_S = 5.0


def wait_awake(event: threading.Event, limit_s: float) -> bool:
    """Like ``event.wait(limit_s)``, in time awake."""
    while not event.wait(min(limit_s, _SLICE_S)):
        limit_s -= _SLICE_S
        if limit_s <= 0:
            return False
    return True


class AwakeClock:
    """A clock that is read at least every ``interval_s``; in a longer gap the process did not run,
    and the gap does not count. Pure."""

    def __init__(self, interval_s: float, now: float) -> None:
        self._longest_s = 2 * interval_s  # a busy process is late
        self._last = now
        self._seconds = now

    def look(self, now: float) -> float:
        """Seconds awake, counted from the ``now`` of the beginning."""
        self._seconds += min(now - self._last, self._longest_s)
        self._last = now
        return self._seconds
