"""Time that counts only while this process is awake.

A job that was stopped for a night (Ctrl-Z, a machine that slept) has not waited for that long.
"""

import threading

__all__ = ["AwakeClock", "wait_awake"]

_SLICE_S = 5.0


def wait_awake(event: threading.Event, limit_s: float) -> bool:
    """As ``event.wait(limit_s)``."""
    while not event.wait(min(limit_s, _SLICE_S)):
        limit_s -= _SLICE_S
        if limit_s <= 0:
            return False
    return True


class AwakeClock:
    """Is looked at every ``interval_s`` at least, or nothing has run in between. Pure."""

    def __init__(self, interval_s: float, now: float) -> None:
        self._longest_s = 2 * interval_s  # a busy process is late
        self._last = now
        self._seconds = now

    def look(self, now: float) -> float:
        """Seconds, from ``now`` of the beginning on."""
        self._seconds += min(now - self._last, self._longest_s)
        self._last = now
        return self._seconds
