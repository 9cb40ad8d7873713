"""The state of one batch job, in which the scheduler's thread and the job's own thread meet. Pure.

A state has two halves. The `Stage` is what the manager has done. It changes by the table `NEXT`;
an event that the table does not list is a bug. The `Wish` is what the scheduler wants. Wishes are
ordered, and a state never goes back to a smaller one. (One flat enum would need a name for each of
the 25 pairs.)
"""

import enum
from typing import Dict, NamedTuple, Tuple

__all__ = ["NEXT", "BatchState", "Event", "Stage", "Wish"]


class Stage(enum.Enum):
    SUBMITTING = "has not answered the submission"
    REFUSED = "did not take the job, or may not have"
    TAKEN = "has the job"
    TOLD = "has been told to cancel the job"
    OVER = "says that the job is over"


class Event(enum.Enum):
    """What the manager has done. ``ENDED``: nothing more is to be expected of it."""

    TAKEN = "took the job"
    TOLD = "was told to cancel the job"
    ENDED = "ended the job"


class Wish(enum.IntEnum):
    """What the scheduler wants."""

    FOLLOW = 0
    HURRY = 1  # some agents have ended or were released: ask the manager often
    LET_GO = 2  # all agents were released: the end of the job is no trouble
    CANCEL = 3  # the job never started: cancel it
    KILL = 4  # the cluster was killed: cancel the job and wait for its end


NEXT: Dict[Tuple[Stage, Event], Stage] = {
    (Stage.SUBMITTING, Event.TAKEN): Stage.TAKEN,
    (Stage.SUBMITTING, Event.TOLD): Stage.SUBMITTING,  # in case that the submission succeeded
    (Stage.SUBMITTING, Event.ENDED): Stage.REFUSED,
    (Stage.TAKEN, Event.TOLD): Stage.TOLD,
    (Stage.TAKEN, Event.ENDED): Stage.OVER,
    (Stage.TOLD, Event.ENDED): Stage.OVER,
    (Stage.OVER, Event.TOLD): Stage.OVER,  # the job ended while the command ran
}


class BatchState(NamedTuple):
    stage: Stage = Stage.SUBMITTING
    wish: Wish = Wish.FOLLOW

    def after(self, event: Event) -> "BatchState":
        try:
            return self._replace(stage=NEXT[self.stage, event])
        except KeyError:
            raise AssertionError(f"the manager {event.value}, yet {self.stage.value}") from None

    def wishing(self, wish: Wish) -> "BatchState":
        return self._replace(wish=max(self.wish, wish))

    @property
    def is_taken(self) -> bool:
        """Whether the manager has, or had, the job."""
        return self.stage in (Stage.TAKEN, Stage.TOLD, Stage.OVER)

    @property
    def is_hurried(self) -> bool:
        return self.wish >= Wish.HURRY

    @property
    def is_ending(self) -> bool:
        """Whether the scheduler has let go of all hosts."""
        return self.wish >= Wish.LET_GO

    @property
    def is_cancelled(self) -> bool:
        return self.wish >= Wish.CANCEL

    @property
    def is_killed(self) -> bool:
        return self.wish == Wish.KILL
