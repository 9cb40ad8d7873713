"""Baryon's errors, split by whose fault they are.

::

    BaryonError
    ├── UsageError      the script or the command line asked for something impossible
    ├── ProtocolError   a peer sent something that the protocol does not allow
    ├── PeerError       another task of the job failed, left or fell silent
    └── WaitTimeout     nothing is known to be broken, but a wait reached its limit

A message says what happened, to which rank, key or host, how long it took, and what to do.
"""

from typing import Any, Dict, Optional, Tuple, Type

__all__ = [
    "BaryonError",
    "PeerError",
    "ProtocolError",
    "UsageError",
    "WaitTimeout",
    "raise_also_as",
]


class BaryonError(Exception):
    """Any error that Baryon raises on purpose."""

    def __new__(cls, *args: Any, **options: Any) -> "BaryonError":
        return super().__new__(cls if _foreign is None else _both(cls, _foreign), *args, **options)


_foreign: Optional[Type[Exception]] = None
_made: Dict[Type[BaryonError], Type[BaryonError]] = {}


def raise_also_as(foreign: Type[Exception]) -> None:
    """Make every BaryonError of this process, from now on, an instance of ``foreign`` as well.

    For a framework's own error: a script that catches that must catch ours where the framework's
    own code would have raised it.
    """
    global _foreign
    _foreign = foreign
    _made.clear()


def _both(kind: Type[BaryonError], foreign: Type[Exception]) -> Type[BaryonError]:
    """A class that looks like ``kind``, and is a subclass of it and of ``foreign``."""
    if issubclass(kind, foreign):
        return kind
    if kind not in _made:

        def reduce(self: BaryonError) -> Tuple[Any, ...]:  # it may be pickled to another process
            return (kind, self.args, vars(self)) if vars(self) else (kind, self.args)

        names = {"__module__": kind.__module__, "__doc__": kind.__doc__, "__reduce__": reduce}
        _made[kind] = type(kind.__name__, (kind, foreign), names)
    return _made[kind]


class UsageError(BaryonError):
    """The caller asked for something impossible; the message names the remedy."""


class ProtocolError(BaryonError):
    """A peer sent a frame that the protocol does not allow."""


class PeerError(BaryonError):
    """Another task of the job failed, left or fell silent."""


class WaitTimeout(BaryonError):
    """A wait reached its limit; the message names whom it waited for."""
