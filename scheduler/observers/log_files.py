"""The log directory: a file for each task with the lines that it wrote, without labels.

The directory may lie on a file system that stalls for a while. If the scheduler waited for it, its
heartbeats would stop and every agent would end its tasks. So a thread of its own ("baryon-logs")
writes. What waits for that thread is bounded; beyond the bound, lines are left out, and the file
says where and how many.
"""

import os
from collections import deque
from typing import BinaryIO, Deque, Dict, List, Tuple

from .backlog import Backlog
from .events import Event, TaskOutput
from .stream import Observer

__all__ = ["LogFiles"]

_MAX_WAITING_NBYTES = 64 << 20
_STALL_S = 5.0  # a write that takes longer is worth a notice
_CLOSE_S = 10.0  # without any progress: what is left is given up


class LogFiles(Observer):
    """``directory`` exists."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._left_out: Dict[str, int] = {}  # lines, by task, since the last one that was put
        self._num_left_out = 0  # in all
        self._was_told_of_stall = False
        # Written by the thread alone.
        self._files: Dict[str, BinaryIO] = {}
        self._errors: Deque[str] = deque()
        self._has_failed = False
        self._backlog: Backlog[Tuple[str, bytes]] = Backlog(
            "baryon-logs", self._write, at_end=self._close_files
        )

    def take(self, event: Event) -> None:
        if not isinstance(event, TaskOutput) or event.is_transient:
            return
        task, data = event.task, event.data
        if self._backlog.nbytes > _MAX_WAITING_NBYTES:
            num_lines = data.count(b"\n")
            self._left_out[task] = self._left_out.get(task, 0) + num_lines
            self._num_left_out += num_lines
            return
        missing = self._left_out.pop(task, 0)
        if missing:
            self._put(task, b"[%d lines are missing here: the disk was too slow]\n" % missing)
        self._put(task, data)

    def look(self) -> List[str]:
        says = [self._errors.popleft() for _ in range(len(self._errors))]
        is_stalled = self._backlog.busy_s > _STALL_S
        if is_stalled and not self._was_told_of_stall:
            says.append(
                f"the log directory {self._directory} has taken nothing for {_STALL_S:.0f} s; the "
                f"job goes on, and keeps up to {_MAX_WAITING_NBYTES >> 20} MiB in memory meanwhile"
            )
        elif self._was_told_of_stall and not is_stalled:
            says.append(f"the log directory {self._directory} takes the logs again{self._lacks()}")
        self._was_told_of_stall = is_stalled
        return says

    def close(self) -> List[str]:
        """Write what waits, as long as the disk takes any of it."""
        for task, missing in self._left_out.items():
            self._put(task, b"[%d lines are missing here: the disk was too slow]\n" % missing)
        is_done = self._backlog.close(_CLOSE_S)
        says = [self._errors.popleft() for _ in range(len(self._errors))]
        if not is_done:
            says.append(
                f"the log directory {self._directory} has taken nothing for {_CLOSE_S:.0f} s: the "
                f"last {self._backlog.nbytes} bytes are not written{self._lacks()}"
            )
        return says

    def _lacks(self) -> str:
        return f"; {self._num_left_out} lines are missing" if self._num_left_out else ""

    def _put(self, task: str, data: bytes) -> None:
        self._backlog.put((task, data), len(data))

    def _write(self, pieces: List[Tuple[str, bytes]]) -> None:
        """In the thread."""
        ((task, data),) = pieces
        try:
            if task not in self._files:
                path = os.path.join(self._directory, f"{task}.log")
                self._files[task] = open(path, "wb", buffering=0)  # noqa: SIM115
            while data:
                data = data[self._files[task].write(data) :]
        except OSError as error:
            self._cannot_write(error)

    def _close_files(self) -> None:
        """In the thread."""
        for file in self._files.values():
            try:
                file.close()
            except OSError as error:  # on some file systems a full disk is told only now
                self._cannot_write(error)

    def _cannot_write(self, error: OSError) -> None:
        if not self._has_failed:  # one notice is enough; the job goes on without logs
            self._has_failed = True
            self._errors.append(f"cannot write the logs in {self._directory}: {error}")
