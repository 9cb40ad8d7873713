"""The keys that the children of a store have declared, which must be the same for all. Pure.

The first child to declare key number i makes it known. Every other child must declare the same
name, shape and dtype under that number, before it uses the key.
"""

from typing import Dict, Iterable, List, Sequence

from ..errors import ProtocolError, UsageError
from ..plan import Key, Plan
from ..wire import KeySpec

__all__ = ["Declarations"]


class Declarations:
    """Those of one store, whose ``plan`` grows with them; ``names`` are those of all the server's
    children."""

    def __init__(self, plan: Plan, children: Iterable[int], names: Sequence[str]) -> None:
        self._plan = plan
        self._names = names
        self._known: Dict[int, int] = dict.fromkeys(children, 0)  # child -> number of keys
        self._author: Dict[int, int] = {}  # key number -> the child that declared it first

    @property
    def children(self) -> Iterable[int]:
        """The children that have a part in the store."""
        return self._known

    def check_child(self, child: int) -> None:
        """Raise ProtocolError unless the child has a part in the store."""
        if child not in self._known:
            raise ProtocolError(f"{self._names[child]} has no part in this store")

    def check_key(self, child: int, key: Key) -> None:
        """Raise ProtocolError unless the child has declared the key."""
        if key.number >= self._known.get(child, 0):
            raise ProtocolError(f"{self._names[child]} has not declared {key}")

    def declare(self, child: int, first: int, keys: Iterable[KeySpec]) -> List[Key]:
        """A child declares its keys ``first``, ``first + 1``, ...; returns the keys that are new.

        The child may repeat what it has declared before. Raises UsageError if its keys differ from
        another child's, and ProtocolError if there can be no such keys; then nothing has changed.
        """
        keys = tuple(keys)
        if not 0 <= first <= self._known.get(child, -1):
            raise ProtocolError(
                f"{self._names[child]} declared its key number {first} after number "
                f"{self._known.get(child)}"
            )
        num_known = max(0, len(self._plan.keys) - first)
        for number, spec in enumerate(keys[:num_known], first):
            if number >= self._known[child]:
                self._compare(child, number, spec)
            elif not _is_same(self._plan.keys[number], spec):
                raise ProtocolError(
                    f"{self._names[child]} declared its key number {number} after number "
                    f"{self._known[child]}, and not as it had before"
                )
        self._check_new(child, keys[num_known:])
        new = [self._plan.add(spec.name, spec.shape, spec.dtype) for spec in keys[num_known:]]
        self._author.update((key.number, child) for key in new)
        self._known[child] = max(self._known[child], first + len(keys))
        return new

    def _check_new(self, child: int, keys: Sequence[KeySpec]) -> None:
        """Raise ProtocolError unless all can be added to the plan; workers check this first."""
        try:
            for spec in keys:
                self._plan.check(spec.name, spec.shape, spec.dtype)
        except UsageError as error:
            raise ProtocolError(
                f"{self._names[child]} declared an impossible key: {error}"
            ) from error
        if len({spec.name for spec in keys}) < len(keys):
            raise ProtocolError(f"{self._names[child]} declared a key twice")

    def _compare(self, child: int, number: int, spec: KeySpec) -> None:
        """Raise UsageError unless a key is what another child has declared."""
        key = self._plan.keys[number]
        if _is_same(key, spec):
            return
        author = self._names[self._author[number]]
        if key.name == spec.name:
            raise UsageError(
                f"key {key.name!r} is {key.dtype_name}{key.shape} on {author} and "
                f"{spec.dtype}{tuple(spec.shape)} on {self._names[child]}; "
                "all workers must build the same network"
            )
        raise UsageError(
            f"key number {number} is {key.name!r} {key.dtype_name}{key.shape} on {author} "
            f"and {spec.name!r} {spec.dtype}{tuple(spec.shape)} on {self._names[child]}; "
            "initialise the same keys in the same order on all workers"
        )


def _is_same(key: Key, spec: KeySpec) -> bool:
    return (key.name, key.shape, key.dtype_name) == (spec.name, tuple(spec.shape), spec.dtype)
