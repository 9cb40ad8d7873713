"""MXNet's optimizers as an updater of a server (baryon.ps.updater), slice by slice.

A server that owns keys imports this module, and MXNet with it, early and in a thread of its own
(scheduler/server_task/process.py), or when the first optimizer arrives if that is sooner. All calls
come from the server's reactor thread.
"""

import copy
from typing import Any, Dict, List, Optional, Tuple

import mxnet as mx
import numpy as np

from baryon.ps import (
    Part,
    Rows,
    SetHyper,
    Slice,
    SliceState,
    StateSpec,
    Versions,
    is_scalar,
    set_scalars,
)

from .compat import array_over
from .layouts import flatten, unflatten
from .pickled import is_mxnets, load_optimizer

__all__ = ["MXNetUpdater", "is_elementwise", "load_updater"]

# These compute an element from that element and its own state alone, so a slice can be updated
# without the rest of its key. All others get whole keys: some of MXNet's use norms, and nothing is
# known about a user's own.
_ELEMENTWISE = (
    *("AdaDelta", "AdaGrad", "Adam", "Adamax", "ccSGD", "DCASGD", "FTML", "Ftrl"),
    *("NAG", "Nadam", "RMSProp", "SGD", "SGLD", "Signum", "Test"),
)
# The operators of these take a row-sparse gradient only for row-sparse weights and states, and ours
# are dense. They treat the gradient's rows as a dense gradient's, and change no other row;
# `_update_rows` does the same.
_BY_ROWS = ("AdaGrad", "Ftrl")


def is_elementwise(optimizer: Any) -> bool:
    """Whether an optimizer can update a slice of a parameter without the rest of it."""
    cls = type(optimizer)
    return is_mxnets(cls) and cls.__name__ in _ELEMENTWISE


def load_updater(blob: bytes, may_run_code: bool) -> "MXNetUpdater":
    """The updater in a blob of `dump_optimizer`; as baryon.ps.updater asks of each kind."""
    return MXNetUpdater(load_optimizer(blob, may_run_code))


class MXNetUpdater:
    """Applies one optimizer to the slices of one server.

    Each slice has an optimizer of its own, a shallow copy with its own update counts and version of
    the attributes. Some of MXNet's optimizers keep state that changes with every update, and slices
    are updated in any order; with a copy each, the result for a slice depends on its own rounds
    alone.
    """

    def __init__(self, optimizer: Any) -> None:
        self.name = type(optimizer).__name__
        self.is_elementwise = is_elementwise(optimizer)
        self._optimizer = optimizer  # as it came
        self._versions = Versions()
        self._slices: Dict[Slice, _Updated] = {}

    def check_hyper(self, change: SetHyper) -> None:
        set_scalars(copy.copy(self._optimizer), change.scalars)

    def set_hyper(self, change: SetHyper) -> None:
        self._versions.add(change)

    def update(
        self, unit: Slice, gradient: Part, value: np.ndarray, version: Optional[int] = None
    ) -> None:
        """Rows are a row-sparse gradient to the optimizer. Raises whatever the optimizer raises."""
        key = unit.key
        shape = _shape_of(unit, value)
        updated = self._slices.get(unit)
        if updated is None:
            weight = array_over(value.reshape(shape))
            updated = self._slices[unit] = _Updated(self._copy(key.name), weight)
            self._bring_to(updated, key.name, version)
            updated.state = updated.optimizer.create_state_multi_precision(key.name, weight)
        else:
            self._bring_to(updated, key.name, version)
        optimizer, weight, state = updated.optimizer, updated.weight, updated.state
        if isinstance(gradient, Rows):
            is_by_rows = is_mxnets(type(optimizer)) and self.name in _BY_ROWS
            is_lazy = is_by_rows or getattr(optimizer, "lazy_update", False)
            if is_lazy and not gradient.ids.size and self.is_elementwise:
                optimizer._update_count(key.name)  # most slices of a big table, at most steps
                return
            if is_by_rows:
                _update_rows(optimizer, key.name, weight, gradient, state)
                return
            array = _row_sparse(gradient, shape)
        else:
            array = array_over(np.ascontiguousarray(gradient).reshape(shape))
        optimizer.update_multi_precision(key.name, weight, array, state)
        # Raises what the operators raised, and keeps the gradient alive until they have read it.
        weight.wait_to_read()

    def state(self, unit: Slice) -> Optional[SliceState]:
        if unit not in self._slices:
            return None
        updated = self._slices[unit]
        layout, arrays = flatten(updated.state)
        count = updated.optimizer._index_update_count.get(unit.key.name, 0)
        told = {**vars(self._optimizer), **updated.told}
        scalars = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in vars(updated.optimizer).items()
            if is_scalar(value) and name != "num_update" and value != told.get(name)
        }
        specs = tuple((array.dtype.name, array.shape) for array in arrays)
        return SliceState(StateSpec(layout, specs, count, scalars), arrays)

    def restore(self, unit: Slice, value: np.ndarray, state: SliceState) -> None:
        """If ``value`` has changed since, a float16 weight's copy in float32 follows it."""
        key, spec = unit.key, state.spec
        optimizer = self._copy(key.name)
        set_scalars(optimizer, spec.scalars)
        optimizer._index_update_count[key.name] = spec.count
        optimizer.num_update = max(optimizer.num_update, spec.count)
        updated = _Updated(optimizer, array_over(value.reshape(_shape_of(unit, value))))
        updated.state = unflatten(spec.layout, state.arrays)
        if value.dtype == np.float16 and optimizer.multi_precision:
            _follow(_copy_in(optimizer, updated.state), updated.weight)
        self._slices[unit] = updated

    def _copy(self, name: Any) -> Any:
        """An optimizer for one slice of key ``name``."""
        original = self._optimizer
        optimizer = copy.copy(original)
        counts = {k: n for k, n in original._index_update_count.items() if k == name}
        optimizer._all_index_update_counts = {0: counts}
        optimizer._index_update_count = counts
        for table in ("lr_mult", "wd_mult"):
            whole, aliases = getattr(original, table), (name, original.idx2name.get(name))
            setattr(optimizer, table, {alias: whole[alias] for alias in aliases if alias in whole})
        if original.lr_scheduler is not None:
            optimizer.lr_scheduler = _TheScripts(optimizer)
        return optimizer

    def _bring_to(self, updated: "_Updated", name: Any, version: Optional[int]) -> None:
        """Give a slice's optimizer the attributes of a version."""
        version = self._versions.last if version is None else version
        before = updated.version
        if version <= before:
            return
        updated.version = version
        scalars = self._versions.scalars(before, version)
        vars(updated.optimizer).update(scalars)
        updated.told.update(scalars)
        for table, factor in self._versions.multipliers(name, before, version).items():
            getattr(updated.optimizer, table)[name] = factor


class _Updated:
    """A slice that has been updated, with its own optimizer and the version of its attributes.

    ``told`` has the attributes that the script has set, with the script's values.
    """

    __slots__ = ("optimizer", "state", "told", "version", "weight")

    def __init__(self, optimizer: Any, weight: Any) -> None:
        self.optimizer = optimizer
        self.weight = weight
        self.state: Any = None
        self.version = 0
        self.told: Dict[str, Any] = {}


class _TheScripts:
    """Stands for a schedule, which stays in worker 0's script; the script sends the rates."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer

    @property
    def base_lr(self) -> Any:
        return self._optimizer.lr

    def __call__(self, num_update: int) -> Any:
        return self._optimizer.lr


def _copy_in(optimizer: Any, state: Any) -> Any:
    """A float16 weight's copy in float32, if MXNet's own code has put one into the state."""
    if type(optimizer).__name__ == "LAMB":  # which never writes to its copy
        return None
    name = "create_state_multi_precision"
    maker = next(cls for cls in type(optimizer).__mro__ if name in vars(cls))
    if not is_mxnets(maker) or not isinstance(state, tuple) or len(state) != 2:
        return None
    return state[0 if maker.__name__ == "Optimizer" else 1]


def _follow(copy: Any, weight: Any) -> None:
    """Where an element of ``copy`` no longer rounds to that of ``weight``, take the weight's."""
    if copy is None or copy.shape != weight.shape:
        return
    is_same = copy.astype("float16").asnumpy() == weight.asnumpy()
    copy[:] = np.where(is_same, copy.asnumpy(), weight.asnumpy().astype("float32"))


def _shape_of(unit: Slice, value: np.ndarray) -> Tuple[int, ...]:
    return unit.key.shape if value.size == unit.key.size else unit.shape


def _row_sparse(rows: Rows, shape: Tuple[int, ...]) -> Any:
    if not rows.ids.size:
        return mx.nd.sparse.zeros("row_sparse", shape, dtype=rows.values.dtype)
    values = rows.values.reshape(rows.ids.size, *shape[1:])
    return mx.nd.sparse.row_sparse_array((values, rows.ids), shape=shape, dtype=values.dtype)


def _update_rows(optimizer: Any, name: Any, weight: Any, rows: Rows, state: Any) -> None:
    """Update these rows of weight and state, with the rows' values as a dense gradient."""
    ids = mx.nd.array(rows.ids, dtype="int64")
    taken: List[Tuple[Any, Any]] = []

    def take(node: Any) -> Any:
        if isinstance(node, (tuple, list)):
            return type(node)(map(take, node))
        if not isinstance(node, mx.nd.NDArray):
            return node
        taken.append((node, mx.nd.take(node, ids)))
        return taken[-1][1]

    values = rows.values.reshape(rows.ids.size, *weight.shape[1:])
    gradient = mx.nd.array(values, dtype=values.dtype)
    optimizer.update_multi_precision(name, take(weight), gradient, take(state))
    for whole, part in taken:
        whole[ids] = part
        whole.wait_to_read()
