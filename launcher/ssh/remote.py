"""Runs programs on a host, whatever its login shell is and whatever that prints.

sshd passes a command line to the user's login shell: bash, csh, fish, each with its own quoting. So
the command line is only ``exec /bin/sh`` (or bash, for ``--setup``), which all shells accept.
Everything else is a script on standard input. No process list shows it, and only that one shell
reads it. The script is one compound command, so the shell has read all of it before it runs any.
Then it prints a random mark, which no login script can print, and becomes Python. We write more
only after that mark, so no shell reads what is meant for Python.

Rejected: SFTP, and one command for each step (round trips, and output of login scripts in between);
a terminal (its echo and its signals).
"""

import secrets
import shlex
import socket
import threading
import time
from typing import List, NamedTuple, Sequence

import paramiko

from baryon.ps import PeerError

from .connection import Connection

__all__ = ["Interpreter", "RemoteProcess"]

_WINDOW_NBYTES = 16 << 20
_KILL_LIMIT_S = 5.0
_STREAM_LIMIT_S = 120.0  # for the next bytes to be taken, or to come
_MAX_LINE_NBYTES = 256 << 20  # a list of some million files
_STATUS_LIMIT_S = 2.0  # from the end of a channel to its exit code
_NO_PYTHON, _NO_SETUP = 96, 97
# Reads a program from standard input, after a line with its length, and runs it. The first entry of
# sys.path is the working directory. Files there could hide modules of the standard library.
_LOADER = """\
import os, sys
del sys.path[:1]
def take(size):
    data = b""
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:
            sys.exit(1)
        data += more
    return data
line = b""
while not line.endswith(b"\\n"):
    line += take(1)
exec(compile(take(int(line)), "<baryon>", "exec"), {"__name__": "__main__"})
"""


class Interpreter(NamedTuple):
    """The Python to run on hosts: the first of the ``candidates`` that exists.

    ``setup`` is a line of bash to run before it, as ``source activate mx``. Both together may take
    ``start_limit_s``.
    """

    candidates: Sequence[str]
    setup: str = ""
    start_limit_s: float = 60.0

    def shell(self) -> str:
        """The command that reads `script` on its standard input."""
        return "exec bash -l" if self.setup else "exec /bin/sh"

    def script(self, arguments: Sequence[str], mark: str) -> bytes:
        """A script that prints a line with ``mark`` and its process ID first, a line with ``mark``
        last, and then becomes Python with ``arguments``."""
        lines = [f"printf '\\n%s %s\\n' {mark} $$"]
        if self.setup:
            lines.append(
                # Not our standard input: the keys of the job will arrive there.
                f"eval {shlex.quote(self.setup)} </dev/null || "
                f'{{ echo "--setup ended with code $?" >&2; exit {_NO_SETUP}; }}'
            )
        candidates = " ".join(map(_quote, self.candidates))
        words = " ".join(map(shlex.quote, arguments))
        lines += [
            f'for python in {candidates}; do command -v "$python" >/dev/null 2>&1 && break',
            "python=",
            "done",
            f'[ -n "$python" ] || {{ echo {shlex.quote(self._missing())} >&2; '
            f"exit {_NO_PYTHON}; }}",
            f"printf '\\n%s\\n' {mark}",
            f'exec "$python" {words}',
        ]
        return ("{\n" + "\n".join(lines) + "\n}\n").encode("utf-8", "surrogateescape")

    def _missing(self) -> str:
        names = " or ".join(self.candidates)
        return f"there is no {names}; name a Python by --python or --setup"


class RemoteProcess:
    """A Python process on a host, over a channel of its connection.

    Its standard input and output are a byte stream. `write`, `readline` and `read` raise OSError if
    the stream breaks or nothing arrives for too long. At the end `readline` and `read` return b"".
    Standard error is kept for messages. Raises PeerError if the process cannot be started.
    """

    def __init__(
        self, connection: Connection, interpreter: Interpreter, arguments: Sequence[str]
    ) -> None:
        self._connection = connection
        self._pid = 0
        self._rest = b""
        self._noise: List[bytes] = []
        mark = secrets.token_hex(16)
        limit_s = interpreter.start_limit_s
        try:
            self._channel = _execute(connection, interpreter.shell(), limit_s)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise PeerError(f"no program can be started there: {error}") from error
        try:
            self._channel.sendall(interpreter.script(arguments, mark))
            self._wait_for(mark.encode(), interpreter)
        except BaseException as error:
            self.kill()
            self.close()
            if isinstance(error, OSError):
                raise PeerError(f"what was started there {self.how_it_ended()}") from error
            raise

    @classmethod
    def of_source(
        cls, connection: Connection, interpreter: Interpreter, source: str
    ) -> "RemoteProcess":
        """Run the text of a program. Later writes go to its standard input."""
        process = cls(connection, interpreter, ["-c", _LOADER])
        program = source.encode()
        try:
            process.write(f"{len(program)}\n".encode() + program)
        except OSError as error:
            process.close()
            raise PeerError(f"what was started there {process.how_it_ended()}") from error
        return process

    def write(self, data: bytes) -> None:
        """Send all of ``data``."""
        self._channel.settimeout(_STREAM_LIMIT_S)
        self._channel.sendall(data)

    def flush(self) -> None:
        """Does nothing: `write` does not buffer."""

    def readline(self, limit_s: float = _STREAM_LIMIT_S) -> bytes:
        """The next line; empty at the end. Raises TimeoutError after ``limit_s``."""
        deadline = time.monotonic() + limit_s
        while b"\n" not in self._rest:
            if len(self._rest) > _MAX_LINE_NBYTES:
                raise OSError(f"a line of more than {_MAX_LINE_NBYTES} bytes came")
            data = self._receive(deadline - time.monotonic(), limit_s)
            if not data:
                line, self._rest = self._rest, b""
                return line
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line + b"\n"

    def read(self, size: int) -> bytes:
        """``size`` bytes; fewer at the end. Raises TimeoutError if nothing arrives for too long."""
        parts = [self._rest]
        missing = size - len(self._rest)
        while missing > 0:
            data = self._receive(_STREAM_LIMIT_S, _STREAM_LIMIT_S)
            if not data:
                break
            parts.append(data)
            missing -= len(data)
        data = b"".join(parts)
        self._rest = data[size:]
        return data[:size]

    def _receive(self, wait_s: float, limit_s: float) -> bytes:
        """The next bytes; empty at the end. Raises TimeoutError that names ``limit_s``."""
        self._channel.settimeout(max(0.01, wait_s))
        try:
            return self._channel.recv(1 << 16)
        except socket.timeout:
            raise TimeoutError(f"nothing arrived for {limit_s:.0f} s") from None

    def close_input(self) -> None:
        try:
            self._channel.shutdown_write()
        except (paramiko.SSHException, OSError, EOFError):
            pass  # it has gone

    def close(self) -> None:
        self._channel.close()

    def kill(self) -> None:
        """Send SIGKILL to its process group, over another channel, and do not wait for its end.

        Closing a channel does not end the process behind it.
        """
        if not self._pid:
            return
        try:
            channel = _execute(self._connection, "exec /bin/sh", _KILL_LIMIT_S)
            channel.sendall(f"kill -KILL -{self._pid}\n".encode())  # sshd gives it a group
            channel.shutdown_write()
            channel.recv(1)
            channel.close()
        except (paramiko.SSHException, OSError, EOFError):
            pass  # out of reach; an agent that hears nothing ends by itself

    def has_ended(self) -> bool:
        """Whether the process has ended, or its connection has."""
        return self._channel.exit_status_ready() or self._channel.closed

    def how_it_ended(self) -> str:
        """``exited with code 1; it said: ...``. Call when it `has_ended`, or is about to."""
        self._channel.status_event.wait(_STATUS_LIMIT_S)
        code = self._channel.exit_status  # -1 until it is known, and for a signal
        if code >= 0:
            how = f"exited with code {code}"
        elif self._connection.is_alive:
            how = "was killed by a signal"  # paramiko does not say by which
        else:
            how = "is out of reach: its SSH connection broke"
        said = self.said()
        return f"{how}; it said: {said}" if said else how

    def said(self) -> str:
        """The last lines that it has written to standard error so far."""
        while self._channel.recv_stderr_ready():
            data = self._channel.recv_stderr(1 << 16)
            if not data:
                break
            self._noise.append(data)
        lines = b"".join(self._noise).decode(errors="replace").strip().splitlines()
        return "; ".join(line.strip() for line in lines[-3:])

    def _wait_for(self, mark: bytes, interpreter: Interpreter) -> None:
        """Skip the output of login scripts and --setup."""
        limit_s = interpreter.start_limit_s
        deadline = time.monotonic() + limit_s
        while True:
            try:
                line = self.readline(deadline - time.monotonic())
            except TimeoutError:
                setup = ", --setup" if interpreter.setup else ""
                raise PeerError(
                    f"its login shell{setup} and Python did not come up in {limit_s:.0f} s; try "
                    f"{self._connection.target.ssh} bash -lc true, or raise --start-timeout"
                ) from None
            words = line.split()
            if not line:
                raise PeerError(self._why_not_started(interpreter))
            if words == [mark]:
                return
            if words[:1] == [mark]:
                self._pid = int(words[1])

    def _why_not_started(self, interpreter: Interpreter) -> str:
        how = self.how_it_ended()
        if self._channel.exit_status in (_NO_PYTHON, _NO_SETUP):
            return self.said()  # our script's own message
        if self._pid and interpreter.setup and self._connection.is_alive:
            return f"--setup ended the shell, which {how}; it must not call exit"
        return f"its login shell {how}; try {self._connection.target.ssh} true"


def _quote(path: str) -> str:
    """The path, quoted for a shell. A ~ in front is the home directory on the host."""
    if path.startswith("~/"):
        return '"$HOME"/' + shlex.quote(path[2:])
    return shlex.quote(path)


def _execute(connection: Connection, command: str, limit_s: float) -> paramiko.Channel:
    """A channel on which sshd runs ``command``.

    paramiko waits for sshd's answer without a limit, so a timer closes the channel.
    """
    channel = connection.transport.open_session(window_size=_WINDOW_NBYTES, timeout=limit_s)
    watchdog = threading.Timer(limit_s, channel.close)
    watchdog.daemon = True
    watchdog.start()
    try:
        channel.settimeout(limit_s)
        channel.exec_command(command)
    finally:
        watchdog.cancel()
    return channel
