"""The asynchronous store on a server: applies each contribution as it arrives. Pure.

A worker's push is answered as soon as it is applied (``dist_async``), or once no other worker is
more than ``staleness`` rounds behind it (``dist_ssp``: bounded staleness, as in M. Li et al.,
"Scaling Distributed Machine Learning with the Parameter Server", OSDI 2014, section 3.4, where it
is called bounded delay). A worker pushes a key's next round only after that answer. With a
staleness of 0 all workers are in the same round, whose contributions are applied one by one.

There is no sum, so its children are the workers themselves, and it needs an optimizer: what comes
before worker 0 has given one, or a first value, waits for it. While one worker's answer is read,
another's contribution may change some elements of it.
"""

from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from ..errors import ProtocolError, UsageError
from ..memory import Memory
from ..plan import Plan, Slice
from ..rows import Part, join
from ..updater import Updater
from .slot import Reply, Slot, Wait
from .store import Store

__all__ = ["AsyncSlot", "AsyncStore"]


class AsyncSlot(Slot):
    __slots__ = ("askers", "held", "rounds", "version")

    def __init__(self, slice_: Slice, value: np.ndarray, children: Iterable[int]) -> None:
        super().__init__(slice_, value)
        self.rounds = dict.fromkeys(children, 0)  # child -> rounds applied
        self.held: Dict[int, Part] = {}  # contributions that cannot be applied yet
        self.version: Optional[int] = None  # that worker 0 has named with its last one
        # child -> wants the value, of those whose next round has come and is not answered
        self.askers: Dict[int, bool] = {}

    @property
    def is_waited_at(self) -> bool:
        return bool(self.askers) or super().is_waited_at


class AsyncStore(Store[AsyncSlot]):
    """``staleness``: by how many rounds a worker may be ahead of another; None: by any number."""

    def __init__(
        self,
        server: int,
        plan: Plan,
        children: Sequence[int],
        memory: Optional[Memory] = None,
        names: Sequence[str] = (),
        first: Optional[int] = 0,
        staleness: Optional[int] = None,
    ) -> None:
        super().__init__(server, plan, children, memory, names, first)
        self._staleness = staleness

    # -- events -------------------------------------------------------------------------------

    def set_updater(self, updater: Updater) -> List[Reply]:
        self.updater = updater
        return [reply for slot in self._all_slots() for reply in self._advance(slot)]

    def _push(
        self, child: int, slots: Sequence[AsyncSlot], parts: Sequence[Part],
        round_: int, want_value: bool, version: Optional[int],
    ) -> List[Reply]:  # fmt: skip
        for slot in slots:
            done = slot.rounds.get(child, -1)
            if not 0 < round_ <= done + 1 or (round_ > done and child not in self._active):
                name, key = self._names[child], slot.slice.key
                raise ProtocolError(f"{name} pushed round {round_} of {key} after round {done}")
        if self.updater is None and child == self.first:
            raise UsageError(
                f"key {slots[0].slice.key.name!r} was pushed to an asynchronous kvstore without an "
                "optimizer; call set_optimizer first, or let gluon.Trainer do so "
                "(update_on_kvstore=True)"
            )
        replies: List[Reply] = []
        for slot, part in zip(slots, parts):
            if round_ < slot.rounds[child]:  # a repeat of something that is long done
                where = slot.slice.bucket.index, slot.slice.position
                replies.append(Reply(child, *where, 1, want_value))
                continue
            slot.askers[child] = want_value
            self._waited.setdefault(slot)
            if round_ > slot.rounds[child]:
                slot.held.setdefault(child, part)
                if child == self.first:
                    slot.version = version
            replies += self._advance(slot)
        return replies

    def forget_requests(self, child: int) -> None:
        super().forget_requests(child)
        for slot in self._all_slots():
            slot.askers.pop(child, None)

    def _deactivate(self, child: int) -> List[Reply]:
        if child not in self._active:
            return []
        self._active.remove(child)
        return [reply for slot in self._all_slots() for reply in self._answer(slot)]

    def _is_under_way(self, child: int, slot: AsyncSlot) -> bool:
        return child in slot.held or child in slot.askers

    def _waits_at(self, slot: AsyncSlot) -> Iterator[Wait]:
        for child in (*slot.askers, *slot.waiting):
            round_ = slot.rounds[child]
            missing = self._behind(slot, round_) if slot.initialised else ()
            yield Wait(child, str(slot.slice.key.name), round_, missing or self._firsts())

    def _reset_rounds(self) -> None:
        for slot in self._all_slots():
            slot.rounds = dict.fromkeys(slot.rounds, 0)

    # -- inside -------------------------------------------------------------------------------

    def _new_slot(self, slice_: Slice) -> AsyncSlot:
        return AsyncSlot(slice_, self._memory.slice(slice_), self.children)

    def _init(self, slot: AsyncSlot, part: np.ndarray) -> List[Reply]:
        return super()._init(slot, part) + self._advance(slot)

    def _advance(self, slot: AsyncSlot) -> List[Reply]:
        """Apply what can be applied by now, and answer whom can be answered."""
        key = slot.slice.key
        slots = self._slots_of(key) if self.plan.has_whole_keys else [slot]
        for child in list(slot.held):
            if self.updater is None or not all(s.initialised and child in s.held for s in slots):
                continue
            parts = [one.held.pop(child) for one in slots]
            value = slot.value if len(slots) == 1 else self._memory.key(key).reshape(-1)
            version = slots[0].version if child == self.first else None
            self._update(slots[0].slice, join(parts, [one.slice for one in slots]), value, version)
            for one in slots:
                one.rounds[child] += 1
        return [reply for one in slots for reply in self._answer(one)]

    def _answer(self, slot: AsyncSlot) -> List[Reply]:
        where = slot.slice.bucket.index, slot.slice.position
        replies = []
        for child, want_value in list(slot.askers.items()):
            if child in slot.held or self._behind(slot, slot.rounds[child]):
                continue
            del slot.askers[child]
            replies.append(Reply(child, *where, 1, want_value))
        if not slot.is_waited_at:
            self._waited.pop(slot, None)
        return replies

    def _behind(self, slot: AsyncSlot, round_: int) -> Tuple[int, ...]:
        """Who has not come close enough to ``round_`` for it to be answered."""
        if self._staleness is None:
            return ()
        return tuple(c for c in self._active if slot.rounds[c] < round_ - self._staleness)
