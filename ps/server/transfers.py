"""Optimizer states on a server: sent to workers and taken from worker 0, piece by piece. Pure."""

from typing import Any, Dict, Optional, Tuple

import numpy as np

from .. import wire
from ..errors import ProtocolError, UsageError
from ..plan import Slice
from ..states import Arrivals, SliceState, piece_of
from .store import Store

__all__ = ["Transfers"]


class Transfers:
    """The states under way of all stores of one server."""

    def __init__(self) -> None:
        self._arrivals: Dict[int, Arrivals] = {}  # store -> states that have arrived in part
        self._last_put = 0  # serial number
        # child -> (store, unit, the state that is being sent to it: all of it is of one moment)
        self._leaving: Dict[int, Tuple[int, Slice, Optional[SliceState]]] = {}

    def get(
        self, child: int, name: str, message: wire.GetState, store: Optional[Store[Any]]
    ) -> Tuple[wire.State, Optional[np.ndarray]]:
        """The answer and its payload; ``store`` is None if worker 0 has not opened it yet."""
        m = message
        if store is None or store.updater is None:
            return wire.State(m.serial, None), None
        unit = store.unit(m.bucket, m.position)
        if (m.array, m.start) == (0, 0):
            try:
                self._leaving[child] = m.store, unit, store.updater.state(unit)
            except UsageError as error:
                return wire.State(m.serial, None, f"key {unit.key.name!r}: {error}"), None
        _, leaving, state = self._leaving.get(child, (0, None, None))
        if leaving is not unit:
            raise ProtocolError(f"{name} asked for the rest of a state before its beginning")
        if state is None:
            return wire.State(m.serial, None), None
        return wire.State(m.serial, state.spec), piece_of(state.arrays, m.array, m.start)

    def put(
        self, name: str, message: wire.PutState, store: Store[Any], payload: np.ndarray
    ) -> None:
        """Take a piece; with the last one, the state replaces the present one."""
        m = message
        if store.updater is None:
            raise ProtocolError(
                f"{name} sent a state of store {m.store}, which has no optimizer yet"
            )
        if m.serial <= self._last_put:
            return  # a repeat: the state may be complete, and may have changed since
        unit = store.unit(m.bucket, m.position)
        value = store.updated(unit)
        arrivals = self._arrivals.setdefault(m.store, Arrivals())
        state = arrivals.put(unit, m.spec, m.array, m.start, payload)
        self._last_put = m.serial
        if state is not None:
            store.updater.restore(unit, value, state)

    def drop_arrivals(self, number: int) -> None:
        """Forget the states of a store that have arrived in part."""
        self._arrivals.pop(number, None)

    def close(self, number: int) -> None:
        """A store has been closed."""
        self.drop_arrivals(number)
        self._leaving = {c: held for c, held in self._leaving.items() if held[0] != number}
