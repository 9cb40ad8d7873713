"""The terminal: the tasks' output, live and in whole lines, and what the scheduler tells the user.

The terminal, or another program that reads our output, may be slow or paused (Ctrl-S, `less`). So a
thread of its own ("baryon-console") writes to it. What waits for that thread is bounded; beyond the
bound, lines are left out, and a notice says how many. The screen (screen.py) decides which bytes
are written. They go below Python's buffers, whose locks would keep Python from ending while a write
is stuck.
"""

import os
import select
import sys
import threading
from typing import Any, BinaryIO, Callable, Dict, List, Optional, Tuple, Union

from ..control import Job
from .backlog import Backlog
from .complaint import complain
from .events import Event, JobPaused, Notice, TaskOutput
from .screen import Chunk, Screen, Size
from .stream import Observer

__all__ = ["Console", "terminal_sizes"]

_MAX_WAITING_NBYTES = 64 << 20
_MAX_AT_ONCE = 256  # events, before bars are drawn again

_PAUSE_S = 1.0


class _Wipe:
    """Asks the thread to wipe the bars away, until the next event."""

    def __init__(self) -> None:
        self.is_done = threading.Event()


_Item = Union[Notice, TaskOutput, _Wipe]


class Console(Observer):
    """Writes to standard output and error as they are; colours and progress on a terminal only.

    The console's thread calls ``on_broken_pipe()`` once, when no reader is left.
    """

    def __init__(self, job: Job, on_broken_pipe: Callable[[], None]) -> None:
        self._job = job
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)
        self._left_out = 0
        names = {task.slug: task.name for task in job.tasks}
        writer = _Writer(names, on_broken_pipe)
        self._backlog: Backlog[_Item] = Backlog("baryon-console", writer.write, _MAX_AT_ONCE)

    def take(self, event: Event) -> None:
        if isinstance(event, TaskOutput):
            self._take_output(event)
        elif isinstance(event, Notice):
            self._put(event)
        elif isinstance(event, JobPaused):
            self._wipe()

    def close(self) -> List[str]:
        """Return when everything is written, or when the reader has taken nothing for too long."""
        self._backlog.put(_Wipe(), 0)
        limit_s = self._job.timeout_s
        if not self._backlog.close(limit_s):
            complain(
                f"the reader of this output has taken nothing for {limit_s:.0f} s (--timeout), so "
                f"{self._backlog.nbytes} bytes are not shown; they are in {self._job.log_dir}"
            )
        return []

    def _take_output(self, output: TaskOutput) -> None:
        if self._backlog.nbytes > _MAX_WAITING_NBYTES:
            self._left_out += output.data.count(b"\n")
            return
        if self._left_out:
            count, self._left_out = self._left_out, 0
            text = f"{count} lines were not shown; they are in {self._job.log_dir}"
            self._put(Notice(output.at, text))
        self._put(output)

    def _wipe(self) -> None:
        """Leave the terminal to others for a while."""
        wipe = _Wipe()
        self._backlog.put(wipe, 0)
        wipe.is_done.wait(_PAUSE_S)  # the thread may be stuck in a write

    def _put(self, event: Union[Notice, TaskOutput]) -> None:
        text = event.text if isinstance(event, Notice) else event.data
        self._backlog.put(event, 1 + len(text))


class _Writer:
    """The work of the console's thread, the only one that writes to the two streams."""

    def __init__(self, names: Dict[str, str], on_broken_pipe: Callable[[], None]) -> None:
        self._on_broken_pipe = on_broken_pipe
        self._streams = [_stream(sys.stdout), _stream(sys.stderr)]
        is_plain = bool(os.environ.get("NO_COLOR"))
        out, err = (not is_plain and _can_draw(stream) for stream in self._streams)
        self._screen = Screen(names, (out, err))
        self._is_broken = False

    def write(self, items: List[_Item]) -> None:
        events = [item for item in items if not isinstance(item, _Wipe)]
        wipes = [item for item in items if isinstance(item, _Wipe)]
        out, err = self._streams
        self._write(self._screen.write(events, (_size_in_front(out), _size_in_front(err))))
        if wipes:
            self._write(self._screen.clear())
        for wipe in wipes:
            wipe.is_done.set()

    def _write(self, chunks: List[Chunk]) -> None:
        for chunk in chunks:
            stream = self._streams[chunk.is_error]
            if stream is not None:
                try:
                    _write_all(stream, chunk.data)
                except OSError as error:
                    self._give_up(chunk.is_error, error)

    def _give_up(self, is_error: bool, error: OSError) -> None:
        """Write no more to a stream. A full disk is no reason to end the training."""
        broken = self._streams[is_error]
        self._streams[is_error] = None
        try:
            # Python flushes the stream at its end, and fails if that fails.
            assert broken is not None
            os.dup2(os.open(os.devnull, os.O_WRONLY), broken.fileno())
        except OSError:
            pass  # it was closed
        if isinstance(error, BrokenPipeError):
            if not self._is_broken:
                self._is_broken = True
                self._on_broken_pipe()
            return
        name = "standard error" if is_error else "standard output"
        text = f"baryon: cannot write to {name} any more: {error.strerror}\n"
        self._write([Chunk(not is_error, text.encode())])


def terminal_sizes() -> Tuple[Optional[Size], Optional[Size]]:
    """The sizes of standard output and standard error; None for one that cannot show bars."""
    return _size(_stream(sys.stdout)), _size(_stream(sys.stderr))


def _stream(stream: Any) -> Optional[BinaryIO]:
    """The file below a text stream; None if it was closed before Python started."""
    return None if stream is None else getattr(stream.buffer, "raw", stream.buffer)


def _flush(stream: Any) -> None:
    """Write what Python has buffered."""
    try:
        if stream is not None:
            stream.flush()
    except OSError:
        pass  # the thread will get the same error


def _write_all(stream: BinaryIO, data: bytes) -> None:
    while data:
        count = stream.write(data)
        if count is None:  # another program on the same terminal has made it non-blocking
            select.select([], [stream], [])
        else:
            data = data[count:]


def _can_draw(stream: Optional[BinaryIO]) -> bool:
    """Whether the stream is a terminal that knows escape sequences."""
    is_terminal = stream is not None and stream.isatty()
    return is_terminal and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def _size(stream: Optional[BinaryIO]) -> Optional[Size]:
    if stream is None or not _can_draw(stream):
        return None
    try:
        columns, rows = os.get_terminal_size(stream.fileno())
    except OSError:
        columns = rows = 0
    return Size(columns or 80, rows or 24)  # not all terminals know their size


def _size_in_front(stream: Optional[BinaryIO]) -> Optional[Size]:
    """The size if this job is in the foreground; bars would wipe away input to another job."""
    size = _size(stream)
    try:
        if size is not None and os.tcgetpgrp(stream.fileno()) != os.getpgrp():  # type: ignore[union-attr]
            return None
    except OSError:
        pass  # not this process's controlling terminal
    return size
