"""A slice at a server, and what a store says of it: answers and waits. Pure."""

from typing import List, NamedTuple, Optional, Tuple, Union

import numpy as np

from ..memory import Memory
from ..plan import Slice
from ..rows import as_bytes

__all__ = ["Payload", "Reply", "Slot", "Wait", "rows_reply"]

Payload = Union[np.ndarray, Memory]
"""The bytes of a run, as uint8, or the memory in which its slices lie."""


class Reply(NamedTuple):
    """An answer to child ``child`` for a run of slices, with their values (`Store.values`).

    ``rows`` is for who has asked for some rows of a slice: their elements, as uint8.
    """

    child: int
    bucket: int
    first: int
    num_slices: int
    has_value: bool
    rows: Optional[np.ndarray] = None


class Wait(NamedTuple):
    """Child ``child`` waits in ``round`` of key ``key`` for the children ``missing``."""

    child: int
    key: str
    round: int
    missing: Tuple[int, ...]


class Slot:
    """A slice at a server that keeps its value."""

    __slots__ = ("initialised", "pullers", "row_pullers", "slice", "value")

    def __init__(self, slice_: Slice, value: np.ndarray) -> None:
        self.slice = slice_
        self.value = value  # 1-D view of the bucket's memory
        self.initialised = False
        self.pullers: List[int] = []  # wait for the first value
        self.row_pullers: List[Tuple[int, np.ndarray]] = []  # the same, with the rows' ids

    @property
    def waiting(self) -> List[int]:
        """The children that wait for the first value."""
        return [*self.pullers, *(child for child, _ in self.row_pullers)]

    @property
    def is_waited_at(self) -> bool:
        return bool(self.pullers or self.row_pullers)


def rows_reply(slice_: Slice, child: int, rows: np.ndarray) -> Reply:
    """The answer to who has asked for some rows."""
    return Reply(child, slice_.bucket.index, slice_.position, 1, False, as_bytes(rows))
