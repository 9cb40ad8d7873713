"""How long each server has been out of reach. Pure.

An outage ends when a server answers, not when a connection comes up: a connection that breaks under
its load again and again is of no use. Time in which this process was suspended does not count.
"""

from typing import Iterator, Sequence, Tuple

from ..waits import AwakeClock

__all__ = ["Outages"]

_LOOKS = 10  # at the links, within ``silence_s``


class Outages:
    """Outages of ``num_servers`` servers, each at most ``silence_s`` long.

    Call `look` every ``interval_s``.
    """

    def __init__(self, num_servers: int, silence_s: float, now: float) -> None:
        self.interval_s = silence_s / _LOOKS
        self.down_s = [0.0] * num_servers
        self._silence_s = silence_s
        self._clock = AwakeClock(self.interval_s, now)
        self._last_s = now

    def look(self, now: float, is_up: Sequence[bool]) -> None:
        awake_s = self._clock.look(now)
        elapsed_s, self._last_s = awake_s - self._last_s, awake_s
        for server, up in enumerate(is_up):
            if not up:
                self.down_s[server] += elapsed_s

    def end(self, server: int) -> None:
        """The server has answered: the messages that are sent to it arrive."""
        self.down_s[server] = 0.0

    def is_too_long(self) -> bool:
        return any(down_s > self._silence_s for down_s in self.down_s)

    def long(self) -> Iterator[Tuple[int, float]]:
        """(server, seconds) of the outages that are half as long as one may be, or longer: their
        cause may be the same."""
        for server, down_s in enumerate(self.down_s):
            if down_s > self._silence_s / 2:
                yield server, down_s
