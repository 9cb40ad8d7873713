"""Submits one job to a manager and follows it to its end, in a thread of its own ("batch-NAME").

A manager's commands may take seconds, so this thread runs them all. The scheduler's thread runs one
only to cancel a job while this thread hangs.
"""

import os
import threading
from collections import deque
from typing import Deque, List, Tuple

from baryon.ps import PeerError

from .batch_state import BatchState, Event, Stage, Wish
from .manager import COMMAND_LIMIT_S, Manager
from .watch import OVER, QUEUED, Status

__all__ = ["BatchJob", "SharedState"]

_KILL_LIMIT_S = 15.0
_HURRY_S = 0.3
_INTERVALS_S = {QUEUED: 10.0, OVER: 0.0}  # between two questions, at most; others: _RUNNING_S
_RUNNING_S = 2.0
_FIRST_S = 0.5


class SharedState:
    """The `BatchState` that the two threads exchange."""

    def __init__(self) -> None:
        self.now = BatchState()
        self._lock = threading.Lock()
        self._wished = threading.Event()

    def on(self, event: Event) -> None:
        with self._lock:
            self.now = self.now.after(event)

    def wish(self, wish: Wish) -> None:
        """Wakes the job's thread, even if the wish is not new."""
        with self._lock:
            self.now = self.now.wishing(wish)
        self._wished.set()

    def wait_for_wish(self, limit_s: float) -> None:
        self._wished.wait(limit_s)
        self._wished.clear()


class BatchJob:
    """One job of ``manager``; it is submitted at once.

    ``status`` is the manager's last answer, ``silence`` says why there is no later one, and
    ``num_asked`` counts the questions. ``lines`` is the job's output: each line comes with the
    agents whose end it reports.
    """

    def __init__(self, manager: Manager, state: SharedState) -> None:
        self.name = manager.name
        self.status = Status(QUEUED)
        self.num_asked = 0
        self.silence = ""
        self.lines: Deque[Tuple[str, List[Tuple[int, str]]]] = deque()
        self._manager = manager
        self._state = state
        self._cancelling = threading.Lock()
        self._outputs = [_Output(path) for path in manager.outputs]
        self._thread = threading.Thread(target=self._run, name=f"batch-{manager.name}", daemon=True)
        self._thread.start()

    def end(self) -> str:
        """Wait for the end of a cancelled job. Returns a complaint if that takes too long.

        If a command of the thread hangs, the job is cancelled from here.
        """
        self._thread.join(_KILL_LIMIT_S)
        if not self._thread.is_alive():
            return ""
        if not self._state.now.is_taken:
            self._thread.join(COMMAND_LIMIT_S)
        if not self._state.now.is_taken:
            return f"{self.name} has not said yet whether it takes the job: look whether it has"
        try:
            self._cancel_once()
        except PeerError as error:
            return f"{self.name} has not ended yet; its manager could not be told to: {error}"
        return f"{self.name} has not ended yet; its manager has been told to"

    def _cancel_once(self) -> None:
        with self._cancelling:  # for COMMAND_LIMIT_S at most
            if self._state.now.stage is not Stage.TOLD:
                self._manager.cancel()
                self._state.on(Event.TOLD)

    def _run(self) -> None:
        try:
            self._follow()
        except Exception as error:  # a bug of ours, or an answer in an unknown form
            words = f"cannot be followed any more, by {error!r}"
            try:
                self._cancel_once()
            except Exception as second:
                words += f", nor be cancelled, by {second!r}"
            self.status = Status(OVER, words)
        self._state.on(Event.ENDED)

    def _follow(self) -> None:
        try:
            self.name = self._manager.submit()
        except PeerError as error:
            self.status = Status(OVER, str(error))
            return
        self._state.on(Event.TAKEN)
        interval_s = _FIRST_S
        while self.status.phase != OVER:
            try:
                if self._state.now.is_cancelled:
                    self._cancel_once()
                status = self._manager.status()
                for output in self._outputs:  # before the last status, which nothing follows
                    for line in output.new_lines():
                        self.lines.append((line, self._manager.ended_agents(line)))
                self.status, self.silence = status, ""
            except PeerError as error:
                self.silence = str(error)
            self.num_asked += 1
            limit_s = _INTERVALS_S.get(self.status.phase, _RUNNING_S)
            interval_s = min(1.5 * interval_s, limit_s)
            self._state.wait_for_wish(_HURRY_S if self._state.now.is_hurried else interval_s)


class _Output:
    """A file that grows from nothing. The file of an earlier job is removed."""

    def __init__(self, path: str) -> None:
        if os.path.isfile(path):
            os.unlink(path)
        self._path = path
        self._nread = 0
        self._rest = b""  # a line without its end

    def new_lines(self) -> List[str]:
        try:
            with open(self._path, "rb") as file:
                file.seek(self._nread)
                data = file.read()
        except OSError:
            return []  # nothing yet
        self._nread += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode(errors="replace") for line in lines]
