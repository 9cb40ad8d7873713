"""What the user sees: the tasks' output, live and in whole lines, and what the scheduler says.

Each task's output is also kept in a file of its own in the log directory, without the prefix
(log_files.py). The terminal, or whatever reads our output, may be slow or paused (Ctrl-S, `less`),
so a thread of its own ("baryon-console") writes to it; if more waits than fits into memory, lines
are left out there, and it says how many.
"""

import os
import queue
import sys
import threading
from typing import Any, BinaryIO, Callable, NamedTuple, Optional

from .job import Job
from .log_files import LogFiles
from .messages import Output

__all__ = ["Console"]

_COLOURS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)  # of terminals, none of them red
_RED = 31
_MAX_WAITING_NBYTES = 64 << 20


class _Piece(NamedTuple):
    """``label`` is painted in ``colour`` on a terminal and put before each line of ``data``."""

    is_error: bool
    label: str
    colour: int
    data: bytes
    is_transient: bool = False
    has_label_once: bool = False


class Console:
    """Writes to standard output and error as they are; colours and progress on a terminal only.

    ``on_broken_pipe()`` is called once, from the console's thread, when nobody reads any more.
    Raises UsageError if the log directory cannot be made.
    """

    def __init__(self, job: Job, on_broken_pipe: Callable[[], None]) -> None:
        self._job = job
        width = max(len(task.name) for task in job.tasks)
        self._labels = {}
        for index, task in enumerate(job.tasks):
            label = f"{task.name.rjust(width)} | "
            self._labels[task.slug] = (label, _COLOURS[index % len(_COLOURS)])
        self._logs = LogFiles(job.log_dir)
        self._put_nbytes = 0
        self._written_nbytes = 0  # counted by the writer's thread alone
        self._left_out = 0
        self._pieces: queue.SimpleQueue[Optional[_Piece]] = queue.SimpleQueue()
        writer = _Writer(self._pieces, self._written, on_broken_pipe)
        self._thread = threading.Thread(target=writer.run, name="baryon-console", daemon=True)
        self._thread.start()

    def show(self, output: Output) -> None:
        """Show a task's output."""
        label, colour = self._labels[output.task]
        if not output.is_transient:
            self._logs.write(output.task, output.data)
        if self._waiting_nbytes > _MAX_WAITING_NBYTES:
            self._left_out += output.data.count(b"\n")
            return
        if self._left_out:
            count, self._left_out = self._left_out, 0
            self.say(f"{count} lines were not shown; they are in {self._job.log_dir}")
        self._put(_Piece(output.is_error, label, colour, output.data, output.is_transient))

    def say(self, text: str) -> None:
        """Tell the user something on standard error."""
        data = f"{text}\n".encode(errors="replace")
        self._put(_Piece(True, "baryon: ", _RED, data, has_label_once=True))

    def look(self) -> None:
        """Say what is wrong with the log files, if anything is new. Call now and then."""
        for text in self._logs.news():
            self.say(text)

    def close(self) -> None:
        """Return when everything is written."""
        for text in self._logs.close():
            self.say(text)
        self._pieces.put(None)
        self._thread.join()

    def _put(self, piece: _Piece) -> None:
        self._put_nbytes += len(piece.data)
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
        pieces: "queue.SimpleQueue[Optional[_Piece]]",
        on_written: Callable[[int], None],
        on_broken_pipe: Callable[[], None],
    ) -> None:
        self._pieces = pieces
        self._on_written = on_written
        self._on_broken_pipe = on_broken_pipe
        self._streams = [_stream(sys.stdout), _stream(sys.stderr)]
        self._is_broken = False
        self._transient_on: Optional[BinaryIO] = None  # the stream whose line is not over

    def run(self) -> None:
        while True:
            piece = self._pieces.get()
            if piece is None:
                return
            self._write(piece)
            self._on_written(len(piece.data))

    def _write(self, piece: _Piece) -> None:
        stream = self._streams[piece.is_error]
        if stream is not None:
            try:
                self._render(stream, piece)
                stream.flush()
            except OSError as error:
                self._give_up(piece.is_error, error)

    def _render(self, stream: BinaryIO, piece: _Piece) -> None:
        is_terminal = stream.isatty()
        if self._transient_on is not None:  # wipe it away
            self._transient_on.write(b"\r\x1b[K")
            self._transient_on.flush()
            self._transient_on = None
        label = piece.label
        if is_terminal and not os.environ.get("NO_COLOR"):
            label = f"\x1b[{piece.colour}m{label}\x1b[0m"
        prefix = label.encode()
        if piece.is_transient:
            if is_terminal:
                self._transient_on = stream
                stream.write(prefix + piece.data)
        elif piece.has_label_once:
            stream.write(prefix + piece.data)
        else:
            lines = piece.data.split(b"\n")[:-1]
            stream.write(b"".join(prefix + line + b"\n" for line in lines))

    def _give_up(self, is_error: bool, error: OSError) -> None:
        """Write no more to a stream. A full disk is no reason to end the training."""
        broken = self._streams[is_error]
        self._streams[is_error] = self._transient_on = None
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
        text = f"cannot write to {name} any more: {error.strerror}\n"
        self._write(_Piece(not is_error, "baryon: ", _RED, text.encode()))


def _stream(stream: Any) -> Optional[BinaryIO]:
    """The bytes below a text stream; None if it was closed before Python started."""
    return None if stream is None else stream.buffer
