"""The hyper-parameters that worker 0's script has changed, version by version. Pure.

A change makes the next version, and holds for the pushes that name this version or a later one.
Slices are updated in any order, so each gets the changes between its last update and the next one,
and nothing else: an optimizer changes attributes of its own, and these must stay.
"""

from typing import Any, Dict, List, Tuple, Union

import numpy as np

from .errors import ProtocolError
from .wire import SetHyper

__all__ = ["Versions", "is_scalar", "set_scalars"]

_Name = Union[int, str]


class Versions:
    """The versions of one optimizer's scalar attributes and of each key's multipliers."""

    def __init__(self) -> None:
        self.last = 0  # version 0 is the optimizer as it came
        self._scalars = _History()
        self._multipliers: Dict[_Name, _History] = {}  # for keys with a change

    def add(self, change: SetHyper) -> None:
        """Take a change. After it, no version below its ``oldest`` may be asked for."""
        self.last = change.version
        self._scalars.add(change, change.scalars)
        for table in ("lr_mult", "wd_mult"):
            for name, factor in getattr(change, table):
                self._multipliers.setdefault(name, _History()).add(change, {table: factor})

    def scalars(self, after: int, version: int) -> Dict[str, Any]:
        """The attributes that the versions from ``after + 1`` to ``version`` have changed."""
        return self._scalars.changes(after, version)

    def multipliers(self, key: _Name, after: int, version: int) -> Dict[str, float]:
        """Like `scalars`, for a key's "lr_mult" and "wd_mult"."""
        history = self._multipliers.get(key)
        return {} if history is None else history.changes(after, version)


class _History:
    def __init__(self) -> None:
        self._values: Dict[str, List[Tuple[int, Any]]] = {}  # name -> (version, value)

    def add(self, change: SetHyper, values: Dict[str, Any]) -> None:
        for name, value in values.items():
            self._values.setdefault(name, []).append((change.version, value))
        for entries in self._values.values():
            while len(entries) > 1 and entries[1][0] <= change.oldest:
                del entries[0]

    def changes(self, after: int, version: int) -> Dict[str, Any]:
        found = {}
        for name, entries in self._values.items():
            at, value = next((e for e in reversed(entries) if e[0] <= version), (0, None))
            if at > after:
                found[name] = value
        return found


# Not set by message: the schedule stays in the script, which sends the rates.
_RESERVED = ("lr_scheduler", "begin_num_update")


def is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, np.number))


def set_scalars(optimizer: Any, scalars: Dict[str, Any]) -> None:
    """Set attributes whose names and values have come over the wire.

    A name is allowed if the optimizer and its class have a number, a string or the like under it,
    or nothing; never if one has a method or another object. Raises ProtocolError with all
    wrong names.
    """
    own, cls = vars(optimizer), type(optimizer)
    wrong = [
        repr(name)
        for name, value in scalars.items()
        if not (name.isidentifier() and is_scalar(value) and is_scalar(own.get(name)))
        or name in _RESERVED
        or name.startswith("__")
        or not is_scalar(getattr(cls, name, None))
    ]
    if wrong:
        raise ProtocolError(f"{', '.join(wrong)} of {cls.__name__} is not to be set by message")
    own.update(scalars)
