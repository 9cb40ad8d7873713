"""Meetings of workers: each brings a value, and when all have arrived, each gets all values. Pure.

A meeting has a name, which is free again once the meeting is over. Several meetings may be open at
once, and workers may come to them in any order.
"""

from typing import Dict, List, Set

from .control.messages import Gather, Gathered

__all__ = ["Meetings", "Wait"]


MAX_OPEN = 1000  # each costs a waiting thread in every worker, and a value from every worker


class Wait:
    """Workers that wait for other workers.

    ``what`` the others have to do: ``create a dist kvstore``. ``arrived`` maps the rank of each
    worker that waits to the value that it brought.
    """

    __slots__ = ("arrived", "since", "was_told", "what")

    def __init__(self, what: str, now: float) -> None:
        self.what = what
        self.arrived: Dict[int, bytes] = {}
        self.since = now
        self.was_told = False  # the user was

    def forgive(self, absence: float, now: float) -> None:
        """Do not count an ``absence`` of the scheduler as waiting."""
        self.since = min(now, self.since + absence)


class _Meeting(Wait):
    __slots__ = ("call", "where")

    def __init__(self, message: Gather, now: float) -> None:
        self.call = message.call
        self.where = f"{message.call} ({message.name})"
        super().__init__(f"reach {self.where}", now)


class Meetings:
    """The open meetings of a job."""

    def __init__(self) -> None:
        self._open: Dict[str, _Meeting] = {}

    def arrive(self, rank: int, message: Gather, now: float) -> str:
        """Worker ``rank`` has arrived; returns what is wrong with that, or an empty string."""
        meeting = self._open.get(message.name)
        if meeting is None and len(self._open) >= MAX_OPEN:
            return (
                f"calls {message.call} while {MAX_OPEN} other meetings are open, which is the limit"
            )
        if meeting is None:
            meeting = self._open[message.name] = _Meeting(message, now)
        if message.call != meeting.call:
            other = min(meeting.arrived)
            return (
                f"calls {message.call} where worker {other} calls {meeting.where}; "
                "all workers must make the same calls in the same order"
            )
        if rank in meeting.arrived:
            return f"calls {meeting.where} from two threads at once; only one thread may"
        meeting.arrived[rank] = message.value
        return ""

    def end(self, active: Set[int]) -> List[Gathered]:
        """End the meetings to which all ``active`` workers have come; returns their results."""
        complete = [n for n, meeting in self._open.items() if active <= meeting.arrived.keys()]
        return [
            Gathered(name, tuple(sorted(self._open.pop(name).arrived.items()))) for name in complete
        ]

    def waits(self) -> List[Wait]:
        return list(self._open.values())

    def status(self, num_workers: int) -> List[str]:
        """A line for each open meeting."""
        return [f"{m.where}: {len(m.arrived)} of {num_workers}" for m in self._open.values()]
