"""Whether all workers do the same at the same places of their scripts. Pure.

A key that one worker initialises alone is waited for by whoever pulls it, and by those who wait for
that worker in a round: for ever, and none of them sees why. But each knows how far its script is. A
worker that has gone further than the place where another has initialised a key, and has not done so
itself, never will.
"""

from typing import Dict, Iterable, Tuple

from .control import Position

__all__ = ["Positions"]


MAX_STORES = 32  # a script that goes on with a new store each epoch has one after the other


class Positions:
    """As far as is known: those of every worker in every store."""

    def __init__(self) -> None:
        self._known: Dict[int, Dict[int, Position]] = {}  # by store and rank
        self._ahead: Dict[int, Tuple[int, Position]] = {}  # by store: who first had the most events

    def take(self, rank: int, positions: Iterable[Position]) -> str:
        """Where worker ``rank`` is now; returns what is wrong about that, or nothing."""
        for position in positions:
            self._make_room(position.store)
            known = self._known.setdefault(position.store, {})
            known[rank] = position
            ahead, there = self._ahead.setdefault(position.store, (rank, position))
            others: Iterable[int] = (rank,)
            if position.events > there.events:
                ahead, there = self._ahead[position.store] = (rank, position)
                others = known
            for other in others:
                if known[other].events < there.events and known[other].now > there.at:
                    return _text(other, known[other], ahead, there)
        return ""

    def _make_room(self, store: int) -> None:
        """Forget the oldest store if there are too many."""
        if store not in self._known and len(self._known) >= MAX_STORES:
            oldest = min(self._known)
            del self._known[oldest], self._ahead[oldest]


def _text(rank: int, position: Position, ahead: int, there: Position) -> str:
    more = there.events - position.events - 1
    before = f" (and {more} other{'s' * (more > 1)} before it)" if more else ""
    return (
        f"worker {ahead} has {there.last}{before} in store {there.store}, which worker {rank} has "
        "gone on without; all workers must call init, set_data and load_parameters alike, also if "
        "it is rank 0's values that count"
    )
