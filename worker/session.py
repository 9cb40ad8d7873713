"""This process's part in its job: one communication thread, and one way out.

The first store that the script creates begins the session. The thread "baryon-comm" owns every
socket of the process. The script's threads and those of a framework's engine only post to it.

At Python's end the session leaves the job: everything pushed has arrived by then, or the exit code
is not 0. A framework's engine attaches itself (`Session.attach`), because Python must neither fork
nor end while the engine still runs operations of ours.
"""

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from multiprocessing.util import Finalize
from typing import Callable, Deque, List, Optional, Protocol, Set, Tuple

import zmq

from baryon.ps import (
    MAX_STORES,
    BaryonError,
    Client,
    Open,
    PeerError,
    Reactor,
    StoreClient,
    UsageError,
)
from baryon.scheduler.control import (
    ControlClient,
    Credentials,
    Position,
    client_of,
    read_credentials,
)

from . import startup, tracebacks
from .script_end import ScriptEnd
from .track import Track

__all__ = ["Engine", "Session", "session"]

_MAX_SOCKETS = 16_384  # three for each server; by default ZeroMQ ends at 340 servers
_MAX_TRACKS = 16  # the last stores
_SETTLE_S = 1.0  # for an engine, or our thread, when it has nothing left to do
_lock = threading.Lock()
_session: Optional["Session"] = None


def session() -> "Session":
    """The session of this process; the first call begins it.

    Raises UsageError outside a job, and in a process forked from one that has a session.
    """
    global _session
    with _lock:
        if _session is None:
            credentials = read_credentials()
            if credentials is None:
                raise UsageError(
                    "a dist kvstore exists only in a job; start the script by launch.py"
                )
            _session = Session(credentials)
        _session.client.raise_if_forked()
        return _session


class Engine(Protocol):
    """A framework's engine: it runs operations in threads of its own, also some of ours."""

    def wait_for_own(self, limit_s: float) -> bool:
        """Wait until it has none of our operations left; whether that is so."""

    def shut(self) -> None:
        """Refuse new operations of ours from now on."""

    def settle(self, limit_s: float) -> bool:
        """Wait until its threads have left Python for good; whether they have."""


class Session:
    """Joins the job, waits for all others, connects to the servers; leaves when Python ends."""

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        self.pid = os.getpid()
        self._has_left = False
        self._engines: List[Engine] = []
        self._context = zmq.Context()
        self._context.max_sockets = _MAX_SOCKETS
        self._reactor = Reactor()
        self._thread = threading.Thread(target=self._serve, name="baryon-comm", daemon=True)
        self.client: Client
        self._tracks: Deque[Track] = deque(maxlen=_MAX_TRACKS)
        self._direct: Optional[Client] = None
        self.control = ControlClient(
            self._reactor,
            self._context,
            credentials,
            on_abort=self._on_abort,
            positions=self._positions,
        )
        self.control.join()
        self._thread.start()
        self._script = ScriptEnd(self._on_failure)
        atexit.register(self._leave)
        if multiprocessing.parent_process() is not None:  # then atexit may never be asked
            Finalize(None, self._leave, exitpriority=0)
        self._roster = self.control.wait_for_roster()
        self._num_stores = 0
        self._said: Set[str] = set()
        self.client = self._new_client()
        self._prepare_forks()

    def attach(self, engine: Engine) -> None:
        """Have forks and Python's end wait for ``engine``; attaching it again does nothing."""
        if engine not in self._engines:
            self._engines.append(engine)
            if self._has_left:
                engine.shut()

    def open(
        self, kind: str, has_whole_keys: bool, staleness: Optional[int], hint: str = ""
    ) -> Tuple[Client, StoreClient]:
        """A new store. All workers open the same stores in the same order; see wire.Open.

        Raises UsageError for a store too many, with ``hint`` as the remedy.
        """
        with _lock:
            number = self._num_stores
            if number >= MAX_STORES:
                raise UsageError(
                    f"a job has {MAX_STORES} kvstores at most, and this one has made them all. "
                    + (hint or "Create a store once, and use it in every step")
                )
            self._num_stores += 1
        client = self.client if kind == "sync" else self.direct_client()
        return client, client.open(Open(number, kind, has_whole_keys, staleness))

    def track(self, store: int, is_async: bool) -> Track:
        """A new track; the scheduler is told of its positions from now on."""
        track = Track(store, is_async)
        self._tracks.append(track)
        return track

    def _positions(self) -> Tuple[Position, ...]:
        return tuple(track.position() for track in self._tracks.copy())

    def say_once(self, *texts: str) -> None:
        """Write ``texts`` to the standard error of rank 0 only, each text once."""
        for text in texts:
            if self.credentials.rank == 0 and text not in self._said:
                self._said.add(text)
                if sys.stderr is not None:  # 2>&-
                    sys.stderr.write(f"baryon: {text}\n")

    def direct_client(self) -> Client:
        """The client that speaks to the owners, whatever servers lie between."""
        credentials = self.credentials
        if credentials.parents == credentials.owners:
            return self.client
        with _lock:
            if self._direct is None:
                self._direct = self._new_client(is_direct=True)
            return self._direct

    def drain(self) -> None:
        """Wait until every push is answered; raise the reason if one never will be."""
        for client in self._clients():
            client.drain()

    def _clients(self) -> List[Client]:
        if not hasattr(self, "client"):  # not all have joined yet
            return []
        return [self.client] if self._direct is None else [self.client, self._direct]

    def _new_client(self, is_direct: bool = False) -> Client:
        return client_of(
            self._reactor,
            self._context,
            self.credentials,
            self._roster,
            on_fault=self.control.failed,
            is_direct=is_direct,
        )

    def _serve(self) -> None:
        try:
            self._reactor.run()
        except BaseException:
            # A bug of ours. From here on nothing would be sent or received, and the script may
            # wait inside its framework, where no exception reaches it.
            try:
                traceback.print_exc()
            finally:
                os._exit(1)

    def _on_abort(self, error: BaryonError) -> None:
        tracebacks.expect(str(error))
        self._fail_client(error)

    def _fail_client(self, error: BaryonError) -> None:
        for client in self._clients():
            client.fail(error)

    def _prepare_forks(self) -> None:
        """Wait for the store before each fork.

        A framework stops its engine before a fork (MXNet does): it waits for operations that need
        Python's lock, and the forking thread holds that lock. With an operation under way both
        would wait for ever. Before Python 3.10 `subprocess` forks without calling Python's hooks.
        """
        os.register_at_fork(before=self._drain_quietly)
        if sys.version_info < (3, 10):
            sys.addaudithook(
                lambda event, args: self._drain_quietly() if event == "subprocess.Popen" else None
            )

    def _drain_quietly(self) -> None:
        if os.getpid() == self.pid and threading.current_thread() is not self._thread:
            try:
                self.drain()
            except BaryonError:
                pass  # the script's next call of the store raises it
            # An engine's thread that has finished our last operation may still need Python's lock
            # to return to its engine, which waits for that.
            for engine in self._engines:
                engine.wait_for_own(_SETTLE_S)

    def _on_failure(self, code: int, error: BaseException) -> None:
        """The script has failed and has a few seconds left: its end must not wait for the store.

        The script's own atexit callbacks may still use the store, unless Python first waits for
        another thread.
        """
        if os.getpid() != self.pid:
            return
        if isinstance(error, SystemExit):  # the script may have caught our error, which says more
            any(self._say_error(client.raise_if_failed) for client in self._clients())
        others = set(threading.enumerate()) - {threading.current_thread()}
        if not all(thread.daemon for thread in others):
            self.control.give_up(PeerError(f"the script of {self.credentials.slug} has failed"))
        self.control.gone(code)

    def _leave(self) -> None:
        """At Python's end: everything pushed has arrived, or the exit code is not 0."""
        if os.getpid() != self.pid or self._has_left:
            return
        self._has_left = True
        own = code = self._script.code()
        try:
            code = own or self._finish()
            is_clean = self._part(code)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the rest takes seconds
            code = code or 128 + signal.SIGINT
            is_clean = self._part(code)
        if code != own or not is_clean:
            # Callbacks registered before ours, such as logging's, run first.
            startup.force_exit(code)
            if multiprocessing.parent_process() is not None:
                startup.exit_if_forced()

    def _part(self, code: int) -> bool:
        """Leave the job; whether Python can end by itself. It may be called again."""
        # Threads of the script may go on; they can queue no operation of ours from here on.
        for engine in self._engines:
            engine.shut()
        self._fail_client(UsageError("this worker has left its job"))
        settle_s = _SETTLE_S if code else self.credentials.timeout_s
        is_settled = all(engine.settle(settle_s) for engine in self._engines)
        self.control.gone(code)
        self.control.settle(_SETTLE_S if code else self.credentials.silence_s)
        for client in self._clients():
            self._reactor.post(client.close)
        self._reactor.post(self.control.close)
        self._reactor.post(self._reactor.stop)
        self._thread.join(_SETTLE_S if code else self.credentials.silence_s)
        if self._thread.is_alive():
            return False
        self._context.destroy(linger=1000)
        return is_settled

    def _finish(self) -> int:
        """Wait for the last pushes of a script that ends well; returns the exit code."""
        # After an error here the script has not called the store, so it would seem to have worked.
        return 1 if self._say_error(self.drain) else 0

    def _say_error(self, call: Callable[[], object]) -> bool:
        """Print the error of ours that ``call()`` raises; whether there is one."""
        try:
            call()
        except BaryonError as error:
            print(f"baryon: worker {self.credentials.rank}: {error}", file=sys.stderr)  # noqa: T201
            return True
        return False
