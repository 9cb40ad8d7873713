"""Checks that all workers initialise the same keys at the same places of their scripts. Pure.

If only some workers initialise a key, the others wait for ever: those that pull the key, and those
that wait in a round for a worker that pulls it. None of them can see why. But each worker knows how
far its script is. If it is past the place where another worker initialised a key, and has not
initialised that key itself, it never will.
"""

from typing import Dict, Iterable, Tuple

from .control import Position

__all__ = ["Positions"]


MAX_STORES = 32  # that are remembered; a script may make a new store in each epoch


class Positions:
    """The last known position of every worker in every store."""

    def __init__(self) -> None:
        self._known: Dict[int, Dict[int, Position]] = {}  # by store and rank
        self._ahead: Dict[
            int, Tuple[int, Position]
        ] = {}  # by store: the first worker with the most events

    def take(self, rank: int, positions: Iterable[Position]) -> str:
        """Worker ``rank`` is here now; returns what is wrong with that, or an empty string."""
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
        f"worker {ahead} has {there.last}{before} in store {there.store}, but worker {rank} has "
        "gone on without it; all workers must make the same calls of init, set_data and "
        "load_parameters, even where only rank 0's values count"
    )
