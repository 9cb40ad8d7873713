"""Programs on a host, whatever its login shell is and whatever that prints.

sshd hands a command line to the user's login shell: bash, csh, fish, each with quotes of its own.
So the command line is only ``exec /bin/sh`` (or bash, for ``--setup``), which all of them take, and
everything else is a script on standard input; nothing of it is seen in a list of processes, and
nothing but that shell has to understand it. The script is one compound command, so the shell has
read all of it before it acts; it then says a word that no noise can have guessed, and becomes
Python. Only after this word is anything more written, so no shell reads what is not meant for it.

Rejected: SFTP and one command per step (round trips, and the login scripts' noise in between); a
terminal (its echo, and its signals).
"""

import secrets
import shlex
import time
from typing import List, NamedTuple, Sequence

import paramiko

from baryon.ps import PeerError

from .connection import Connection

__all__ = ["Interpreter", "RemoteProcess"]

_WINDOW_NBYTES = 16 << 20
_KILL_LIMIT_S = 5.0
_NO_PYTHON, _NO_SETUP = 96, 97
# Runs a program that follows on standard input, after a line with its length. The first entry of
# sys.path is the working directory, whose files could hide the standard library's.
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
    """Which Python to run on the hosts: the first of ``candidates`` that is there.

    ``setup`` is a line of bash to be run before, as ``source activate mx``; ``start_limit_s`` is
    how long all of that may take.
    """

    candidates: Sequence[str]
    setup: str = ""
    start_limit_s: float = 60.0

    def shell(self) -> str:
        """The command that reads `script` on its standard input."""
        return "exec bash -l" if self.setup else "exec /bin/sh"

    def script(self, arguments: Sequence[str], mark: str) -> bytes:
        """Says ``mark`` and its process ID at once, ``mark`` alone at the end, each on a line of
        its own, and becomes Python with ``arguments``."""
        lines = [f"printf '\\n%s %s\\n' {mark} $$"]
        if self.setup:
            lines.append(
                f'eval {shlex.quote(self.setup)} || {{ echo "--setup ended with code $?" >&2; '
                f"exit {_NO_SETUP}; }}"
            )
        candidates = " ".join(map(shlex.quote, self.candidates))
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
        return f"no {names} there; make it, or name another by --python or --setup"


class _Silence(PeerError):
    """A process that should have said something in time."""


class RemoteProcess:
    """A Python process on a host, over a channel of its connection.

    Its standard input and output are a byte stream; what it writes to standard error is kept.
    Raises PeerError, in words for the user, when it cannot be started or has gone.
    """

    def __init__(
        self, connection: Connection, interpreter: Interpreter, arguments: Sequence[str]
    ) -> None:
        self._host = connection.name
        limit_s = interpreter.start_limit_s
        self._connection = connection
        self._pid = 0
        self._rest = b""
        self._noise: List[bytes] = []
        mark = secrets.token_hex(16)
        try:
            self._channel = connection.transport.open_session(
                window_size=_WINDOW_NBYTES, timeout=limit_s
            )
            self._channel.settimeout(limit_s)
            self._channel.exec_command(interpreter.shell())
            self._channel.sendall(interpreter.script(arguments, mark))
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise PeerError(f"cannot start a program on {self._host}: {error}") from error
        self._wait_for(mark.encode(), limit_s)

    @classmethod
    def of_source(
        cls, connection: Connection, interpreter: Interpreter, source: str
    ) -> "RemoteProcess":
        """Run the text of a program; what is written afterwards is its standard input."""
        process = cls(connection, interpreter, ["-c", _LOADER])
        program = source.encode()
        process.write(f"{len(program)}\n".encode() + program)
        return process

    def write(self, data: bytes) -> None:
        """Send all of ``data``."""
        try:
            self._channel.sendall(data)
        except OSError as error:
            raise self._gone() from error

    def flush(self) -> None:
        """For those who take this for a file; nothing is kept back."""

    def readline(self, limit_s: float = 120.0) -> bytes:
        """One line; raises PeerError at the end of the stream, or after ``limit_s``."""
        deadline = time.monotonic() + limit_s
        while b"\n" not in self._rest:
            self._channel.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                data = self._channel.recv(1 << 16)
            except OSError as error:  # socket.timeout is one
                raise _Silence(f"{self._host} said nothing for {limit_s:.0f} s") from error
            if not data:
                raise self._gone()
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line + b"\n"

    def close_input(self) -> None:
        try:
            self._channel.shutdown_write()
        except (OSError, EOFError):
            pass  # it has gone

    def close(self) -> None:
        self._channel.close()

    def kill(self) -> None:
        """End it and its process group with SIGKILL, if it can be reached. Does not wait.

        The end of a channel does not end what is at its other end.
        """
        if not self._pid:
            return
        try:
            channel = self._connection.transport.open_session(timeout=_KILL_LIMIT_S)
            channel.settimeout(_KILL_LIMIT_S)
            channel.exec_command("exec /bin/sh")
            channel.sendall(f"kill -KILL -{self._pid}\n".encode())  # sshd gives it a group
            channel.shutdown_write()
            channel.recv(1)
            channel.close()
        except (paramiko.SSHException, OSError, EOFError):
            pass  # it is out of reach; what is there ends by itself when it hears nothing

    def has_ended(self) -> bool:
        """Whether the process has ended, or its connection has."""
        return self._channel.exit_status_ready() or self._channel.closed

    def how_it_ended(self) -> str:
        """``exited with code 1; it said: ...``. Call when it `has_ended`."""
        code = self._channel.exit_status if self._channel.exit_status_ready() else None
        if code is None:
            how = "is out of reach: its SSH connection broke"
        elif code < 0:  # paramiko does not tell which
            how = "was killed by a signal"
        else:
            how = f"exited with code {code}"
        said = self.said()
        return f"{how}; it said: {said}" if said else how

    def said(self) -> str:
        """What it has written to standard error so far, without tracebacks."""
        while self._channel.recv_stderr_ready():
            data = self._channel.recv_stderr(1 << 16)
            if not data:
                break
            self._noise.append(data)
        lines = b"".join(self._noise).decode(errors="replace").strip().splitlines()
        return "; ".join(line.strip() for line in lines[-3:])

    def _wait_for(self, mark: bytes, limit_s: float) -> None:
        """Skip what login scripts and --setup print."""
        deadline = time.monotonic() + limit_s
        try:
            while True:
                words = self.readline(deadline - time.monotonic()).split()
                if words[:1] == [mark] and len(words) == 1:
                    return
                if words[:1] == [mark]:
                    self._pid = int(words[1])
        except _Silence:
            self.kill()
            raise PeerError(
                f"its login shell, --setup and Python did not come up in {limit_s:.0f} s; try "
                f"ssh {self._host} true, or raise --start-timeout"
            ) from None

    def _gone(self) -> PeerError:
        """After the stream has ended: why."""
        self._channel.status_event.wait(2.0)
        how = self.how_it_ended() if self._channel.exit_status_ready() else "its connection broke"
        return PeerError(f"on {self._host}, what was started {how}")
