"""A real server whose children a test speaks for, message by message, without a thread.

Frames are handed to the server as its reactor would hand them over, so that thousands can be tried;
what it answers is kept instead of sent.
"""

import os
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np
import zmq

from baryon.ps import Child, Client, KeyPair, Reactor, Server, ServerAddress, wire
from baryon.ps.memory import HostMemory, Memory


class Told(NamedTuple):
    """What a child was answered; the messages of a batch one by one, with each its own payload."""

    child: int
    message: wire.Message
    payload: bytes


class Conversation:
    """Worker n is child n and, on the server's host, member ``members[n]`` (0: it is elsewhere).

    Its rank is ``first_rank`` more. The first ``introduces`` of them have said Hello, opened the
    stores and declared the keys.
    """

    def __init__(
        self,
        context: zmq.Context,
        members: Sequence[int] = (0, 0, 0),
        guests: Sequence[Child] = (),
        stores: Sequence[wire.Open] = (wire.Open(0, "sync"),),
        keys: Sequence[wire.KeySpec] = (),
        introduces: int = 1 << 10,
        first_rank: int = 0,
        has_parent: bool = False,
    ) -> None:
        self._descriptor = os.memfd_create("memory")
        path = f"/proc/{os.getpid()}/fd/{self._descriptor}"
        self.memory = HostMemory(path, 1)
        self.faults: List[str] = []
        self.told: List[Told] = []
        self._reactor = Reactor()
        self.server = Server(
            self._reactor, context, index=0, num_owners=1, guests=guests, keys=KeyPair("", ""),
            children=[
                Child("", f"worker {n}", (first_rank + n,), f"token {n}", True, member)
                for n, member in enumerate(members)
            ],
            address="127.0.0.1", timeout_s=30.0, on_fault=self.faults.append, encrypts=False,
            memory=self.memory if any(members) else None,
        )  # fmt: skip
        self.above = self._client(context) if has_parent else None
        self.server.serve(self.above)  # its reactor does not run
        self.server._send_to = self._tell  # type: ignore[method-assign]
        self._routes: Dict[bytes, int] = {}  # whose they are
        self._members = members
        for child, member in enumerate(members[:introduces]):
            self.send(child, wire.Hello(wire.VERSION, 1, member, f"token {child}"))
            for store in stores:
                self.send(child, store)
                self.send(child, wire.Declare(store.store, 0, tuple(keys)))

    def _client(self, context: zmq.Context) -> Client:
        """Of a server above, which nobody is."""
        return Client(
            self._reactor, context, keys=KeyPair("", ""), num_owners=1, timeout_s=30.0,
            servers=[ServerAddress("inproc://nobody", "")], silence_s=30.0, encrypts=False,
            on_fault=self.faults.append,
        )  # fmt: skip

    def run_posted(self) -> None:
        """Have the reactor do what it would do next."""
        self._reactor._run_posted()

    def from_above(self, message: wire.Message, *payload: bytes) -> None:
        assert self.above is not None
        frames = [wire.DATA.encode(message), *payload]
        self.above._on_message(0, [*map(zmq.Frame, frames)])

    def _tell(self, route: bytes, message: wire.Message, *payloads: np.ndarray) -> None:
        child = self._routes[route]
        rest = iter(payloads)
        for one in message.messages if isinstance(message, wire.Batch) else (message,):
            has_frame = isinstance(one, wire.AnswerRows) or not isinstance(message, wire.Batch)
            frame = next(rest, None) if has_frame else None
            self.told.append(Told(child, one, b"" if frame is None else frame.tobytes()))

    def send(
        self, child: int, message: wire.Message, *payload: bytes, route: str = ""
    ) -> List[Told]:
        """Hand over a message; returns what anybody was told because of it."""
        return self.hand_over(child, [wire.DATA.encode(message), *payload], route)

    def hand_over(self, child: int, frames: Sequence[bytes], route: str = "") -> List[Told]:
        before = len(self.told)
        name = f"{route or 'route'} {child}".encode()
        self._routes[name] = child
        self.server._on_message([zmq.Frame(name), *map(zmq.Frame, frames)])
        return self.told[before:]

    def place(self, child: int, store: int = 0, key: int = 0) -> np.ndarray:
        """Where a child of the server's host puts what it sends of a key in one slice."""
        plan = self.server._stores[store].plan
        area = Memory(self.memory.area(store, self._members[child]))
        return area.slice(plan.keys[key].slices[0])

    def value(self, store: int = 0, key: int = 0) -> np.ndarray:
        """The server's value of a key in one slice."""
        found = self.server._stores[store]
        (slice_,) = found.plan.keys[key].slices
        return found._memory.slice(slice_)

    def close(self) -> None:
        if self.above is not None:
            self.above.close()
        self.server.close()
        self._reactor.close()
        self.memory.close()
        os.close(self._descriptor)


def is_refused(told: Sequence[Told], child: int) -> bool:
    """Whether the only answer is a Fault to the child itself."""
    return [(one.child, type(one.message)) for one in told] == [(child, wire.Fault)]


def answers(told: Sequence[Told]) -> List[Tuple[int, Any]]:
    return [(one.child, one.message) for one in told]
