"""What worker 0's script has changed in its optimizer, version by version. Pure.

A change makes the next version, and holds for the pushes that name it or a later one. So slices,
which are updated in any order, are each told what has changed between their last update and the
next one, and nothing else: optimizers change attributes of their own, which must stay.
"""

from typing import Any, Dict, List, Tuple, Union

import numpy as np

from .errors import ProtocolError
from .wire import SetHyper

__all__ = ["Versions", "is_scalar", "set_scalars"]

_Name = Union[int, str]


class Versions:
    """Of one optimizer: its scalar attributes, and the multipliers of each key."""

    def __init__(self) -> None:
        self.last = 0  # 0 is the optimizer as it came
        self._scalars = _History()
        self._multipliers: Dict[_Name, _History] = {}  # of the keys of which some have changed

    def add(self, change: SetHyper) -> None:
        """Take a change; versions below its ``oldest`` will not be asked for any more."""
        self.last = change.version
        self._scalars.add(change, change.scalars)
        for table in ("lr_mult", "wd_mult"):
            for name, factor in getattr(change, table):
                self._multipliers.setdefault(name, _History()).add(change, {table: factor})

    def scalars(self, after: int, version: int) -> Dict[str, Any]:
        """The attributes that have changed in the versions after ``after`` up to ``version``."""
        return self._scalars.changes(after, version)

    def multipliers(self, key: _Name, after: int, version: int) -> Dict[str, float]:
        """The same of a key's "lr_mult" and "wd_mult"."""
        history = self._multipliers.get(key)
        return {} if history is None else history.changes(after, version)


class _History:
    def __init__(self) -> None:
        self._values: Dict[str, List[Tuple[int, Any]]] = {}  # by name, with the version they are of

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


# An attribute that is no number of the script's: the schedule stays with the script, which says
# what rate it gives.
_RESERVED = ("lr_scheduler", "begin_num_update")


def is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, np.number))


def set_scalars(optimizer: Any, scalars: Dict[str, Any]) -> None:
    """Set attributes whose names and values have come over the wire.

    They may be numbers and the like that the optimizer or its class has, or has nothing of that
    name for: never what it is made of. Raises ProtocolError, with all that is wrong.
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
