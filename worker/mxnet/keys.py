"""The keys of one store, and the steps that they go through.

A step is a push, a pull, or both at once. MXNet's engine runs a key's steps in the order in which
the script's threads queue them here, and nothing else waits.
"""

import threading
from typing import Any, Dict, List, Optional

import numpy as np

from baryon.ps import StoreClient, UsageError, rows_in

from .arguments import KeyName, is_sparse
from .exchange import Exchange, Place
from .pushes import Pushes
from .sparse import RowPull, push_rows, rows_of_all

__all__ = ["Keys"]


class Keys:
    """Those of ``store``; ``pushes`` counts them.

    ``lock`` is held from the count of a push until it is queued: pushes are queued in the order in
    which they are counted. Whoever replaces the optimizer holds it, too.
    """

    def __init__(self, store: StoreClient, pushes: Pushes) -> None:
        self.store = store
        self.lock = threading.Lock()
        self._pushes = pushes
        self._places: Dict[KeyName, Place] = {}
        # Each key's last exchange, likely to be its next. A place must not refer to it: in that
        # circle both would stay until the garbage collector runs, and with them the store, which is
        # closed when nothing refers to it.
        self._exchanges: Dict[KeyName, Exchange] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: KeyName) -> bool:
        return name in self._places

    def declare(self, name: KeyName, array: Any) -> None:
        """Add a key of the array's shape and dtype; raises UsageError if it exists."""
        declared = self.store.declare(name, array.shape, np.dtype(array.dtype).name)
        self._places[name] = Place(self.store, declared)

    def fill(self, name: KeyName, array: Any) -> None:
        """Make ``array`` the first value of a declared key; rank 0 does this."""
        dense = array.tostype("default") if is_sparse(array) else array
        self.exchange("init", name, [dense], None, 0)
        if dense is not array:
            del self._exchanges[name]  # which would keep the copy

    def exchange(
        self,
        kind: str,
        name: KeyName,
        arrays: Optional[List[Any]],
        outs: Optional[List[Any]],
        priority: int,
    ) -> None:
        """Queue a step of dense arrays. The same arrays as the last time are not checked again."""
        place = self._place(name)
        exchange = self._exchanges.get(name)
        if exchange is None or not exchange.is_for(kind, arrays, outs):
            exchange = self._exchanges[name] = Exchange(kind, place, arrays, outs)
        with self.lock:
            version = self._pushes.count(name, self.store) if kind == "push" else None
            exchange.enqueue(priority, version)

    def push_rows(self, name: KeyName, arrays: List[Any], priority: int) -> None:
        """Queue a push of row-sparse arrays, once they are computed."""
        place = self._place(name)
        rows = rows_in(place.key, rows_of_all(place.key, arrays))
        with self.lock:
            push_rows(place, rows, priority, self._pushes.count(name, self.store))

    def pull_rows(
        self, name: KeyName, outs: List[Any], row_ids: Optional[List[Any]], priority: int
    ) -> RowPull:
        """Queue a pull of rows to each of ``outs``: of its ``row_ids``, or of all rows if None."""
        place = self._place(name)
        if row_ids is None:
            row_ids = [np.arange(place.key.shape[0])] * len(outs)
        with self.lock:
            return RowPull(place, outs, row_ids, priority)

    def pull_again(self) -> None:
        """Write each key's present value to the arrays that it was pulled to last."""
        for name, place in self._places.items():
            if place.outs:
                self.exchange("pull", name, None, place.outs, 0)

    def places(self) -> Dict[KeyName, Place]:
        """Each key's place, in the order of their declaration."""
        return dict(self._places)

    def _place(self, name: KeyName) -> Place:
        place = self._places.get(name)
        if place is None:
            raise UsageError(
                f"key {name!r} has not been initialised; call init or broadcast first, on all "
                "workers"
            )
        return place
