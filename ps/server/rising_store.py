"""The synchronous store on a server with servers above it. Pure.

It takes all slices and owns none: what it has merged *rises* to the servers above (`rising`), and
the round ends when their answer has come (`answered_above`).

The answer to a sum of rows is without the value, of which most has not changed: whoever pulls all
of it or some rows is answered when those above are. The rows that several children wait for are
asked for as one.
"""

from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Set

import numpy as np

from ..answers import Compressed
from ..errors import ProtocolError
from ..memory import Memory
from ..plan import Plan, Slice
from ..rows import Part, Rows
from .merging_store import START, MergingSlot, MergingStore
from .slot import Reply, Wait, rows_reply

__all__ = ["Rise", "RisingSlot", "RisingStore"]


class Rise(NamedTuple):
    """What goes up to the servers above, ``kind`` as an Operation's; ``round`` and ``version`` of a
    push.

    ``rows`` are those of "push_rows", ``ids`` those of "pull_rows".
    """

    kind: str
    slice: Slice
    round: int
    rows: Optional[Rows] = None
    ids: Optional[np.ndarray] = None
    version: Optional[int] = None


class RisingSlot(MergingSlot):
    __slots__ = ("above", "asked_init")

    def __init__(
        self, slice_: Slice, value: np.ndarray, outgoing: np.ndarray, turn: Optional[int]
    ) -> None:
        super().__init__(slice_, value, outgoing, turn)
        self.asked_init = False  # the first child waits for its first value to be taken
        # The kind of Rise that is not answered yet, or empty.
        self.above = ""


class RisingStore(MergingStore[RisingSlot]):
    """What rises lies in ``outgoing``; without a ``first`` child, first values come from above."""

    def __init__(
        self,
        server: int,
        plan: Plan,
        children: Sequence[int],
        memory: Memory,
        outgoing: Memory,
        names: Sequence[str] = (),
        first: Optional[int] = 0,
    ) -> None:
        super().__init__(server, plan, children, memory, names, first)
        self.rising: List[Rise] = []  # to be taken by whoever sends them
        self._outgoing = outgoing
        # Their values are those of some earlier round: the last one was of rows, or those above may
        # have gone on while all children had joined.
        self._stale: Set[RisingSlot] = set()
        # The ids of the rows that are to come from above.
        self._asked: Dict[RisingSlot, np.ndarray] = {}

    def answered_above(self, slice_: Slice, compressed: Optional[Compressed] = None) -> List[Reply]:
        """The servers above have answered what has risen of a slice; its value is there, and came
        ``compressed`` or as it is."""
        if self.answers is not None:
            self.answers.pass_on(slice_, compressed)
        slot = self._slots[slice_.bucket.index][slice_.position]
        kind, slot.above = slot.above, ""
        self._stale.discard(slot)
        if kind == "push":
            return self._end_round([slot])
        if kind == "push_rows":
            self._stale.add(slot)
            return self._end_round([slot], has_value=False)
        slot.initialised = True
        replies = []
        if slot.asked_init:
            slot.asked_init = False
            replies.append(self._init_reply(slot))
        self._rise_if_merged(slot)
        return replies + self._answer_pullers(slot)

    def rows_above(self, slice_: Slice, values: np.ndarray) -> List[Reply]:
        """The servers above have answered with the rows that were asked for (uint8)."""
        slot = self._slots[slice_.bucket.index][slice_.position]
        slot.above = ""
        asked, key = self._asked.pop(slot), slice_.key
        rows = values.view(key.dtype).reshape(asked.size, key.row_size)
        waiting, slot.row_pullers = slot.row_pullers, []
        replies = []
        for child, ids in waiting:
            if np.isin(ids, asked).all():
                replies.append(rows_reply(slice_, child, rows[np.searchsorted(asked, ids)]))
            else:  # it has asked meanwhile
                slot.row_pullers.append((child, ids))
        self._rise_if_merged(slot)
        return replies + self._answer_pullers(slot)

    def _takes(self, slice_: Slice) -> bool:
        return True

    def _new_slot(self, slice_: Slice) -> RisingSlot:
        value, accumulator = self._memory.slice(slice_), self._outgoing.slice(slice_)
        return RisingSlot(slice_, value, accumulator, self._after[START])

    def forget_requests(self, child: int) -> None:
        super().forget_requests(child)
        if child == self.first:
            for slot in self._all_slots():
                slot.asked_init = False

    def _waits_at(self, slot: RisingSlot) -> Iterator[Wait]:
        """Where something has risen, the servers above know who waits."""
        return iter(()) if slot.above else super()._waits_at(slot)

    def _init(self, slot: RisingSlot, part: np.ndarray) -> List[Reply]:
        if slot.initialised or slot in self._stale:  # a repeat
            return [self._init_reply(slot)]
        if slot.sum is not None:
            raise ProtocolError(f"a first value of {slot.slice}, which has been pushed already")
        slot.asked_init = True
        if not slot.above:
            assert slot.accumulator is not None
            slot.value[:] = slot.accumulator[:] = part
            self._rise("init", slot)
        return []

    def _await_first(self, slot: RisingSlot) -> None:
        if slot.above or not (self.first is None or slot in self._stale):
            return
        if slot.pullers:
            self._rise("pull", slot)
        elif slot.row_pullers:
            ids = self._asked[slot] = np.unique(np.concatenate([i for _, i in slot.row_pullers]))
            self._rise("pull_rows", slot, ids=ids)

    def _answer_pullers(self, slot: RisingSlot) -> List[Reply]:
        if slot.initialised:
            return super()._answer_pullers(slot)
        self._await_first(slot)
        return []

    def _is_for_first(self, slot: RisingSlot) -> bool:
        return not slot.above and slot not in self._stale

    def _reset_rounds(self) -> None:
        super()._reset_rounds()
        for slot in self._all_slots():
            if slot.initialised:
                slot.initialised = False
                self._stale.add(slot)

    def _place(self, slot: RisingSlot) -> Optional[np.ndarray]:
        return None

    def _push(
        self, child: int, slots: Sequence[RisingSlot], parts: Sequence[Part],
        round_: int, want_value: bool, version: Optional[int],
    ) -> List[Reply]:  # fmt: skip
        for slot in slots:
            if slot.asked_init and child == self.first:  # it still lies where sums do
                raise ProtocolError(f"a push of {slot.slice} before its first value was answered")
        return super()._push(child, slots, parts, round_, want_value, version)

    def _complete(self, slots: List[RisingSlot]) -> List[Reply]:
        for slot in slots:
            self._rise_if_merged(slot)
        return []

    def _rise_if_merged(self, slot: RisingSlot) -> None:
        """Send up the sum of a round, if it is complete and nothing else of the slice is on its
        way: answers from above do not say what they are for."""
        if slot.turn is not None or slot.sum is None or slot.above:
            return
        if isinstance(slot.sum, Rows):
            self._rise("push_rows", slot, rows=slot.sum)
            return
        assert slot.accumulator is not None
        if slot.sum is not slot.accumulator:
            slot.accumulator[:] = slot.sum
        self._rise("push", slot)

    def _init_reply(self, slot: RisingSlot) -> Reply:
        assert self.first is not None
        return Reply(self.first, slot.slice.bucket.index, slot.slice.position, 1, False)

    def _rise(
        self,
        kind: str,
        slot: RisingSlot,
        rows: Optional[Rows] = None,
        ids: Optional[np.ndarray] = None,
    ) -> None:
        slot.above = kind
        version = slot.version if kind in ("push", "push_rows") else None
        self.rising.append(Rise(kind, slot.slice, slot.round + 1, rows, ids, version))
