"""Builders and checks that the tests of ps/ share.

`LoopThread` and `Job` run real reactors, servers and clients in threads of this process, over TCP
loopback with CURVE. Nothing here sleeps: every wait is for an event, with `LIMIT_S` as its limit.
"""

import queue
import threading
import warnings
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple, Union

import numpy as np
import pytest
import zmq
from zmq.auth.thread import ThreadAuthenticator  # noqa: F401 - imported before threads are counted

from baryon.ps import (
    Child,
    Client,
    Key,
    KeyPair,
    Operation,
    Reactor,
    RowOperation,
    Rows,
    Server,
    ServerAddress,
    ids_in,
    new_key_pair,
    rows_in,
    secure_client,
    wire,
)
from baryon.ps.server.slot import Wait
from baryon.ps.updater import KINDS
from tests.waiting import LIMIT_S, wait_until


class LoopThread:
    """A reactor and a context with a thread of their own."""

    def __init__(self, name: str) -> None:
        self.reactor = Reactor()
        self.context = zmq.Context()
        self.owned: List[Any] = []  # closed in the loop's thread, in this order
        self._error: Optional[BaseException] = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> "LoopThread":
        self._thread.start()
        return self

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """``function(*args)`` as called in the loop's thread, after all that is posted already."""
        result: queue.Queue[Any] = queue.Queue()
        self.reactor.post(lambda: result.put(function(*args)))
        return result.get(timeout=LIMIT_S)

    def join(self) -> None:
        """Wait until the loop has ended, and raise what ended it."""
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive(), f"{self._thread.name} still runs"
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self.reactor.stop()
        self.join()
        self.reactor.close()

    def _run(self) -> None:
        try:
            self.reactor.run()
        except BaseException as error:  # raised again by `join`, in the test's thread
            self._error = error
        finally:
            for resource in self.owned:
                resource.close()
            self.context.destroy(linger=0)


class RecordingServer(Server):
    """A server that remembers whose messages have reached it (None: a stranger's)."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.senders: Set[Optional[int]] = set()
        super().__init__(*args, **options)

    def _on_message(self, frames: List[zmq.Frame]) -> None:
        self.senders.add(self._authenticator.peer(frames[-1]))
        super()._on_message(frames)


class Outcome(Operation):
    """An operation that remembers how it ended, once it has."""

    def __init__(self, kind: str, key: Key, *args: Any, **options: Any) -> None:
        super().__init__(kind, key, *args, **options)
        self.ends: queue.Queue[Optional[str]] = queue.Queue()

    def done(self, error: Optional[str]) -> None:
        self.ends.put(error)

    def error(self) -> Optional[str]:
        """Why the operation failed, or None if it was answered; waits for either."""
        try:
            error = self.ends.get(timeout=LIMIT_S)
        except queue.Empty:
            raise AssertionError(f"{self} has no outcome") from None
        assert self.ends.empty(), f"{self} has ended twice"
        return error

    def is_known(self) -> bool:
        return not self.ends.empty()


class RowOutcome(Outcome, RowOperation):
    pass


def answered(*outcomes: Outcome) -> None:
    """Wait until the operations are answered; fails if one fails."""
    assert [outcome.error() for outcome in outcomes] == [None] * len(outcomes)


class Worker:
    """A real client in its own loop, with one open store."""

    def __init__(
        self, rank: int, keys: KeyPair, servers: List[ServerAddress], silence_s: float
    ) -> None:
        self.faults: queue.Queue[str] = queue.Queue()
        self.loop = LoopThread(f"worker-{rank}")
        self.client = Client(
            self.loop.reactor, self.loop.context,
            name=f"worker {rank}", keys=keys, servers=servers, num_owners=len(servers),
            timeout_s=LIMIT_S, silence_s=silence_s, on_fault=self.faults.put,
        )  # fmt: skip
        self.loop.owned.append(self.client)
        self.loop.start()
        self.store = self.client.open(wire.Open(0, "sync"))
        self.places: Dict[Union[int, str], np.ndarray] = {}
        self.version: Optional[int] = None  # that pushes name

    def key(
        self, name: Union[int, str], shape: Tuple[int, ...], dtype: str = "float32"
    ) -> np.ndarray:
        self.places[name] = self.store.outgoing(self.store.declare(name, shape, dtype))
        return self.places[name]

    def begin(
        self, kind: str, name: Union[int, str], value: Any = None, want_value: bool = False
    ) -> Outcome:
        """Start an operation."""
        if value is not None:
            self.places[name][...] = value
        return self._begin(Outcome(kind, self.store.key(name), want_value))

    def set_hyper(self, scalars: Dict[str, Any], *multipliers: wire.Multipliers) -> None:
        """Make the next version of the optimizer's attributes, and name it from now on."""
        self.version = (self.version or 0) + 1
        self.store.set_hyper(self.version, scalars, *(multipliers or ([], [])))

    def _begin(self, outcome: Outcome) -> Outcome:
        if outcome.kind in ("push", "push_rows"):
            outcome.version = self.version
        self.store.announce(outcome)
        self.store.ready(outcome)
        return outcome

    def begin_rows(self, name: Union[int, str], ids: Any, values: Any) -> Outcome:
        """Start a push of rows; all elements of row ``ids[i]`` are ``values[i]``."""
        key = self.store.key(name)
        elements = np.repeat(np.array(values, key.dtype), key.row_size)
        rows = Rows(np.array(ids, np.int64), elements.reshape(len(ids), key.row_size))
        return self._begin(RowOutcome("push_rows", key, rows_in(key, rows)))

    def pull_rows(self, name: Union[int, str], ids: Any) -> np.ndarray:
        """2-D, a row for each of ``ids``, which must ascend."""
        key = self.store.key(name)
        pull = RowOutcome("pull_rows", key, ids_in(key, np.array(ids, np.int64)))
        answered(self._begin(pull))
        parts = [pull.values[slice_] for slice_ in pull.slices]
        return np.concatenate(parts).view(key.dtype).reshape(len(ids), key.row_size)

    def init(self, name: Union[int, str], value: Any) -> None:
        """Set the first value and wait for the answer; rank 0's to call."""
        answered(self.begin("init", name, value))

    def pull(self, name: Union[int, str]) -> np.ndarray:
        self.places[name][...] = 0
        answered(self.begin("pull", name))
        return self.places[name].copy()


class Job:
    """Servers and workers of one job; `close` stops all and raises what ended a loop."""

    def __init__(self, num_workers: int, num_servers: int = 1, address: str = "127.0.0.1") -> None:
        self.faults: queue.Queue[str] = queue.Queue()
        self.worker_keys = [new_key_pair() for _ in range(num_workers)]
        self.server_keys = [new_key_pair() for _ in range(num_servers)]
        self.servers: List[RecordingServer] = []
        self._loops: List[LoopThread] = []
        self._peers: List[Tuple[zmq.Context, zmq.Socket]] = []
        for index, keys in enumerate(self.server_keys):
            loop = LoopThread(f"server-{index}")
            server = RecordingServer(
                loop.reactor, loop.context,
                index=index, num_owners=num_servers, keys=keys, address=address,
                children=[
                    Child(pair.public, f"worker {rank}", (rank,))
                    for rank, pair in enumerate(self.worker_keys)
                ],
                timeout_s=LIMIT_S, on_fault=self.faults.put,
            )  # fmt: skip
            server.serve()
            loop.owned.append(server)
            self.servers.append(server)
            self._loops.append(loop.start())

    def worker(
        self, rank: int, endpoints: Optional[List[str]] = None, silence_s: float = LIMIT_S
    ) -> Worker:
        """A worker; ``endpoints`` are those of proxies, if it is to reach the servers by some."""
        endpoints = endpoints or [server.endpoint for server in self.servers]
        addresses = [
            ServerAddress(endpoint, keys.public)
            for endpoint, keys in zip(endpoints, self.server_keys)
        ]
        worker = Worker(rank, self.worker_keys[rank], addresses, silence_s)
        self._loops.insert(0, worker.loop)  # closed before the servers
        return worker

    def peer(self, keys: Optional[KeyPair], server_public: Optional[str] = None) -> zmq.Socket:
        """A bare DEALER towards server 0, with CURVE if ``keys`` are given."""
        context = zmq.Context()
        socket = context.socket(zmq.DEALER)
        self._peers.append((context, socket))
        socket.rcvtimeo = int(LIMIT_S * 1000)
        if keys is not None:
            secure_client(socket, keys, server_public or self.server_keys[0].public)
        return socket

    def in_server(self, function: Callable[..., Any], *args: Any) -> Any:
        """``function(*args)`` as called in the thread of server 0."""
        loop = next(loop for loop in self._loops if self.servers[0] in loop.owned)
        return loop.call(function, *args)

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until ``condition()`` is true in the thread of server 0."""
        wait_until(lambda: self.in_server(condition), what)

    def waits(self) -> List[Wait]:
        """What waits at server 0; for its thread."""
        return [wait for store in self.servers[0]._stores.values() for wait in store.waits()]

    def close(self) -> None:
        for context, _ in self._peers:
            context.destroy(linger=0)
        for loop in self._loops:
            loop.close()


def ask(socket: zmq.Socket, frames: List[bytes]) -> Any:
    """Send a message of a bare peer and return the answer's header, decoded."""
    socket.send_multipart(frames)
    return wire.DATA.decode(socket.recv_multipart()[0])


@pytest.fixture
def job(no_leaks: None) -> Iterator[Callable[..., Job]]:
    """Makes jobs, and closes them."""
    jobs: List[Job] = []

    def make(num_workers: int, num_servers: int = 1, address: str = "127.0.0.1") -> Job:
        jobs.append(Job(num_workers, num_servers, address))
        return jobs[-1]

    yield make
    for made in jobs:
        made.close()


@pytest.fixture
def loop_thread(no_leaks: None) -> Iterator[LoopThread]:
    """A loop that has not been started."""
    made = LoopThread("loop")
    yield made
    if made._thread.is_alive():
        made.reactor.stop()
        made._thread.join(LIMIT_S)
    made.reactor.close()
    made.context.destroy(linger=0)


@pytest.fixture(scope="session")
def mx() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MXNet's own
        from baryon.worker.mxnet.compat import import_mxnet

        return import_mxnet()


@pytest.fixture
def numpy_kind(monkeypatch: pytest.MonkeyPatch) -> str:
    """The kind of the optimizer in updaters.py, which servers know for the time of a test."""
    monkeypatch.setitem(KINDS, "numpy", f"{__package__}.updaters")
    return "numpy"
