"""A terminal with a shell in it, in which tests run jobs as a user does."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path
from typing import List

import pyte

from tests.cluster import REPOSITORY
from tests.waiting import wait_until

LAUNCH = f"{sys.executable} -m baryon.launcher"


class Terminal:
    """``lines``: all that was ever shown and still is there to see, without blanks at the end."""

    def __init__(self, cwd: Path, columns: int = 80, rows: int = 24) -> None:
        self._screen = pyte.HistoryScreen(columns, rows, history=100_000)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm", "PS1": "$ "}
        self._shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"],
            stdin=slave, stdout=slave, stderr=slave, cwd=cwd, env=env, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        self._reader = threading.Thread(target=self._read, name="terminal")
        self._reader.start()
        self.wait_for("$")

    def _read(self) -> None:
        while True:
            select.select([self._master], [], [])
            try:
                data = os.read(self._master, 1 << 16)
            except OSError:
                return  # the last that had it open has gone
            with self._lock:
                self._stream.feed(data)

    def type(self, text: str) -> None:
        """Type it; a line is ended by a newline, Ctrl-Z is \\x1a."""
        os.write(self._master, text.encode())

    def resize(self, columns: int, rows: int = 24) -> None:
        with self._lock:
            self._screen.resize(rows, columns)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    @property
    def lines(self) -> List[str]:
        with self._lock:
            gone = ["".join(row[x].data for x in sorted(row)) for row in self._screen.history.top]
            lines = [line.rstrip() for line in [*gone, *self._screen.display]]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def wait_for(self, text: str, count: int = 1) -> None:
        """Until as many lines begin with it."""
        try:
            wait_until(lambda: sum(line.startswith(text) for line in self.lines) >= count, text)
        except AssertionError as error:
            raise AssertionError("\n".join([f"{error}, not in", *self.lines])) from error

    def wait_for_more(self, text: str) -> None:
        """Until there are three more lines that begin with it."""
        self.wait_for(text, sum(line.startswith(text) for line in self.lines) + 3)

    def close(self) -> None:
        self.type("\x03\nkill -9 $(jobs -p) 2>/dev/null\nexit\nexit\n")
        try:
            self._shell.wait(20)
        finally:
            self._shell.kill()
            self._shell.wait()
            self._reader.join(20)
            os.close(self._master)
