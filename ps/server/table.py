"""The stores of one server: which are open, who has closed them, and which workers have left. Pure.

A store exists from its first Open until every child has closed it or left. After that its number is
used up. A child may close a store before others have opened it.
"""

from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set

from ..child import Child
from ..errors import ProtocolError, UsageError
from ..memory import MAX_STORES
from ..wire import Open
from .slot import Reply
from .store import Store

__all__ = ["Opened", "StoreTable"]


class Opened(NamedTuple):
    """A new store. ``senders`` has, for each worker, the child that sends its contributions."""

    store: Store[Any]
    senders: Mapping[int, int]


class _Entry(NamedTuple):
    store: Store[Any]
    senders: Mapping[int, int]
    author: int  # the child that opened it first
    message: Open  # and how


class StoreTable(Mapping[int, Store[Any]]):
    """``children`` are all of the server's; ``make(message)`` makes a store. Maps numbers to
    stores."""

    def __init__(self, children: Sequence[Child], make: Callable[[Open], Opened]) -> None:
        self.closed: Dict[int, Set[int]] = {}  # store -> the children that have closed it
        self._children = children
        self._make = make
        self._open: Dict[int, _Entry] = {}
        self._used_up: Set[int] = set()  # the numbers of stores that all have closed
        self._left: Set[int] = set()  # ranks of workers

    def __getitem__(self, number: int) -> Store[Any]:
        return self._open[number].store

    def __iter__(self) -> Iterator[int]:
        return iter(self._open)

    def __len__(self) -> int:
        return len(self._open)

    # -- events -------------------------------------------------------------------------------

    def open(self, child: int, message: Open) -> bool:
        """A child opens a store; returns whether it is the first to do so.

        Raises ProtocolError if the child cannot open it, and UsageError if another child has opened
        it in another way.
        """
        number, name = message.store, self._children[child].name
        _check(number)
        if number in self._used_up or child in self.closed.get(number, ()):
            raise ProtocolError(f"{name} opened store {number}, now closed")
        if number not in self._open:
            if message.staleness is not None and message.staleness < 0:
                raise ProtocolError(f"a store with a staleness of {message.staleness}")
            store, senders = self._make(message)
            self._open[number] = _Entry(store, senders, child, message)
            return True
        first = self._open[number]
        if message != first.message:
            author = self._children[first.author].name
            raise UsageError(
                f"kvstore number {number} is {_kind(first.message)} on {author} and "
                f"{_kind(message)} on {name}; create the same kvstores in the same order, "
                "and give them like optimizers, on all workers"
            )
        return False

    def close(self, child: int, number: int) -> None:
        """A child will not use a store again. Raises ProtocolError if it has something under way
        there."""
        _check(number)
        if number in self._open:
            self._open[number].store.check_can_close(child)
        if number not in self._used_up:
            self.closed.setdefault(number, set()).add(child)

    def leave(self, rank: int) -> None:
        """A worker has ended well; `without` says what that means for each store."""
        self._left.add(rank)

    def without(self, number: int, rank: int) -> List[Reply]:
        """Tell a store that a worker has left; returns what can be answered now."""
        store, senders = self._open[number][:2]
        child = senders.get(rank)
        return store.leave(child) if child is not None and self.has_left(child) else []

    def take_finished(self, number: int) -> Optional[Store[Any]]:
        """Forget a store that every child has closed, if not left; returns it, or None."""
        entry, closed = self._open.get(number), self.closed.get(number)
        if entry is None or closed is None:
            return None
        if not all(child in closed or self.has_left(child) for child in entry.store.children):
            return None
        del self._open[number], self.closed[number]
        self._used_up.add(number)
        return entry.store

    # -- what it knows ------------------------------------------------------------------------

    @property
    def left(self) -> Set[int]:
        """The ranks of the workers that have left."""
        return self._left

    def has_left(self, child: int) -> bool:
        """Whether all workers that a child speaks for have left."""
        return self._left.issuperset(self._children[child].ranks)

    def used_by(self, child: int, number: int) -> Store[Any]:
        """The store ``number``; raises ProtocolError if the child cannot use it."""
        if child in self.closed.get(number, ()):
            raise ProtocolError(f"{self._children[child].name} has closed store {number}")
        if number not in self._open:
            raise ProtocolError(f"store {number} has not been opened")
        return self._open[number].store


def _check(number: int) -> None:
    if not 0 <= number < MAX_STORES:
        raise ProtocolError(f"there is no store {number}; their numbers are below {MAX_STORES}")


def _kind(message: Open) -> str:
    """How a store was opened, for a message to the user."""
    extras = ["whole keys"] if message.has_whole_keys else []
    if message.staleness is not None:
        extras.append(f"a staleness of {message.staleness}")
    return " with ".join([repr(message.kind), *([" and ".join(extras)] if extras else [])])
