"""The synchronous store on a server that owns its slices. Pure.

The sum of a round goes to the updater, if there is one, and replaces the value otherwise, as in
MXNet's own store. Then every child is answered.

In a store of whole keys (plan.py) the value changes when all slices of a key are merged, and their
rounds end together.
"""

from typing import Dict, List, Optional

import numpy as np

from ..plan import Key, Slice
from ..rows import join, put
from .merging_store import START, MergingSlot, MergingStore
from .slot import Reply

__all__ = ["SyncStore"]


class SyncStore(MergingStore[MergingSlot]):
    _merged: Dict[Key, int]  # how many slices of a whole key wait for the others

    def _new_slot(self, slice_: Slice) -> MergingSlot:
        return MergingSlot(slice_, self._memory.slice(slice_), None, self._after[START])

    def _reset_rounds(self) -> None:
        super()._reset_rounds()
        self._merged = {}

    def _place(self, slot: MergingSlot) -> Optional[np.ndarray]:
        return slot.value if self.updater is None else None

    def _complete(self, slots: List[MergingSlot]) -> List[Reply]:
        is_updated = self.updater is not None
        if is_updated and self.plan.has_whole_keys:
            slots = self._update_keys(slots)
        else:
            for slot in slots:
                assert slot.sum is not None
                if is_updated:
                    value = self._exact(slot.slice, slot.value)
                    self._update(slot.slice, slot.sum, value, slot.version)
                elif slot.sum is not slot.value:
                    put(slot.sum, slot.value)
        if self.answers is not None:
            for slot in slots:
                self.answers.publish(slot.slice, slot.value, is_updated)
        return self._end_round(slots)

    def _update_keys(self, slots: List[MergingSlot]) -> List[MergingSlot]:
        """Update the keys of which the last slice is merged; returns all slots of these."""
        updated: List[MergingSlot] = []
        for slot in slots:
            key = slot.slice.key
            self._merged[key] = self._merged.get(key, 0) + 1
            if self._merged[key] < len(key.slices):
                continue
            del self._merged[key]
            whole = self._slots_of(key)
            merged = [one.sum for one in whole if one.sum is not None]  # all of them
            value = self._exact(key.slices[0], self._memory.key(key).reshape(-1))
            self._update(key.slices[0], join(merged, key.slices), value, whole[0].version)
            updated += whole
        return updated
