"""Notices rounds that wait too long, so that a job ends with a name instead of hanging.

Pure: it is told what waits now, and answers what to say.
"""

from typing import Callable, Dict, Iterable, List, NamedTuple, Tuple

from .slot import Wait

__all__ = ["Stall", "StallWatch"]


_Name = Tuple[int, str, int]


class Stall(NamedTuple):
    """A wait that has lasted ``seconds``; ``is_fatal`` once it reached the job's limit."""

    wait: Wait
    seconds: float
    is_fatal: bool

    def text(self, name_of: Callable[[int], str]) -> str:
        """It, for people; ``name_of`` a child is what they call it."""
        who = " and ".join(map(name_of, self.wait.missing)) or "a server"
        what = f"round {self.wait.round} of key {self.wait.key}"
        if self.wait.round == 0:
            what = f"the initial value of key {self.wait.key}"
        line = f"{name_of(self.wait.child)} has waited {self.seconds:.0f} s for {who} in {what}"
        if self.is_fatal:
            line += "; all workers must push the same keys equally often, or raise --timeout"
        return line


class StallWatch:
    """Reports a wait once when it is ``warn_s`` old and once when it is ``limit_s`` old."""

    def __init__(self, warn_s: float, limit_s: float) -> None:
        self._warn_s = warn_s
        self._limit_s = limit_s
        self._since: Dict[_Name, Tuple[float, bool, bool]] = {}  # first seen, warned, fatal

    def observe(self, waits: Iterable[Wait], now: float) -> List[Stall]:
        """Take the waits of this moment; what has moved since the last time starts anew."""
        since: Dict[_Name, Tuple[float, bool, bool]] = {}
        stalls = []
        for wait in waits:
            name = (wait.child, wait.key, wait.round)  # whoever is missing meanwhile
            start, was_warned, was_fatal = self._since.get(name, (now, False, False))
            seconds = now - start
            is_fatal = seconds >= self._limit_s
            is_late = is_fatal or seconds >= self._warn_s
            if (is_fatal and not was_fatal) or (is_late and not was_warned):
                stalls.append(Stall(wait, seconds, is_fatal))
            since[name] = (start, was_warned or is_late, was_fatal or is_fatal)
        self._since = since
        return stalls
