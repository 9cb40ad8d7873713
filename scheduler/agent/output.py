"""One of the two pipes into which a task writes: what comes out of it is cut into lines and sent.

While the scheduler is behind, the pipe is not read, so the task waits in its write. Everything runs
in the agent's main thread.
"""

import os
from typing import IO, Callable, List, Optional

from baryon.ps import Reactor

from .lines import LineCutter, Piece

__all__ = ["OutputPipe"]

_READS = 16  # of 64 KiB: a pipe holds no more (pipe(7)), unless a process has enlarged it


class OutputPipe:
    """``is_full()``: whether to read no more for now; `resume` is called when that changes.

    ``send(pieces)`` passes them on. ``on_end()`` is called when the task has closed the pipe.
    """

    def __init__(
        self,
        reactor: Reactor,
        file: IO[bytes],
        is_full: Callable[[], bool],
        send: Callable[[List[Piece]], None],
        on_end: Callable[[], None],
    ) -> None:
        self.is_open = True  # as far as the task goes
        self._reactor = reactor
        self._file = file
        self._is_full = is_full
        self._send = send
        self._on_end = on_end
        self._cutter = LineCutter()
        self._is_paused = False
        os.set_blocking(file.fileno(), False)
        reactor.watch(file.fileno(), self._on_readable)

    def resume(self) -> None:
        """Read on, if it was paused."""
        if self._is_paused:
            self._is_paused = False
            self._reactor.watch(self._file.fileno(), self._on_readable)

    def close(self) -> None:
        """Send what the task has left in the pipe; a process that survives it may write on."""
        self._reactor.unwatch(self._file.fileno())
        self._is_paused = False
        for _ in range(_READS):
            self._send(self._cutter.feed(self._read() or b""))
        self._send(self._cutter.end())
        self._file.close()

    def _on_readable(self) -> None:
        if self._is_full():
            self._is_paused = True
            self._reactor.unwatch(self._file.fileno())
            return
        data = self._read()
        if data:
            self._send(self._cutter.feed(data))
        elif data is not None:
            self._reactor.unwatch(self._file.fileno())
            self.is_open = False
            self._on_end()

    def _read(self) -> Optional[bytes]:
        """What is there: None if there is nothing yet, b"" at the end."""
        try:
            return os.read(self._file.fileno(), 1 << 16)
        except BlockingIOError:
            return None
