"""This process's part in its job: one communication thread, one place where the job is left.

Made by the first store that the script creates. The thread "baryon-comm" owns every socket of the
process; the script and MXNet's engine only post to it.
"""

import atexit
import os
import sys
import threading
import time
import traceback
from collections import deque
from typing import Any, Deque, List, Optional, Tuple

import zmq

from baryon.ps import BaryonError, Client, Open, Reactor, StoreClient, UsageError
from baryon.scheduler import ControlClient, Credentials, Position, client_of, read_credentials

from .track import Track

__all__ = ["Session", "session"]

_MAX_SOCKETS = 16_384  # three for each server; ZeroMQ's own limit would be at 340 of them
_MAX_TRACKS = 16  # of the last stores
_RETURN_S = 0.01
_lock = threading.Lock()
_session: Optional["Session"] = None


def session() -> "Session":
    """The session of this process, begun on first use.

    Raises UsageError outside a job and in a process forked from one that has a session.
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


class Session:
    """Joins the job, waits for all others, connects to the servers; leaves when Python ends."""

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        self.pid = os.getpid()
        self.has_failed = False
        self._context = zmq.Context()
        self._context.max_sockets = _MAX_SOCKETS
        self._reactor = Reactor()
        self._thread = threading.Thread(target=self._serve, name="baryon-comm", daemon=True)
        self.client: Client
        self._tracks: Deque[Track] = deque(maxlen=_MAX_TRACKS)
        self.control = ControlClient(
            self._reactor,
            self._context,
            credentials,
            on_abort=self._fail_client,
            positions=self._positions,
        )
        self.control.join()
        self._thread.start()
        self._watch_exceptions()
        self._roster = self.control.wait_for_roster()
        self._num_stores = 0
        self._direct: Optional[Client] = None
        self.client = self._new_client()
        self._prepare_forks()
        atexit.register(self._leave)

    def open(
        self, kind: str, has_whole_keys: bool, staleness: Optional[int]
    ) -> Tuple[Client, StoreClient]:
        """A new store; all workers open the same ones in the same order. See wire.Open."""
        with _lock:
            number = self._num_stores
            self._num_stores += 1
        client = self.client if kind == "sync" else self.direct_client()
        return client, client.open(Open(number, kind, has_whole_keys, staleness))

    def track(self, store: int, is_async: bool) -> Track:
        """A new one, which the scheduler is told of from now on."""
        track = Track(store, is_async)
        self._tracks.append(track)
        return track

    def _positions(self) -> Tuple[Position, ...]:
        return tuple(track.position() for track in self._tracks.copy())

    def direct_client(self) -> Client:
        """The client that speaks to the owners, whatever servers are between."""
        credentials = self.credentials
        if credentials.parents == credentials.owners:
            return self.client
        with _lock:
            if self._direct is None:
                self._direct = self._new_client(is_direct=True)
            return self._direct

    def drain(self) -> None:
        """Wait until all that was pushed is answered; raises why it never will be."""
        for client in self._clients():
            client.drain()

    def _clients(self) -> List[Client]:
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
            # A bug of ours. Nothing would be sent or received from here on, and the script may
            # wait inside MXNet, where no exception reaches it.
            try:
                traceback.print_exc()
            finally:
                os._exit(1)

    def _fail_client(self, error: BaryonError) -> None:
        if hasattr(self, "client"):
            for client in self._clients():
                client.fail(error)

    def _prepare_forks(self) -> None:
        """Wait for the store before a fork.

        MXNet stops its engine before a fork and waits for operations that need Python to go on,
        while the thread that forks holds Python's lock: with an operation under way, both would
        wait for ever. `subprocess` forks without Python's own hooks before 3.10.
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
            # An engine thread that has told us of its last operation may still need Python's lock,
            # to return to MXNet, which waits for it. This lets go of the lock.
            time.sleep(_RETURN_S)

    def _watch_exceptions(self) -> None:
        """An exception that ends the script is no reason to wait for answers to come."""
        original = sys.excepthook

        def excepthook(kind: Any, error: Any, trace: Any) -> None:
            self.has_failed = True
            original(kind, error, trace)

        sys.excepthook = excepthook

    def _leave(self) -> None:
        """At the end of Python: everything pushed has arrived, or the exit code is 1."""
        if os.getpid() != self.pid:
            return
        if not self.has_failed:
            try:
                self.drain()
            except BaryonError as error:
                # The script has not called the store since, and would end as if all were well.
                print(f"baryon: worker {self.credentials.rank}: {error}", file=sys.stderr)  # noqa: T201
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(1)
        self.control.gone()
        self.control.settle(self.credentials.silence_s)
        for client in self._clients():
            self._reactor.post(client.close)
        self._reactor.post(self.control.close)
        self._reactor.post(self._reactor.stop)
        self._thread.join()
        self._context.destroy(linger=1000)
