"""MXNet's optimizers on a server: load one from a worker, apply it to one slice after another.

MXNet is imported here only when an optimizer arrives, because it takes a second and a store
without an optimizer does not need it.
"""

import copy
import importlib
import io
import pickle
import sys
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from .errors import UsageError
from .mxnet_compat import array_over, import_mxnet
from .plan import Slice
from .rows import Part, Rows
from .states import SliceState, flatten, unflatten
from .wire import Multipliers, StateSpec

__all__ = ["SliceUpdater", "dump_optimizer", "load_optimizer", "needs_whole_keys"]

# What a pickled optimizer consists of besides MXNet's own classes. NumPy is left out on purpose: a
# made-up array of objects is a pointer of the sender's choice. `dump_optimizer` sends its scalars
# as Python's.
_PLAIN = {
    ("builtins", "bool"),
    ("builtins", "complex"),
    ("builtins", "float"),
    ("builtins", "frozenset"),
    ("builtins", "int"),
    ("builtins", "object"),
    ("builtins", "set"),
    ("collections", "OrderedDict"),
    ("copyreg", "_reconstructor"),
}
# What they do to an element depends on that element and its own state alone, so that a slice can be
# updated without the rest of its key. All others get whole keys: MXNet's that use norms, and users'
# own, of which nothing is known.
_ELEMENTWISE = (
    *("AdaDelta", "AdaGrad", "Adam", "Adamax", "ccSGD", "DCASGD", "FTML", "Ftrl"),
    *("NAG", "Nadam", "RMSProp", "SGD", "SGLD", "Signum", "Test"),
)
# Their operators take a row-sparse gradient only if weight and state are row-sparse, which ours are
# not; then they change its rows as they would change all of a dense one's, and no others.
_BY_ROWS = ("AdaGrad", "Ftrl")
_MXNET_MODULES = ("mxnet.optimizer", "mxnet.lr_scheduler")


def needs_whole_keys(optimizer: Any) -> bool:
    """Whether an optimizer must see whole parameters to be right."""
    cls = type(optimizer)
    return not (_is_mxnets(cls) and cls.__name__ in _ELEMENTWISE)


def _is_mxnets(cls: type) -> bool:
    return cls.__module__.split(".")[0] == "mxnet"


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.generic):
            plain = value.item()
            return type(plain), (plain,)
        return NotImplemented


def dump_optimizer(optimizer: Any) -> Tuple[bytes, bool]:
    """``optimizer`` as `load_optimizer` takes it, and whether it has code of the user's in it.

    Such code, of a class defined in the script or in its modules, travels by value.
    """
    try:
        file = io.BytesIO()
        _Pickler(file, protocol=4).dump(optimizer)
        _AllowListUnpickler(io.BytesIO(file.getvalue())).load()
        return file.getvalue(), False
    except Exception:
        return _dump_with_code(optimizer), True


def _dump_with_code(optimizer: Any) -> bytes:
    import cloudpickle  # type: ignore[import-untyped]  # a tenth of a second that few scripts need

    parts = (optimizer, optimizer.lr_scheduler)
    classes = {cls for part in parts for cls in type(part).__mro__}
    modules = {sys.modules[cls.__module__] for cls in classes if not _is_mxnets(cls)}
    own = [module for module in modules if module.__name__ not in ("builtins", "__main__")]
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps(optimizer, protocol=4)
    except Exception as error:
        raise UsageError(
            f"the optimizer {type(optimizer).__name__} cannot be sent to the servers: {error}; "
            "keep files, locks and the like out of it, or let the workers update: "
            "gluon.Trainer(..., update_on_kvstore=False)"
        ) from error
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)


class _AllowListUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _PLAIN:
            return getattr(importlib.import_module(module), name)
        if module in _MXNET_MODULES or module.startswith("mxnet.optimizer."):
            mx = import_mxnet()
            found = getattr(importlib.import_module(module), name, None)
            if isinstance(found, type) and issubclass(
                found, (mx.optimizer.Optimizer, mx.lr_scheduler.LRScheduler)
            ):
                return found
        raise UsageError(
            f"the optimizer refers to {module}.{name}, which servers do not load; "
            "use the classes of mxnet.optimizer and mxnet.lr_scheduler, or let the workers "
            "update: gluon.Trainer(..., update_on_kvstore=False)"
        )


def load_optimizer(
    pickled: bytes, lr_mult: Multipliers, wd_mult: Multipliers, has_code: bool = False
) -> Any:
    """The ``mx.optimizer.Optimizer`` in ``pickled``, with per-key multipliers put back.

    With ``has_code`` whatever it asks for is loaded and run: only from a sender who has proven to
    be worker 0 of this job. Otherwise it may consist of MXNet's classes and plain values.

    Raises UsageError if it is not an optimizer, cannot be loaded, or names another class.
    """
    mx = import_mxnet()
    try:
        loads = pickle.loads if has_code else lambda p: _AllowListUnpickler(io.BytesIO(p)).load()
        optimizer = loads(pickled)
    except UsageError:
        raise
    except Exception as error:  # whatever a damaged pickle, or a user's class, makes pickle raise
        raise UsageError(f"the optimizer cannot be read: {error}") from error
    if not isinstance(optimizer, mx.optimizer.Optimizer):
        raise UsageError(f"set_optimizer got a {type(optimizer).__name__}, not an optimizer")
    optimizer.lr_mult.update(lr_mult)
    optimizer.wd_mult.update(wd_mult)
    return optimizer


class SliceUpdater:
    """Applies one optimizer to the slices of one server; the store's ``update``.

    Each slice has an optimizer of its own, a shallow copy with its own update counts and schedule:
    MXNet's schedules, and some of its optimizers, keep state that moves on with every update, and
    slices are updated in any order. So what a slice becomes depends on its own rounds alone.
    """

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self._needs_whole_keys = needs_whole_keys(optimizer)
        self._slices: Dict[Slice, Tuple[Any, Any, Any]] = {}  # optimizer, weight, state

    def set(self, attributes: Dict[str, Any]) -> None:
        """Change hyper-parameters, for every slice from its next round on."""
        for optimizer in [self._optimizer, *(entry[0] for entry in self._slices.values())]:
            for name, value in attributes.items():
                setattr(optimizer, name, value)

    def __call__(self, slice_: Slice, merged: Part, value: np.ndarray) -> None:
        """Update ``value`` (1-D) in place by the gradient ``merged``; both are of the slice or of
        the whole key that begins with it. Rows are a row-sparse gradient to the optimizer.

        Raises UsageError if the optimizer needs more than a slice, and what it raises itself.
        """
        key = slice_.key
        is_whole = value.size == key.size
        if not is_whole and self._needs_whole_keys:
            raise UsageError(
                f"{type(self._optimizer).__name__} needs whole parameters, and key {key.name!r} is "
                "in pieces; call set_optimizer on every worker, not on rank 0 alone"
            )
        shape = key.shape if is_whole else slice_.shape
        if slice_ not in self._slices:
            weight = array_over(value.reshape(shape))
            state = self._optimizer.create_state_multi_precision(key.name, weight)
            self._slices[slice_] = (self._copy(), weight, state)
        optimizer, weight, state = self._slices[slice_]
        if isinstance(merged, Rows):
            if _is_mxnets(type(optimizer)) and type(optimizer).__name__ in _BY_ROWS:
                _update_rows(optimizer, key.name, weight, merged, state)
                return
            gradient = _row_sparse(merged, shape)
        else:
            gradient = array_over(np.ascontiguousarray(merged).reshape(shape))
        optimizer.update_multi_precision(key.name, weight, gradient, state)
        # Raises what the operators raised, and keeps ``merged`` alive until they have read it.
        weight.wait_to_read()

    def state(self, slice_: Slice) -> Optional[SliceState]:
        """The state of a slice, or of the whole key that begins with it, if it has one yet."""
        if slice_ not in self._slices:
            return None
        optimizer, _, state = self._slices[slice_]
        layout, arrays = flatten(state)
        count = optimizer._index_update_count.get(slice_.key.name, 0)
        original = vars(self._optimizer)
        scalars = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in vars(optimizer).items()
            if isinstance(value, (bool, int, float, np.number))
            and name != "num_update"
            and value != original.get(name)
        }
        specs = tuple((array.dtype.name, array.shape) for array in arrays)
        return SliceState(StateSpec(layout, specs, count, scalars), arrays)

    def restore(self, slice_: Slice, value: np.ndarray, state: SliceState) -> None:
        """Go on from ``state``, which `state` has given for the same elements, ``value`` (1-D)."""
        key, spec = slice_.key, state.spec
        optimizer = self._copy()
        for name, scalar in spec.scalars.items():
            setattr(optimizer, name, scalar)
        optimizer._index_update_count[key.name] = spec.count
        optimizer.num_update = max(optimizer.num_update, spec.count)
        shape = key.shape if value.size == key.size else slice_.shape
        weight = array_over(value.reshape(shape))
        self._slices[slice_] = (optimizer, weight, unflatten(spec.layout, state.arrays))

    def _copy(self) -> Any:
        optimizer = copy.copy(self._optimizer)
        optimizer._all_index_update_counts = {0: {}}
        optimizer._index_update_count = optimizer._all_index_update_counts[0]
        optimizer.lr_scheduler = copy.deepcopy(optimizer.lr_scheduler)
        return optimizer


def _row_sparse(rows: Rows, shape: Tuple[int, ...]) -> Any:
    mx = import_mxnet()
    if not rows.ids.size:
        return mx.nd.sparse.zeros("row_sparse", shape, dtype=rows.values.dtype)
    values = rows.values.reshape(rows.ids.size, *shape[1:])
    return mx.nd.sparse.row_sparse_array((values, rows.ids), shape=shape, dtype=values.dtype)


def _update_rows(optimizer: Any, name: Any, weight: Any, rows: Rows, state: Any) -> None:
    """Update these rows of weight and state by a dense gradient of theirs."""
    if not rows.ids.size:
        optimizer._update_count(name)
        return
    mx = import_mxnet()
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
