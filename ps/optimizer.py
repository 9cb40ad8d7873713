"""MXNet's optimizers on a server: load one from a worker, apply it to one slice after another.

MXNet is imported here only when an optimizer arrives, because it takes a second and a store
without an optimizer does not need it.
"""

import importlib
import io
import pickle
from typing import Any, Dict, List, Tuple, Union

import numpy as np

from .errors import UsageError
from .mxnet_compat import array_over, import_mxnet
from .plan import Slice

__all__ = ["SliceUpdater", "load_optimizer"]

Multipliers = List[Tuple[Union[int, str], float]]

# What a pickled optimizer consists of besides MXNet's own classes.
_PLAIN = {
    ("builtins", "set"),
    ("builtins", "frozenset"),
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    ("copyreg", "_reconstructor"),
    ("builtins", "object"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy.core.multiarray", "_reconstruct"),
}
_MXNET_MODULES = ("mxnet.optimizer", "mxnet.lr_scheduler")


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

    An optimizer counts updates per key and derives a schedule's step from the highest count, but
    a key may have several slices here and their rounds may overlap with those of other keys. So
    the counts are set from the slice's own round before each update, and a slice's learning rate
    depends on its round alone.
    """

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self._weights: Dict[Slice, Any] = {}  # NDArrays over the store's memory
        self._states: Dict[Slice, Any] = {}

    def __call__(self, slice_: Slice, round_: int, merged: np.ndarray, value: np.ndarray) -> None:
        key = slice_.key
        shape = key.shape if len(key.slices) == 1 else value.shape
        if slice_ not in self._weights:
            weight = array_over(value.reshape(shape))
            self._weights[slice_] = weight
            self._states[slice_] = self.optimizer.create_state_multi_precision(key.name, weight)
        weight = self._weights[slice_]
        gradient = array_over(np.ascontiguousarray(merged).reshape(shape))
        optimizer = self.optimizer
        before = optimizer.begin_num_update + round_ - 1
        optimizer.num_update = before
        optimizer._index_update_count[key.name] = before
        optimizer.update_multi_precision(key.name, weight, gradient, self._states[slice_])
        # Raises what the operators raised, and keeps ``merged`` alive until they have read it.
        weight.wait_to_read()
