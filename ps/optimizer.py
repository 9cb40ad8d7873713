"""MXNet's optimizers on a server: load one from a worker, apply it to one slice after another.

MXNet is imported here only when an optimizer arrives, because it takes a second and a store
without an optimizer does not need it.
"""

import copy
import importlib
import io
import pickle
from typing import Any, Dict, Tuple

import numpy as np

from .errors import UsageError
from .mxnet_compat import array_over, import_mxnet
from .plan import Slice
from .wire import Multipliers

__all__ = ["SliceUpdater", "dump_optimizer", "load_optimizer"]

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
# Norms over a parameter or its rows, of which a slice is only a part.
_NEEDS_WHOLE_ARRAYS = ("LARS", "LBSGD", "LAMB", "GroupAdaGrad")
_MXNET_MODULES = ("mxnet.optimizer", "mxnet.lr_scheduler")


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.generic):
            plain = value.item()
            return type(plain), (plain,)
        return NotImplemented


def dump_optimizer(optimizer: Any) -> bytes:
    """``optimizer`` as `load_optimizer` takes it."""
    file = io.BytesIO()
    _Pickler(file, protocol=4).dump(optimizer)
    return file.getvalue()


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


def load_optimizer(pickled: bytes, lr_mult: Multipliers, wd_mult: Multipliers) -> Any:
    """The ``mx.optimizer.Optimizer`` in ``pickled``, with per-key multipliers put back.

    Raises UsageError if it is not an optimizer or names a class outside the allow-list.
    """
    mx = import_mxnet()
    try:
        optimizer = _AllowListUnpickler(io.BytesIO(pickled)).load()
    except UsageError:
        raise
    except Exception as error:  # whatever a damaged pickle makes pickle raise
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
        self._slices: Dict[Slice, Tuple[Any, Any, Any]] = {}  # optimizer, weight, state

    def set(self, attributes: Dict[str, Any]) -> None:
        """Change hyper-parameters, for every slice from its next round on."""
        for optimizer in [self._optimizer, *(entry[0] for entry in self._slices.values())]:
            for name, value in attributes.items():
                setattr(optimizer, name, value)

    def __call__(self, slice_: Slice, merged: np.ndarray, value: np.ndarray) -> None:
        """Update ``value`` in place by the gradient ``merged``; both are 1-D.

        Raises UsageError if the optimizer needs more than a slice, and what it raises itself.
        """
        key = slice_.key
        shape = key.shape if len(key.slices) == 1 else value.shape
        if slice_ not in self._slices:
            optimizer = self._copy_for(slice_)
            weight = array_over(value.reshape(shape))
            state = optimizer.create_state_multi_precision(key.name, weight)
            self._slices[slice_] = (optimizer, weight, state)
        optimizer, weight, state = self._slices[slice_]
        gradient = array_over(np.ascontiguousarray(merged).reshape(shape))
        optimizer.update_multi_precision(key.name, weight, gradient, state)
        # Raises what the operators raised, and keeps ``merged`` alive until they have read it.
        weight.wait_to_read()

    def _copy_for(self, slice_: Slice) -> Any:
        name = type(self._optimizer).__name__
        if len(slice_.key.slices) > 1 and name in _NEEDS_WHOLE_ARRAYS:
            raise UsageError(
                f"{name} needs whole arrays, and key {slice_.key.name!r} is split over servers "
                f"because of its {slice_.key.nbytes} bytes; let the workers update: "
                "gluon.Trainer(..., update_on_kvstore=False)"
            )
        optimizer = copy.copy(self._optimizer)
        optimizer._all_index_update_counts = {0: {}}
        optimizer._index_update_count = optimizer._all_index_update_counts[0]
        optimizer.lr_scheduler = copy.deepcopy(optimizer.lr_scheduler)
        return optimizer
