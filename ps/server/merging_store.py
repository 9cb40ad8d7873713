"""What synchronous stores share: one contribution of each child per round, merged. Pure.

A slice's round is merged when every active child has contributed. Contributions are added in the
children's order, whatever order they arrive in (one that comes early is held), so that a sum has
the same bits in every run. A contribution is the whole slice or some of its rows (rows.py). The sum
has rows if all contributions have. A child that has left counts as having contributed nothing to
the rounds to come.

What becomes of the sum differs: `SyncStore` (sync_store.py) changes the value, and `RisingStore`
(rising_store.py) sends the sum to the servers above.
"""

import abc
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, TypeVar

import numpy as np

from ..answers import Answers
from ..compression import Compression
from ..dtypes import add
from ..errors import ProtocolError
from ..plan import Slice
from ..rows import Part, Rows, add_rows, union
from .slot import Reply, Slot, Wait
from .store import Store

__all__ = ["START", "MergingSlot", "MergingStore"]

START = -1
"""Stands before the first child in the order of additions."""


class MergingSlot(Slot):
    """A slice whose contributions are merged. ``accumulator`` is memory for their sum, if that
    memory outlives a round."""

    __slots__ = ("accumulator", "askers", "held", "round", "sum", "turn", "version")

    def __init__(
        self,
        slice_: Slice,
        value: np.ndarray,
        accumulator: Optional[np.ndarray],
        turn: Optional[int],
    ) -> None:
        super().__init__(slice_, value)
        self.round = 0  # rounds completed
        self.turn = turn  # the child to be added next; None: all are
        self.version: Optional[int] = None  # the one that worker 0's contribution has named
        self.sum: Optional[Part] = None  # of the children before ``turn``
        self.accumulator = accumulator
        self.held: Dict[int, Part] = {}  # contributions that wait for their turn
        # child that has contributed -> whether it wants the value when the round is complete; None:
        # it has connected again since, and will ask again
        self.askers: Dict[int, Optional[bool]] = {}

    @property
    def is_waited_at(self) -> bool:
        return bool(self.askers) or super().is_waited_at

    def has(self, child: int) -> bool:
        """Whether ``child`` has contributed to the current round."""
        return child in self.askers

    def add(self, part: Part, out: Optional[np.ndarray]) -> None:
        """Add to the sum, into ``out`` if given; the first part is taken as it is, uncopied.

        A part that can be written to is itself where the sum grows. A sum of rows stays rows.
        """
        if self.sum is None:
            self.sum = part
        elif isinstance(self.sum, Rows):
            self.sum = (
                union(self.sum, part)
                if isinstance(part, Rows)
                else self._with_rows(part, self.sum, out)
            )
        elif isinstance(part, Rows):
            self.sum = self._with_rows(self.sum, part, out)
        else:
            self.sum = add(self.sum, part, out=self._place(self.sum, out))

    def _with_rows(self, dense: np.ndarray, rows: Rows, out: Optional[np.ndarray]) -> np.ndarray:
        place = self._place(dense, out)
        if place is not dense:
            place[:] = dense
        add_rows(place, rows)
        return place

    def _place(self, dense: np.ndarray, out: Optional[np.ndarray]) -> np.ndarray:
        """Where to write a sum that has ``dense`` as a term."""
        if out is not None:
            return out
        if self.accumulator is None:
            if dense.flags.writeable:
                return dense
            self.accumulator = np.empty_like(self.value)
        return self.accumulator


M = TypeVar("M", bound=MergingSlot)


class MergingStore(Store[M]):
    """A store whose pushes are answered, all alike, when every child has pushed."""

    _after: Dict[int, Optional[int]]  # child -> the next one in the order of additions

    # -- events -------------------------------------------------------------------------------

    def _push(
        self, child: int, slots: Sequence[M], parts: Sequence[Part],
        round_: int, want_value: bool, version: Optional[int],
    ) -> List[Reply]:  # fmt: skip
        """Take a contribution; answers everyone for the slices whose round it completes."""
        for slot in slots:  # all of it is refused, or none
            is_new = round_ > slot.round
            if not 0 < round_ <= slot.round + 1 or (is_new and child not in self._active):
                raise ProtocolError(
                    f"{self._names[child]} pushed round {round_} of {slot.slice.key} "
                    f"in round {slot.round + 1}"
                )
        replies: List[Reply] = []
        completed: List[M] = []
        for slot, part in zip(slots, parts):
            if round_ <= slot.round:  # a repeat of something that is counted and done
                where = slot.slice.bucket.index, slot.slice.position
                replies.append(Reply(child, *where, 1, want_value))
                continue
            is_repeat = slot.has(child)
            slot.askers[child] = want_value
            self._waited.setdefault(slot)
            if not is_repeat:
                slot.held[child] = part
                if child == self.first:
                    slot.version = version
                if self._merge(slot):
                    completed.append(slot)
        return replies + self._complete(completed)

    def set_compression(self, child: int, compression: Compression) -> bool:
        is_first = super().set_compression(child, compression)
        if compression.answers:
            if self.answers is None:
                self.answers = Answers(compression, self.plan.has_whole_keys)
            # It has not kept what it was sent before it said so; and it says so on each connection.
            self.answers.forget(child)
        return is_first

    def forget_requests(self, child: int) -> None:
        super().forget_requests(child)
        for slot in self._all_slots():
            if child in slot.askers:
                slot.askers[child] = None

    def _deactivate(self, child: int) -> List[Reply]:
        """Rounds that waited only for the child are complete."""
        if child not in self._active:
            return []
        successor = self._after[child]
        self._active.remove(child)
        self._after = _successors(self._active)
        completed = []
        for slot in self._all_slots():
            if slot.turn is None:
                continue  # merged: it waits for those above, or for the rest of its key
            if slot.turn == child:
                slot.turn = successor
            if slot.askers and self._merge(slot):
                completed.append(slot)
        return self._complete(completed)

    def _is_under_way(self, child: int, slot: M) -> bool:
        return slot.has(child)

    def _waits_at(self, slot: M) -> Iterator[Wait]:
        if slot.turn is None and slot.askers:
            return  # it waits for the other slices of its key, or for the servers above
        name = str(slot.slice.key.name)
        missing = tuple(r for r in self._active if not slot.has(r))
        for child in slot.askers:
            yield Wait(child, name, slot.round + 1, missing)
        for child in slot.waiting:
            yield Wait(child, name, 0, self._firsts())

    def _reset_rounds(self) -> None:
        self._after = _successors(self._active)
        for slot in self._all_slots():
            slot.round = 0
            slot.turn = self._after[START]
            # If there is anything, it is a part of a key whose sender has left.
            slot.sum, slot.version, slot.held, slot.askers = None, None, {}, {}

    # -- what kinds do in their own way -------------------------------------------------------

    @abc.abstractmethod
    def _place(self, slot: M) -> Optional[np.ndarray]:
        """Where the last addition of a round may write its sum, if that is known."""

    @abc.abstractmethod
    def _complete(self, slots: List[M]) -> List[Reply]:
        """All contributions to a round of these are merged; returns what can be answered now."""

    # -- inside -------------------------------------------------------------------------------

    def _merge(self, slot: M) -> bool:
        """Add the held contributions whose turn it is; True if the round is complete."""
        while slot.turn in slot.held:
            child = slot.turn
            slot.turn = self._after[child]
            is_last = slot.turn is None and len(slot.held) == 1
            # Without an optimizer the last addition can write the new value itself. No earlier one
            # may: until the round is complete, a pull gets the value of the one before.
            slot.add(slot.held.pop(child), self._place(slot) if is_last else None)
        if slot.turn is not None:
            return False
        for child in sorted(slot.held):  # workers that left after they had pushed
            slot.add(slot.held.pop(child), None)
        return True

    def _end_round(self, slots: List[M], has_value: bool = True) -> List[Reply]:
        """The round is over: answer the children that wait for it; ``has_value``: the new value is
        here."""
        replies: List[Reply] = []
        for slot in slots:
            slot.initialised = has_value
            slot.sum = None
            slot.version = None
            slot.turn = self._after[START]
            slot.round += 1
        for bucket, first, count, askers in _alike(slots):
            for child, want_value in askers.items():
                if want_value is not None:
                    replies.append(Reply(child, bucket, first, count, want_value))
        for slot in slots:
            slot.askers = {}
            replies += self._answer_pullers(slot)
            if not slot.is_waited_at:
                self._waited.pop(slot, None)
        return replies


def _successors(active: List[int]) -> Dict[int, Optional[int]]:
    """For each child the next one in the order of additions, from `START` to None."""
    return dict(zip([START, *active], [*active, None]))


def _alike(
    slots: Sequence[MergingSlot],
) -> Iterable[Tuple[int, int, int, Dict[int, Optional[bool]]]]:
    """Runs ``(bucket, first, count, askers)`` of neighbouring slots with the same askers."""
    start = 0
    for end in range(1, len(slots) + 1):
        head = slots[start]
        if end < len(slots):
            slice_ = slots[end].slice
            if (
                slice_.bucket is head.slice.bucket
                and slice_.position == head.slice.position + end - start
                and slots[end].askers == head.askers
            ):
                continue
        yield head.slice.bucket.index, head.slice.position, end - start, head.askers
        start = end
