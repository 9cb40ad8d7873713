"""Who has joined in which store, and who must be told when the epoch ends. Pure.

A worker that has no more data *joins*. When all children of a store have joined or left, the epoch
ends: on an owner at once, and on a server with servers above it when those say so.
"""

from typing import Any, Dict, Set

from .store import Store

__all__ = ["Epochs"]


class Epochs:
    """The joins of all stores of one server."""

    def __init__(self) -> None:
        self._joined: Dict[int, Dict[int, int]] = {}  # store -> child -> its Join's serial number
        self._ending: Set[int] = set()  # stores for which those above have been asked

    def join(self, number: int, child: int, serial: int) -> None:
        """A child has joined in a store, and is to be told when the epoch ends."""
        self._joined.setdefault(number, {})[child] = serial

    def must_end(self, number: int, store: Store[Any]) -> bool:
        """Whether all have joined; True once for each epoch."""
        if not store.have_all_joined or number in self._ending:
            return False
        self._ending.add(number)
        return True

    def end(self, number: int, store: Store[Any]) -> Dict[int, int]:
        """Begin the next epoch; returns the children to be told, with their Joins' serials."""
        self._ending.discard(number)
        store.begin_epoch()
        return self._joined.pop(number, {})

    def forget(self, number: int) -> None:
        """A store has been closed by all."""
        self._joined.pop(number, None)
        self._ending.discard(number)
