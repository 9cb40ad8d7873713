"""What each task has written, kept in a file of its own in the log directory.

The directory may lie on a file system that stalls for a while. If the scheduler waited for it, its
heartbeats would stop and every agent would end its tasks; so a thread of its own ("baryon-logs")
writes. What waits for it is bounded: beyond that, lines are left out, and where they are missing
the file says how many.
"""

import os
import queue
import threading
import time
from collections import deque
from typing import BinaryIO, Callable, Deque, Dict, List, Optional, Tuple

__all__ = ["LogFiles", "join_unless_stuck"]

_MAX_WAITING_NBYTES = 64 << 20
_STALL_S = 5.0  # that one write takes, until the user is told
_CLOSE_S = 10.0  # without any progress, and what is left is given up


def join_unless_stuck(
    thread: threading.Thread, progress: Callable[[], int], limit_s: float
) -> bool:
    """Wait for the end of a thread for as long as its ``progress()`` changes every ``limit_s``.

    Returns whether it has ended.
    """
    before = -1
    while thread.is_alive() and progress() != before:
        before = progress()
        thread.join(limit_s)
    return not thread.is_alive()


class LogFiles:
    """Methods are called by one thread; ``directory`` exists."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._put_nbytes = 0
        self._left_out: Dict[str, int] = {}  # lines, by task, since the last that was taken
        self._num_left_out = 0  # in all
        self._was_told_of_stall = False
        self._pieces: queue.SimpleQueue[Optional[Tuple[str, bytes]]] = queue.SimpleQueue()
        # The thread's own; others only look.
        self._files: Dict[str, BinaryIO] = {}
        self._done_nbytes = 0
        self._busy_since: Optional[float] = None
        self._errors: Deque[str] = deque()
        self._has_failed = False
        self._thread = threading.Thread(target=self._run, name="baryon-logs", daemon=True)
        self._thread.start()

    def write(self, task: str, data: bytes) -> None:
        """Add whole lines to the file of a task, soon."""
        if self._put_nbytes - self._done_nbytes > _MAX_WAITING_NBYTES:
            num_lines = data.count(b"\n")
            self._left_out[task] = self._left_out.get(task, 0) + num_lines
            self._num_left_out += num_lines
            return
        missing = self._left_out.pop(task, 0)
        if missing:
            self._put(task, b"[%d lines are missing here: the disk was too slow]\n" % missing)
        self._put(task, data)

    def news(self) -> List[str]:
        """What the user should know, each thing once. Call now and then."""
        says = [self._errors.popleft() for _ in range(len(self._errors))]
        since = self._busy_since
        is_stalled = since is not None and time.monotonic() - since > _STALL_S
        if is_stalled and not self._was_told_of_stall:
            says.append(
                f"the log directory {self._directory} has taken nothing for {_STALL_S:.0f} s; the "
                f"job goes on, and up to {_MAX_WAITING_NBYTES >> 20} MiB wait in memory"
            )
        elif self._was_told_of_stall and not is_stalled:
            says.append(f"the log directory {self._directory} takes the logs again{self._lacks()}")
        self._was_told_of_stall = is_stalled
        return says

    def close(self) -> List[str]:
        """Write what waits, unless nothing can be written; what the user should know of that."""
        for task, missing in self._left_out.items():
            self._put(task, b"[%d lines are missing here: the disk was too slow]\n" % missing)
        self._pieces.put(None)
        has_ended = join_unless_stuck(self._thread, lambda: self._done_nbytes, _CLOSE_S)
        says = [self._errors.popleft() for _ in range(len(self._errors))]
        if not has_ended:
            waiting = self._put_nbytes - self._done_nbytes
            says.append(
                f"the log directory {self._directory} has taken nothing for {_CLOSE_S:.0f} s: the "
                f"last {waiting} bytes are not written{self._lacks()}"
            )
        return says

    def _lacks(self) -> str:
        return f"; {self._num_left_out} lines are missing" if self._num_left_out else ""

    def _put(self, task: str, data: bytes) -> None:
        self._put_nbytes += len(data)
        self._pieces.put((task, data))

    # -- in the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            piece = self._pieces.get()
            if piece is None:
                break
            self._busy_since = time.monotonic()
            self._write(*piece)
            self._busy_since = None
            self._done_nbytes += len(piece[1])
        for file in self._files.values():
            file.close()

    def _write(self, task: str, data: bytes) -> None:
        try:
            if task not in self._files:
                path = os.path.join(self._directory, f"{task}.log")
                self._files[task] = open(path, "wb", buffering=0)  # noqa: SIM115
            while data:
                data = data[self._files[task].write(data) :]
        except OSError as error:
            if not self._has_failed:  # say it once; a full disk must not end the training
                self._has_failed = True
                self._errors.append(f"cannot write the logs in {self._directory}: {error}")
