"""What differs between a server that owns parameters and one with servers above it.

`Owner` (owner.py) applies the optimizer and answers by itself; `Relay` (relay.py) passes on what
its children say and waits for those above. A `Server` has one or the other and does not ask which.
Called from the server's reactor thread only.
"""

import abc
from typing import Any, Callable, List, NamedTuple, Optional

from .. import wire
from ..compression import Compression
from ..errors import ProtocolError
from ..memory import HostMemory
from ..plan import Plan
from .children import Children
from .slot import Reply
from .store import Store
from .table import Opened

__all__ = ["Site", "Upstream"]


class Site(NamedTuple):
    """Where stores are made: on server number ``server`` of ``num_owners``, with the host's
    ``memory`` if its tasks share some."""

    server: int
    num_owners: int
    children: Children
    memory: Optional[HostMemory]

    def plan(self, message: wire.Open) -> Plan:
        return Plan(self.num_owners, has_whole_keys=message.has_whole_keys)

    @property
    def names(self) -> List[str]:
        return [child.name for child in self.children.all]


class Upstream(abc.ABC):
    """``on_accepted(message)`` is called when a setting of worker 0 holds on this server and on all
    above."""

    def __init__(self, site: Site, on_accepted: Callable[[wire.Accepted], None]) -> None:
        self._site = site
        self._on_accepted = on_accepted

    @abc.abstractmethod
    def open(self, message: wire.Open) -> Opened:
        """Make a store; raises ProtocolError if there can be no such store here."""

    @abc.abstractmethod
    def close(self, number: int, store: Store[Any]) -> None:
        """All children have closed a store."""

    @abc.abstractmethod
    def set_updater(self, message: wire.SetUpdater, store: Store[Any], is_new: bool) -> List[Reply]:
        """Worker 0 has sent an optimizer (``is_new``), or has sent it again."""

    @abc.abstractmethod
    def check_hyper(self, message: wire.SetHyper, store: Store[Any]) -> None:
        """Raise ProtocolError if these hyper-parameters are known to be wrong here."""

    @abc.abstractmethod
    def set_hyper(self, message: wire.SetHyper, store: Store[Any], is_new: bool) -> None:
        """Worker 0 has changed hyper-parameters (``is_new``), or has said so again."""

    @abc.abstractmethod
    def join(self, number: int, done: Callable[[], None]) -> None:
        """All children of a store have joined; call ``done`` when the epoch ends."""

    @abc.abstractmethod
    def declare(self, number: int, plan: Plan) -> None:
        """A store's plan may have new keys."""

    @abc.abstractmethod
    def compress(self, number: int, compression: Compression) -> None:
        """A store's payloads are compressed."""

    @abc.abstractmethod
    def rise(self, number: int) -> None:
        """Send up what store ``number`` has merged by now; there may be no such store."""


def check_kind(message: wire.Open) -> None:
    """Raise ProtocolError unless a synchronous store is to be opened."""
    if message.kind != "sync":
        raise ProtocolError(f"this server has no store of the kind {message.kind!r}")
