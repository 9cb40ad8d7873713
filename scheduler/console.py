"""What the user sees: the tasks' output, live and in whole lines, and what the scheduler says.

Each task's output is also kept in a file of its own in the log directory, without the prefix.
"""

import os
import sys
from typing import BinaryIO, Dict, Optional

from baryon.ps import UsageError

from .job import Job
from .messages import Output

__all__ = ["Console"]

_COLOURS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)  # of terminals, none of them red
_RED = 31


class Console:
    """Writes to standard output and error as they are; colours and progress on a terminal only.

    Raises UsageError if the log directory cannot be made; `show` and `say` raise BrokenPipeError
    when nobody reads any more.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._logs: Dict[str, BinaryIO] = {}
        self._logs_failed = False
        self._transient_on: Optional[BinaryIO] = None  # the stream whose line is not finished
        width = max(len(task.name) for task in job.tasks)
        self._prefixes = {}
        for index, task in enumerate(job.tasks):
            self._prefixes[task.slug] = (task.name.rjust(width), _COLOURS[index % len(_COLOURS)])
        try:
            os.makedirs(job.log_dir, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"the log directory {job.log_dir} cannot be made ({error.strerror}); "
                "choose another --log-dir"
            ) from error

    def show(self, output: Output) -> None:
        """Show a task's output."""
        stream = sys.stderr.buffer if output.is_error else sys.stdout.buffer
        name, colour = self._prefixes[output.task]
        prefix = self._paint(f"{name} | ", colour, stream).encode()
        if output.is_transient:
            if stream.isatty():
                stream.write(b"\r\x1b[K" + prefix + output.data)
                stream.flush()
                self._transient_on = stream
            return
        self._log(output.task, output.data)
        self._finish_transient()
        stream.write(b"".join(prefix + line + b"\n" for line in output.data.split(b"\n")[:-1]))
        stream.flush()

    def say(self, text: str) -> None:
        """Tell the user something on standard error."""
        self._finish_transient()
        stream = sys.stderr.buffer
        first, *rest = text.split("\n")
        line = self._paint("baryon:", _RED, stream) + " " + first
        stream.write("\n".join([line, *rest, ""]).encode(errors="replace"))
        stream.flush()

    def close(self) -> None:
        for file in self._logs.values():
            file.close()

    def _finish_transient(self) -> None:
        if self._transient_on is not None:
            self._transient_on.write(b"\r\x1b[K")
            self._transient_on.flush()
            self._transient_on = None

    def _log(self, task: str, data: bytes) -> None:
        try:
            if task not in self._logs:
                path = os.path.join(self._job.log_dir, f"{task}.log")
                self._logs[task] = open(path, "wb", buffering=0)  # noqa: SIM115
            self._logs[task].write(data)
        except OSError as error:
            if not self._logs_failed:  # say it once; a full disk must not end the training
                self._logs_failed = True
                self.say(f"cannot write the logs in {self._job.log_dir}: {error}")

    @staticmethod
    def _paint(text: str, colour: int, stream: BinaryIO) -> str:
        if not stream.isatty() or os.environ.get("NO_COLOR"):
            return text
        return f"\x1b[{colour}m{text}\x1b[0m"
