"""The tasks that speak to a server: who they are, and which connection of each is the latest.

A child's connection may break and be made again. A server hears a child on its latest connection
only, which begins with Hello. Messages that still arrive from an older connection are dropped; the
child sends them again.

The key of an encrypted connection tells the server who has sent a message. Without encryption a
connection has no key, and a child's Hello contains a token that only the child and its servers
know.
"""

import logging
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import zmq

from .. import wire
from ..child import Child
from ..errors import ProtocolError
from ..transport import Authenticator

__all__ = ["Children", "Connection"]

log = logging.getLogger("baryon.server")


class Connection(NamedTuple):
    route: bytes  # the ROUTER's name of it
    number: int  # the child's
    member: int = 0  # in the host's memory, where its payloads are; 0: they travel
    is_introduced: bool = False  # its Hello has been accepted


class Children:
    """The children of one server, counted from 0. ``authenticator`` is None without encryption.

    ``children`` are the server's children in the tree of servers. ``guests`` are workers further
    down, which speak to an owner themselves where nothing is added up on the way.
    """

    def __init__(
        self,
        children: Sequence[Child],
        guests: Sequence[Child],
        authenticator: Optional["Authenticator[int]"],
    ) -> None:
        self.all = (*children, *guests)
        self.in_tree = range(len(children))
        # rank -> the child in the tree that sends the contributions of that worker
        self.senders = {rank: i for i, child in enumerate(children) for rank in child.ranks}
        self._authenticator = authenticator
        self._by_token = {child.token: index for index, child in enumerate(self.all)}
        self._by_route: Dict[bytes, int] = {}  # without encryption
        self._latest: Dict[int, Connection] = {}

    def __len__(self) -> int:
        return len(self.all)

    def __getitem__(self, child: int) -> Connection:
        """The latest connection of a child; KeyError if it has none."""
        return self._latest[child]

    def connected(self) -> List[int]:
        return list(self._latest)

    def name(self, child: int) -> str:
        return self.all[child].name

    def workers(self) -> Dict[int, int]:
        """rank -> child, for all workers that can speak to this server themselves."""
        return {c.ranks[0]: index for index, c in enumerate(self.all) if c.is_worker}

    def sender(self, frames: List[zmq.Frame]) -> Optional[int]:
        """The child that sent the message ``[route, header, ...]``; None for a stranger's."""
        if self._authenticator is not None:
            return self._authenticator.peer(frames[-1])
        route = frames[0].bytes
        if route not in self._by_route:
            hello = _hello_in(frames)
            if hello is None or hello.token not in self._by_token:
                return None
            self._by_route[route] = self._by_token[hello.token]
        return self._by_route[route]

    def is_heard(self, child: int, frames: List[zmq.Frame]) -> Tuple[bool, bool]:
        """Whether a child's message came on its latest connection, and whether that connection has
        just replaced an older one, which only a Hello can do.

        Raises ProtocolError for such a Hello with false claims.
        """
        route, latest = frames[0].bytes, self._latest.get(child)
        if latest is None:  # so that a refusal can be sent
            self._latest[child] = Connection(route, 0)
            return True, False
        if route == latest.route:
            return True, False
        hello = _hello_in(frames)
        if hello is None or hello.connection <= latest.number:
            return False, False
        self._check(child, hello)  # before the older connection is given up
        log.info("%s has a new connection", self.name(child))
        self._latest[child] = Connection(route, hello.connection)
        self._by_route.pop(latest.route, None)
        return True, True

    def introduce(self, child: int, hello: wire.Hello) -> None:
        """A child says Hello on its latest connection. Raises ProtocolError for false claims."""
        self._check(child, hello)
        latest = self._latest[child]
        new = Connection(latest.route, hello.connection, hello.member, True)
        if latest.is_introduced and new != latest:
            raise ProtocolError(
                f"{self.name(child)} called its connection number {latest.number} "
                f"{hello.connection}, as member {hello.member}"
            )
        self._latest[child] = new

    def _check(self, child: int, hello: wire.Hello) -> None:
        """Raise ProtocolError unless a Hello is true: no task may write as another member."""
        name, member = self.name(child), self.all[child].member
        if hello.version != wire.VERSION:
            raise ProtocolError(
                f"protocol version {hello.version} met {wire.VERSION}; "
                "install the same version of baryon on all hosts"
            )
        if hello.member not in (0, member):
            raise ProtocolError(
                f"{name} claimed to be member {hello.member} of the host's memory; "
                + (f"it is member {member}" if member else "it shares none with this server")
            )
        if hello.connection < 1:
            raise ProtocolError(f"{name} called a connection number {hello.connection}")


def _hello_in(frames: List[zmq.Frame]) -> Optional[wire.Hello]:
    if len(frames) != 2:
        return None
    try:
        message = wire.DATA.decode(frames[1].buffer)
    except ProtocolError:
        return None
    return message if isinstance(message, wire.Hello) else None
