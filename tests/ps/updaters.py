"""Updaters for tests: a function as one, and a small framework's optimizer in NumPy.

This module is what a kind of `baryon.ps.updater.KINDS` must be: it has ``load_updater``. Tests that
use it by its kind enter it into the table with the fixture ``numpy_kind``.
"""

from typing import Any, Callable, Dict, List, Optional

import msgspec
import numpy as np

from baryon.ps import (
    Part,
    ProtocolError,
    Rows,
    SetHyper,
    Slice,
    SliceState,
    StateSpec,
    UsageError,
    Versions,
    set_scalars,
)


class Calls:
    """An updater that calls ``function(unit, gradient, value, version)``, and has no state."""

    name = "Calls"
    is_elementwise = True

    def __init__(self, function: Callable[..., Any]) -> None:
        self.update = function

    def check_hyper(self, change: SetHyper) -> None:
        pass

    def set_hyper(self, change: SetHyper) -> None:
        pass

    def state(self, unit: Slice) -> Optional[SliceState]:
        return None

    def restore(self, unit: Slice, value: np.ndarray, state: SliceState) -> None:
        raise ProtocolError("it has no state")


def mxnet_blob(
    pickled: bytes, lr_mult: Any = (), wd_mult: Any = (), has_code: bool = False
) -> bytes:
    """A blob of the kind "mxnet" with any bytes for a pickle."""
    return msgspec.msgpack.encode([pickled, list(lr_mult), list(wd_mult), has_code])


class SGD(msgspec.Struct):
    """A blob of the kind "numpy" is one, as JSON."""

    lr: float
    momentum: float = 0.0
    is_elementwise: bool = True


def load_updater(blob: bytes, may_run_code: bool) -> "NumPyUpdater":
    try:
        return NumPyUpdater(msgspec.json.decode(blob, type=SGD))
    except msgspec.DecodeError as error:
        raise UsageError(f"the optimizer cannot be read: {error}") from error


class _Attributes:
    """What `set_scalars` may set."""

    def __init__(self, sgd: SGD) -> None:
        self.lr, self.momentum = sgd.lr, sgd.momentum


class NumPyUpdater:
    """``velocity = momentum * velocity - lr * lr_mult * gradient; value += velocity``."""

    name = "SGD"

    def __init__(self, sgd: SGD) -> None:
        self.is_elementwise = sgd.is_elementwise
        self._sgd = sgd
        self._versions = Versions()
        self._velocities: Dict[Slice, np.ndarray] = {}
        self._counts: Dict[Slice, int] = {}

    def check_hyper(self, change: SetHyper) -> None:
        set_scalars(_Attributes(self._sgd), change.scalars)

    def set_hyper(self, change: SetHyper) -> None:
        self._versions.add(change)

    def update(
        self, unit: Slice, gradient: Part, value: np.ndarray, version: Optional[int] = None
    ) -> None:
        version = self._versions.last if version is None else version
        attributes = _Attributes(self._sgd)
        vars(attributes).update(self._versions.scalars(0, version))
        rate = attributes.lr * self._versions.multipliers(unit.key.name, 0, version).get(
            "lr_mult", 1.0
        )
        velocity = self._velocities.setdefault(unit, np.zeros_like(value))
        self._counts[unit] = self._counts.get(unit, 0) + 1
        velocity *= value.dtype.type(attributes.momentum)
        if isinstance(gradient, Rows):
            rows = velocity.reshape(-1, unit.key.row_size)
            rows[gradient.ids] -= value.dtype.type(rate) * gradient.values
        else:
            velocity -= value.dtype.type(rate) * gradient
        value += velocity

    def state(self, unit: Slice) -> Optional[SliceState]:
        if unit not in self._velocities:
            return None
        velocity = self._velocities[unit].copy()
        spec = StateSpec(0, ((velocity.dtype.name, velocity.shape),), self._counts[unit], {})
        return SliceState(spec, [velocity])

    def restore(self, unit: Slice, value: np.ndarray, state: SliceState) -> None:
        arrays: List[np.ndarray] = state.arrays
        if state.spec.layout != 0 or arrays[0].shape != value.shape:
            raise ProtocolError(f"no state of {unit}")
        self._velocities[unit] = arrays[0].astype(value.dtype)
        self._counts[unit] = state.spec.count
