"""MXNet's optimizers on their way to the servers: written by a worker, read by a server.

The blob holds a pickle and the multipliers of each key, which MXNet leaves out when it pickles an
optimizer for Gluon. A server reads the pickle with an unpickler that knows MXNet's own classes and
plain values only. Code of the user's, in the class of an optimizer of their own, travels by value
and is loaded only from a sender who is known to be worker 0 of this job.
"""

import copy
import importlib
import io
import os
import pickle
import sys
from typing import Any, Iterable, List, Set, Tuple, Union

import msgspec
import mxnet as mx
import numpy as np

from baryon.ps import Multipliers, UsageError, is_scalar

__all__ = ["dump_optimizer", "is_mxnets", "load_optimizer"]

# What a pickled optimizer consists of besides MXNet's own classes. NumPy is left out on purpose: in
# a forged array of objects the sender chooses the pointers. `dump_optimizer` sends NumPy's scalars
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
_MXNET_MODULES = ("mxnet.optimizer", "mxnet.lr_scheduler")


_Factors = Iterable[Tuple[Union[int, str], float]]  # by key


class _Blob(msgspec.Struct, array_like=True):
    pickled: bytes
    lr_mult: Multipliers
    wd_mult: Multipliers
    has_code: bool  # of the user's


def is_mxnets(cls: type) -> bool:
    """Whether MXNet itself has this class."""
    return cls.__module__.split(".")[0] == "mxnet"


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.generic):
            plain = value.item()
            return type(plain), (plain,)
        return NotImplemented


def dump_optimizer(optimizer: Any, lr_mult: _Factors = (), wd_mult: _Factors = ()) -> bytes:
    """The blob of ``optimizer`` and the multipliers of its keys, for `load_optimizer`.

    Code of the user's, of a class defined in the script or in its modules, travels by value. The
    schedule stays here: the servers are told the rates that it gives, beginning with the rate of
    the next update, since another worker's push may reach them before any of rank 0's.
    """
    if optimizer.lr_scheduler is not None:
        rate = _next_rate(optimizer)
        optimizer = copy.copy(optimizer)
        optimizer.lr_scheduler = mx.lr_scheduler.LRScheduler()
        optimizer.lr = rate
    try:
        file = io.BytesIO()
        _Pickler(file, protocol=4).dump(optimizer)
        pickled = file.getvalue()
        _AllowListUnpickler(io.BytesIO(pickled)).load()
        has_code = False
    except Exception:
        pickled, has_code = _dump_with_code(optimizer), True
    return msgspec.msgpack.encode(_Blob(pickled, list(lr_mult), list(wd_mult), has_code))


def _next_rate(optimizer: Any) -> Any:
    """The rate that the schedule gives for the next update; the schedule itself must not move."""
    schedule = optimizer.lr_scheduler
    try:
        schedule = copy.deepcopy(schedule)
    except Exception:  # it has a lock, a file or the like
        return optimizer.lr
    rate = schedule(optimizer.num_update + 1)
    return rate if is_scalar(rate) else optimizer.lr  # rank 0's first push says what is wrong


def _dump_with_code(optimizer: Any) -> bytes:
    """A pickle of the directories in which the server must look for modules, and of a second
    pickle with the optimizer."""
    cls = type(optimizer)
    paths = _own_paths()
    classes = {base.__module__ for base in cls.__mro__ if not is_mxnets(base)}
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
    """A pickle of ``optimizer`` in which everything from these modules travels by value."""
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
    """The directories of modules that were not installed: the script's directory and the like."""
    paths = [os.path.realpath(path) for path in sys.path]
    return [path for path in dict.fromkeys(paths) if os.path.isdir(path) and _is_own(path)]


def _modules_in(paths: List[str]) -> Set[str]:
    """The names of the imported modules that lie in the user's own directories ``paths``."""
    names = set()
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "baryon" or getattr(module, "__name__", None) != name:
            continue
        file = os.path.realpath(getattr(module, "__file__", None) or "")
        if _is_own(file) and any(file.startswith(path + os.sep) for path in paths):
            names.add(name)
    return names


def _is_own(path: str) -> bool:
    """Whether a path lies outside the Python installation."""
    if {"site-packages", "dist-packages"} & set(path.split(os.sep)):
        return False
    places = {os.path.realpath(place) for place in (sys.prefix, sys.base_prefix)}
    return not any(path.startswith(os.path.join(place, "lib") + os.sep) for place in places)


class _AllowListUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _PLAIN:
            return getattr(importlib.import_module(module), name)
        if module in _MXNET_MODULES or module.startswith("mxnet.optimizer."):
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


def load_optimizer(blob: bytes, may_run_code: bool = False) -> Any:
    """The ``mx.optimizer.Optimizer`` in ``blob``, with its multipliers.

    With ``may_run_code``, a blob that contains code of the user's is loaded and its code run: allow
    it only to a sender who has proven to be worker 0 of this job. All others may consist of MXNet's
    classes and plain values only.

    Raises UsageError if the blob is not an optimizer, cannot be read, or names another class.
    """
    try:
        sent = msgspec.msgpack.decode(blob, type=_Blob)
        if not sent.has_code:
            optimizer = _AllowListUnpickler(io.BytesIO(sent.pickled)).load()
        elif may_run_code:
            paths, pickled = pickle.loads(sent.pickled)
            sys.path += [path for path in paths if path not in sys.path]
            optimizer = pickle.loads(pickled)
        else:
            raise UsageError(
                "the optimizer is a class of the script's own, and servers take its code over "
                "encrypted connections only; leave out --no-encryption, or let the workers "
                "update: gluon.Trainer(..., update_on_kvstore=False)"
            )
    except UsageError:
        raise
    except Exception as error:  # a damaged pickle, or a user's class, can raise anything
        raise UsageError(f"the optimizer cannot be read: {error}") from error
    if not isinstance(optimizer, mx.optimizer.Optimizer):
        raise UsageError(f"set_optimizer got a {type(optimizer).__name__}, not an optimizer")
    optimizer.lr_mult.update(sent.lr_mult)
    optimizer.wd_mult.update(sent.wd_mult)
    return optimizer
