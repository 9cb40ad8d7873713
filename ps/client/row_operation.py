"""An operation that pushes or pulls some rows of a key."""

from typing import Dict

import numpy as np

from ..plan import Key, Slice
from .departures import Operation

__all__ = ["RowOperation"]


class RowOperation(Operation):
    """``kind`` is "push_rows" or "pull_rows". ``payloads`` are the bytes to send for each slice
    that takes part (`rows.rows_in`, `rows.ids_in`). They must not change until it is done.

    A pull's result is ``values``: the elements of each slice's rows, as uint8.
    """

    __slots__ = ("payloads", "values")

    is_framed = True

    def __init__(
        self, kind: str, key: Key, payloads: Dict[Slice, np.ndarray], priority: int = 0
    ) -> None:
        super().__init__(kind, key, False, priority, tuple(payloads))
        self.payloads = payloads
        self.values: Dict[Slice, np.ndarray] = {}

    def num_rows(self, slice_: Slice) -> int:
        """How many rows of a slice this pulls."""
        return self.payloads[slice_].nbytes // 8

    def nbytes_in(self, slice_: Slice) -> int:
        nbytes = self.payloads[slice_].nbytes
        if self.kind == "pull_rows":
            nbytes += self.num_rows(slice_) * slice_.row_nbytes
        return nbytes
