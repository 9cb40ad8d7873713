"""Where workers meet: each brings a value, and when all are there, everyone gets all of them. Pure.

A meeting is known by its name. Once it is over the name is free for the next occasion. Several may
be under way at once; nothing is assumed of the order in which workers come to them.
"""

from typing import Dict, List, Set

from .control.messages import Gather, Gathered

__all__ = ["Meetings", "Wait"]


MAX_OPEN = 1000  # each is a thread that waits, and a value of every worker's


class Wait:
    """Workers that wait for others.

    ``what`` those others have to do, as in ``create a dist kvstore``; ``arrived`` has what each
    worker has brought, by its rank.
    """

    __slots__ = ("arrived", "since", "was_told", "what")

    def __init__(self, what: str, now: float) -> None:
        self.what = what
        self.arrived: Dict[int, bytes] = {}
        self.since = now
        self.was_told = False  # the user


class _Meeting(Wait):
    __slots__ = ("call", "where")

    def __init__(self, message: Gather, now: float) -> None:
        self.call = message.call
        self.where = f"{message.call} ({message.name})"
        super().__init__(f"reach {self.where}", now)


class Meetings:
    """Those of a job that are under way."""

    def __init__(self) -> None:
        self._open: Dict[str, _Meeting] = {}

    def arrive(self, rank: int, message: Gather, now: float) -> str:
        """Worker ``rank`` is there; returns what is wrong about that, or nothing."""
        meeting = self._open.get(message.name)
        if meeting is None and len(self._open) >= MAX_OPEN:
            return f"calls {message.call}, the {MAX_OPEN + 1}th that is under way at the same time"
        if meeting is None:
            meeting = self._open[message.name] = _Meeting(message, now)
        if message.call != meeting.call:
            other = min(meeting.arrived)
            return (
                f"calls {message.call} where worker {other} calls {meeting.where}; "
                "all workers must make the same calls in the same order"
            )
        if rank in meeting.arrived:
            return f"calls {meeting.where} twice at the same time; one thread must do it"
        meeting.arrived[rank] = message.value
        return ""

    def end(self, active: Set[int]) -> List[Gathered]:
        """End those at which all ``active`` workers are; returns what each worker is to get."""
        complete = [n for n, meeting in self._open.items() if active <= meeting.arrived.keys()]
        return [
            Gathered(name, tuple(sorted(self._open.pop(name).arrived.items()))) for name in complete
        ]

    def waits(self) -> List[Wait]:
        return list(self._open.values())

    def status(self, num_workers: int) -> List[str]:
        """A line for each."""
        return [f"{m.where}: {len(m.arrived)} of {num_workers}" for m in self._open.values()]
