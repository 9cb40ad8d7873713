"""What the user sees: the tasks' output, live and in whole lines, and what the scheduler says.

Each task's output is also kept in a file of its own in the log directory, without the prefix
(log_files.py). The terminal, or whatever reads our output, may be slow or paused (Ctrl-S, `less`),
so a thread of its own ("baryon-console") writes to it; if more waits than fits into memory, lines
are left out there, and it says how many. What is written is the screen's (screen.py). It writes
below Python's buffers, whose locks would keep Python from ending while a write is stuck.
"""

import os
import queue
import select
import sys
import threading
from typing import Any, BinaryIO, Callable, Dict, List, Optional, Tuple, Union

from ..control import Job
from ..control.messages import Output
from .log_files import LogFiles, join_unless_stuck
from .screen import Chunk, Said, Screen, Size

__all__ = ["Console", "complain", "terminal_sizes"]

_MAX_WAITING_NBYTES = 64 << 20
_MAX_AT_ONCE = 256  # pieces, before bars are drawn again

_PAUSE_S = 1.0


class _Pause:
    """Asks the thread to wipe the bars away."""

    def __init__(self) -> None:
        self.is_done = threading.Event()


_Piece = Union[Output, Said]
_Queue = queue.SimpleQueue  # of pieces and pauses; None at the end


class Console:
    """Writes to standard output and error as they are; colours and progress on a terminal only.

    ``on_broken_pipe()`` is called once, from the console's thread, when nobody reads any more.
    The job's log directory exists.
    """

    def __init__(self, job: Job, on_broken_pipe: Callable[[], None]) -> None:
        self._job = job
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)
        self._logs = LogFiles(job.log_dir)
        self._put_nbytes = 0
        self._written_nbytes = 0  # counted by the writer's thread alone
        self._left_out = 0
        self._pieces: _Queue[Union[_Piece, _Pause, None]] = _Queue()
        names = {task.slug: task.name for task in job.tasks}
        writer = _Writer(names, self._pieces, self._written, on_broken_pipe)
        self._thread = threading.Thread(target=writer.run, name="baryon-console", daemon=True)
        self._thread.start()

    def show(self, output: Output) -> None:
        """Show a task's output."""
        if not output.is_transient:
            self._logs.write(output.task, output.data)
        if self._waiting_nbytes > _MAX_WAITING_NBYTES:
            self._left_out += output.data.count(b"\n")
            return
        if self._left_out:
            count, self._left_out = self._left_out, 0
            self.say(f"{count} lines were not shown; they are in {self._job.log_dir}")
        self._put(output)

    def say(self, text: str) -> None:
        """Tell the user something on standard error."""
        self._put(Said(text))

    def pause(self) -> None:
        """Leave the terminal to others for a while: wipe the bars away, until more is written."""
        pause = _Pause()
        self._pieces.put(pause)
        pause.is_done.wait(_PAUSE_S)  # it may be stuck in a write

    def look(self) -> None:
        """Say what is wrong with the log files, if anything is new. Call now and then."""
        for text in self._logs.news():
            self.say(text)

    def close(self) -> None:
        """Return when everything is written, or nothing more can be."""
        for text in self._logs.close():
            self.say(text)
        self._pieces.put(None)
        limit_s = self._job.timeout_s
        if not join_unless_stuck(self._thread, lambda: self._written_nbytes, limit_s):
            complain(
                f"whoever reads this has taken nothing for {limit_s:.0f} s (--timeout): "
                f"{self._waiting_nbytes} bytes are not shown; they are in {self._job.log_dir}"
            )

    def _put(self, piece: _Piece) -> None:
        self._put_nbytes += _nbytes(piece)
        self._pieces.put(piece)

    def _written(self, nbytes: int) -> None:
        self._written_nbytes += nbytes

    @property
    def _waiting_nbytes(self) -> int:
        return self._put_nbytes - self._written_nbytes


class _Writer:
    """The console's thread: the only one that writes to the two streams."""

    def __init__(
        self,
        names: Dict[str, str],
        pieces: "_Queue[Union[_Piece, _Pause, None]]",
        on_written: Callable[[int], None],
        on_broken_pipe: Callable[[], None],
    ) -> None:
        self._pieces = pieces
        self._on_written = on_written
        self._on_broken_pipe = on_broken_pipe
        self._streams = [_stream(sys.stdout), _stream(sys.stderr)]
        is_plain = bool(os.environ.get("NO_COLOR"))
        out, err = (not is_plain and _can_draw(stream) for stream in self._streams)
        self._screen = Screen(names, (out, err))
        self._is_broken = False

    def run(self) -> None:
        is_over = False
        while not is_over:
            pieces = [self._pieces.get()]
            while len(pieces) < _MAX_AT_ONCE and not self._pieces.empty():
                pieces.append(self._pieces.get())
            is_over = pieces[-1] is None
            todo = [piece for piece in pieces if isinstance(piece, (Output, Said))]
            pauses = [piece for piece in pieces if isinstance(piece, _Pause)]
            out, err = self._streams
            self._write(self._screen.write(todo, (_size_in_front(out), _size_in_front(err))))
            if is_over or pauses:
                self._write(self._screen.clear())
            self._on_written(sum(map(_nbytes, todo)))
            for pause in pauses:
                pause.is_done.set()

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
            # What the stream has buffered must go somewhere, or Python fails at its end.
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
    """Of standard output and standard error: None for what is no terminal that bars can be on."""
    return _size(_stream(sys.stdout)), _size(_stream(sys.stderr))


def _stream(stream: Any) -> Optional[BinaryIO]:
    """The file below a text stream; None if it was closed before Python started."""
    return None if stream is None else getattr(stream.buffer, "raw", stream.buffer)


def _flush(stream: Any) -> None:
    """Write what was printed before."""
    try:
        if stream is not None:
            stream.flush()
    except OSError:
        pass  # the thread will see it, too


def _write_all(stream: BinaryIO, data: bytes) -> None:
    while data:
        count = stream.write(data)
        if count is None:  # somebody who has the same terminal has made it non-blocking
            select.select([], [stream], [])
        else:
            data = data[count:]


def complain(text: str) -> None:
    """On standard error, if that takes it."""
    try:
        if select.select([], [2], [], 0)[1]:
            os.write(2, f"baryon: {text}\n".encode())
    except OSError:
        pass  # it is closed


def _can_draw(stream: Optional[BinaryIO]) -> bool:
    """Whether it is a terminal that knows escape sequences."""
    is_terminal = stream is not None and stream.isatty()
    return is_terminal and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def _size(stream: Optional[BinaryIO]) -> Optional[Size]:
    if stream is None or not _can_draw(stream):
        return None
    try:
        columns, rows = os.get_terminal_size(stream.fileno())
    except OSError:
        columns = rows = 0
    return Size(columns or 80, rows or 24)  # not all of them know


def _size_in_front(stream: Optional[BinaryIO]) -> Optional[Size]:
    """None also if others have the terminal: bars would wipe away what the user types for them."""
    size = _size(stream)
    try:
        if size is not None and os.tcgetpgrp(stream.fileno()) != os.getpgrp():  # type: ignore[union-attr]
            return None
    except OSError:
        pass  # it is not the one that controls this process
    return size


def _nbytes(piece: _Piece) -> int:
    return 1 + len(piece.text if isinstance(piece, Said) else piece.data)
