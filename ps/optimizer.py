"""MXNet's optimizers on a server: load one from a worker, apply it to one slice after another.

MXNet is imported here only when an optimizer arrives, because it takes a second and a store
without an optimizer does not need it.
"""

import copy
import importlib
import io
import os
import pickle
import sys
from typing import Any, Dict, List, Optional, Set, Tuple

import numpy as np

from .errors import UsageError
from .mxnet_compat import array_over, import_mxnet
from .plan import Slice
from .rows import Part, Rows
from .states import SliceState, flatten, unflatten
from .versions import Versions, is_scalar, set_scalars
from .wire import Multipliers, SetHyper, StateSpec

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

    Such code, of a class defined in the script or in its modules, travels by value. The schedule
    stays here: of it the servers are told the rates, from the one of the next update on, since
    another worker's push may come before any of rank 0's.
    """
    if optimizer.lr_scheduler is not None:
        rate = _next_rate(optimizer)
        optimizer = copy.copy(optimizer)
        optimizer.lr_scheduler = import_mxnet().lr_scheduler.LRScheduler()
        optimizer.lr = rate
    try:
        file = io.BytesIO()
        _Pickler(file, protocol=4).dump(optimizer)
        _AllowListUnpickler(io.BytesIO(file.getvalue())).load()
        return file.getvalue(), False
    except Exception:
        return _dump_with_code(optimizer), True


def _next_rate(optimizer: Any) -> Any:
    """What the schedule, which must not move yet, gives for the next update."""
    schedule = optimizer.lr_scheduler
    try:
        schedule = copy.deepcopy(schedule)
    except Exception:  # it has a lock, a file or the like
        return optimizer.lr
    rate = schedule(optimizer.num_update + 1)
    return rate if is_scalar(rate) else optimizer.lr  # rank 0's first push says what is wrong


def _dump_with_code(optimizer: Any) -> bytes:
    """What is pickled is where modules are found that are imported there, and the optimizer."""
    cls = type(optimizer)
    paths = _own_paths()
    classes = {base.__module__ for base in cls.__mro__ if not _is_mxnets(base)}
    try:
        try:
            pickled = _dump_by_value(optimizer, classes | _modules_in(paths))
        except Exception:  # a module may have what cannot be pickled: then it is imported there
            pickled = _dump_by_value(optimizer, classes)
    except Exception as error:
        raise UsageError(
            f"the optimizer {cls.__name__} cannot be sent to the servers: {error}; "
            "keep files, locks and the like out of it, or let the workers update: "
            "gluon.Trainer(..., update_on_kvstore=False)"
        ) from error
    return pickle.dumps((paths, pickled), protocol=4)


def _dump_by_value(optimizer: Any, names: Set[str]) -> bytes:
    """``optimizer`` with all that it has of these modules."""
    import cloudpickle  # type: ignore[import-untyped]  # a tenth of a second that few scripts need

    found = [sys.modules[name] for name in names - {"builtins", "__main__"} if name in sys.modules]
    for module in found:
        cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps(optimizer, protocol=4)
    finally:
        for module in found:
            cloudpickle.unregister_pickle_by_value(module)


def _own_paths() -> List[str]:
    """Where modules are found that were not installed: the script's directory and the like."""
    paths = [os.path.realpath(path) for path in sys.path]
    return [path for path in dict.fromkeys(paths) if os.path.isdir(path) and _is_own(path)]


def _modules_in(paths: List[str]) -> Set[str]:
    """The names of the modules that lie in directories of the script's."""
    names = set()
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "baryon" or getattr(module, "__name__", None) != name:
            continue
        file = os.path.realpath(getattr(module, "__file__", None) or "")
        if _is_own(file) and any(file.startswith(path + os.sep) for path in paths):
            names.add(name)
    return names


def _is_own(path: str) -> bool:
    """Whether a path is not of the Python installation."""
    if {"site-packages", "dist-packages"} & set(path.split(os.sep)):
        return False
    places = {os.path.realpath(place) for place in (sys.prefix, sys.base_prefix)}
    return not any(path.startswith(os.path.join(place, "lib") + os.sep) for place in places)


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
        if has_code:
            paths, pickled = pickle.loads(pickled)
            sys.path += [path for path in paths if path not in sys.path]
            optimizer = pickle.loads(pickled)
        else:
            optimizer = _AllowListUnpickler(io.BytesIO(pickled)).load()
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

    Each slice has an optimizer of its own, a shallow copy with its own update counts and version
    of the attributes: some of MXNet's optimizers keep state that moves on with every update, and
    slices are updated in any order. So what a slice becomes depends on its own rounds alone.
    """

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer  # as it came
        self._versions = Versions()
        self._needs_whole_keys = needs_whole_keys(optimizer)
        self._slices: Dict[Slice, _Updated] = {}

    def check(self, change: SetHyper) -> None:
        """Raise ProtocolError for attributes that are not to be set."""
        set_scalars(copy.copy(self._optimizer), change.scalars)

    def set(self, change: SetHyper) -> None:
        """Take the next version of the optimizer's attributes, which `check` has seen."""
        self._versions.add(change)

    def __call__(
        self, slice_: Slice, merged: Part, value: np.ndarray, version: Optional[int] = None
    ) -> None:
        """Update ``value`` (1-D) in place by the gradient ``merged``; both are of the slice or of
        the whole key that begins with it. Rows are a row-sparse gradient to the optimizer.
        ``version`` is that of the attributes; None: the last one.

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
        updated = self._slices.get(slice_)
        if updated is None:
            weight = array_over(value.reshape(shape))
            updated = self._slices[slice_] = _Updated(self._copy(key.name), weight)
            self._bring_to(updated, key.name, version)
            updated.state = updated.optimizer.create_state_multi_precision(key.name, weight)
        else:
            self._bring_to(updated, key.name, version)
        optimizer, weight, state = updated.optimizer, updated.weight, updated.state
        if isinstance(merged, Rows):
            is_by_rows = _is_mxnets(type(optimizer)) and type(optimizer).__name__ in _BY_ROWS
            is_lazy = is_by_rows or getattr(optimizer, "lazy_update", False)
            if is_lazy and not merged.ids.size and not self._needs_whole_keys:
                optimizer._update_count(key.name)  # most slices of a big table, at most steps
                return
            if is_by_rows:
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
        updated = self._slices[slice_]
        layout, arrays = flatten(updated.state)
        count = updated.optimizer._index_update_count.get(slice_.key.name, 0)
        told = {**vars(self._optimizer), **updated.told}
        scalars = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in vars(updated.optimizer).items()
            if is_scalar(value) and name != "num_update" and value != told.get(name)
        }
        specs = tuple((array.dtype.name, array.shape) for array in arrays)
        return SliceState(StateSpec(layout, specs, count, scalars), arrays)

    def restore(self, slice_: Slice, value: np.ndarray, state: SliceState) -> None:
        """Go on from ``state``, which `state` has given for the same elements, ``value`` (1-D).

        Where the value is another by now, a float16 weight's copy in float32 follows it.
        """
        key, spec = slice_.key, state.spec
        optimizer = self._copy(key.name)
        set_scalars(optimizer, spec.scalars)
        optimizer._index_update_count[key.name] = spec.count
        optimizer.num_update = max(optimizer.num_update, spec.count)
        shape = key.shape if value.size == key.size else slice_.shape
        updated = _Updated(optimizer, array_over(value.reshape(shape)))
        updated.state = unflatten(spec.layout, state.arrays)
        if value.dtype == np.float16 and optimizer.multi_precision:
            _follow(_copy_in(optimizer, updated.state), updated.weight)
        self._slices[slice_] = updated

    def _copy(self, name: Any) -> Any:
        """A slice's own optimizer, of key ``name``."""
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
        """Have a slice's optimizer have the attributes of a version."""
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

    ``told`` are those that the script has set, as it has set them.
    """

    __slots__ = ("optimizer", "state", "told", "version", "weight")

    def __init__(self, optimizer: Any, weight: Any) -> None:
        self.optimizer = optimizer
        self.weight = weight
        self.state: Any = None
        self.version = 0
        self.told: Dict[str, Any] = {}


class _TheScripts:
    """Stands for a schedule, which stays with worker 0's script: that says what rate it gives."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer

    @property
    def base_lr(self) -> Any:
        return self._optimizer.lr

    def __call__(self, num_update: int) -> Any:
        return self._optimizer.lr


def _copy_in(optimizer: Any, state: Any) -> Any:
    """A float16 weight's copy in float32, where MXNet's own code has put it in the state."""
    if type(optimizer).__name__ == "LAMB":  # which never writes to its copy
        return None
    name = "create_state_multi_precision"
    maker = next(cls for cls in type(optimizer).__mro__ if name in vars(cls))
    if not _is_mxnets(maker) or not isinstance(state, tuple) or len(state) != 2:
        return None
    return state[0 if maker.__name__ == "Optimizer" else 1]


def _follow(copy: Any, weight: Any) -> None:
    """Give the elements of ``copy`` that are not those of ``weight`` any more its values."""
    if copy is None or copy.shape != weight.shape:
        return
    is_same = copy.astype("float16").asnumpy() == weight.asnumpy()
    copy[:] = np.where(is_same, copy.asnumpy(), weight.asnumpy().astype("float32"))


def _row_sparse(rows: Rows, shape: Tuple[int, ...]) -> Any:
    mx = import_mxnet()
    if not rows.ids.size:
        return mx.nd.sparse.zeros("row_sparse", shape, dtype=rows.values.dtype)
    values = rows.values.reshape(rows.ids.size, *shape[1:])
    return mx.nd.sparse.row_sparse_array((values, rows.ids), shape=shape, dtype=values.dtype)


def _update_rows(optimizer: Any, name: Any, weight: Any, rows: Rows, state: Any) -> None:
    """Update these rows of weight and state by a dense gradient of theirs."""
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
