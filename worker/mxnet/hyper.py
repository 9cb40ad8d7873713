"""The script's optimizer, which the servers have a copy of: its counts, and changes to it.

On one machine an optimizer counts the updates of each key, and its schedule derives the rate from
the counts. Here it does the same in each worker, push by push. So the script reads the present rate
in it, and another store or a file that gets it later goes on from there.

Before each push of a key, rank 0 compares the attributes to apply that push with and those that the
servers have. The rate that a schedule gives is one of them, so a schedule may be any function, may
keep state, and may be changed or replaced at any time.
"""

import warnings
from typing import Any, Dict, NamedTuple, Optional, Set, Tuple, Union

import numpy as np

from baryon.ps import Multipliers, Scalar, UsageError, is_scalar

__all__ = ["Change", "LiveHyper"]

_Name = Union[int, str]
# Attributes that reach the servers in other ways, or stay here.
_ELSEWHERE = {
    *("lr", "lr_scheduler", "lr_mult", "wd_mult", "param_dict", "idx2name", "sym_info"),
    *("num_update", "begin_num_update", "_index_update_count", "_all_index_update_counts"),
}
_UNKNOWN = object()


class Change(NamedTuple):
    """What the servers must be told, and the version that results (wire.SetHyper)."""

    version: int
    scalars: Dict[str, Scalar]
    lr_mult: Multipliers
    wd_mult: Multipliers


class LiveHyper:
    """An optimizer as it is in the script, and as the servers know it."""

    def __init__(self, optimizer: Any, version: int = 0) -> None:
        self.version = version  # the latest
        self._optimizer = optimizer
        self._seen = dict(vars(optimizer))
        self._rate = _UNKNOWN if optimizer.lr_scheduler is not None else optimizer.lr
        self._num_update = optimizer.num_update
        tables = optimizer.param_dict, optimizer.lr_mult, optimizer.wd_mult, optimizer.idx2name
        self._factors = {name: self._factors_of(name) for table in tables for name in table}
        self._warned: Set[str] = set()

    @property
    def multipliers(self) -> Tuple[Multipliers, Multipliers]:
        """Those of all keys; MXNet leaves Gluon's out when it pickles an optimizer."""
        told = self._factors.items()
        return [(name, lr) for name, (lr, _) in told], [(name, wd) for name, (_, wd) in told]

    def count(self, name: _Name) -> None:
        """Count a push of a key, which will update it once more."""
        self._optimizer._update_count(name)

    @property
    def counts(self) -> Dict[_Name, int]:
        """How often each key has been pushed."""
        return dict(self._optimizer._index_update_count)

    def count_up_to(self, counts: Dict[_Name, int]) -> None:
        """Raise each key's count to at least that of ``counts``."""
        own = self._optimizer._index_update_count
        for name, count in counts.items():
            own[name] = max(count, own.get(name, 0))
        self._optimizer.num_update = max([self._optimizer.num_update, *counts.values()])

    def take_change(self, name: _Name) -> Optional[Change]:
        """What the servers must be told before they apply a push of key ``name``, or None.

        The push has been counted. Raises UsageError for a rate that is not a number.
        """
        optimizer = self._optimizer
        num_update = self._seen["num_update"] = optimizer.num_update
        scalars = self._changed_scalars() if self._has_changed() else {}
        schedule = optimizer.lr_scheduler
        rate = optimizer.lr if schedule is None else schedule(num_update)
        if rate != self._rate:
            scalars["lr"] = self._rate = _number(rate)
        if num_update not in (optimizer._index_update_count.get(name), self._num_update):
            scalars["num_update"] = self._num_update = num_update
        factors = self._factors_of(name)
        is_other = factors != self._factors.get(name, (1.0, 1.0))
        if not scalars and not is_other:
            return None
        self.version += 1
        if not is_other:
            return Change(self.version, scalars, [], [])
        self._factors[name] = factors
        return Change(self.version, scalars, [(name, factors[0])], [(name, factors[1])])

    def _has_changed(self) -> bool:
        try:  # quick, since an attribute that is the same object counts as equal
            return bool(vars(self._optimizer) != self._seen)
        except ValueError:  # arrays cannot be compared like this
            return True

    def _changed_scalars(self) -> Dict[str, Scalar]:
        """The attributes that the script has changed; on the servers the optimizer itself changes
        others."""
        before, self._seen = self._seen, dict(vars(self._optimizer))
        changed: Dict[str, Scalar] = {}
        for name, value in self._seen.items():
            old = before.get(name, _UNKNOWN)
            if name in _ELSEWHERE or value is old:
                continue
            if is_scalar(value):
                if not is_scalar(old) or value != old:
                    changed[name] = _plain(value)
            elif name not in self._warned:
                self._warned.add(name)
                warnings.warn(
                    f"the optimizer's attribute {name!r} was set to a {type(value).__name__}; the "
                    "servers, which update the weights, are told of changed numbers and strings "
                    "only, and keep the old value. Call kv.set_optimizer(optimizer) again on all "
                    "workers; this starts with new states",
                    stacklevel=2,
                )
        return changed

    def _factors_of(self, name: _Name) -> Tuple[float, float]:
        """A key's multipliers of the rate and of the decay, looked up as MXNet does."""
        optimizer = self._optimizer
        parameter = optimizer.param_dict.get(name)
        if parameter is not None:
            return parameter.lr_mult, parameter.wd_mult
        alias = optimizer.idx2name.get(name, name)
        lr_mult, wd_mult = optimizer.lr_mult, optimizer.wd_mult
        return lr_mult.get(name, lr_mult.get(alias, 1.0)), wd_mult.get(
            name, wd_mult.get(alias, 1.0)
        )


def _plain(value: Any) -> Scalar:
    return value.item() if isinstance(value, np.generic) else value


def _number(rate: Any) -> Scalar:
    if not is_scalar(rate):
        raise UsageError(f"the optimizer's learning rate is {rate!r}, which is not a number")
    return _plain(rate)
