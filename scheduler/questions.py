"""A job's status, for other shells on this machine, over a socket of the job's own.

The socket has an abstract name (unix(7)). So it needs no file system, which may be full, slow, or
have too long a path, and it goes with the job's process. Only the job's user and root get an
answer. Rejected: SIGUSR1, whose answer goes to the job's output, among the lines of its tasks.
"""

import os
import socket
import struct
import threading
from typing import Callable, Optional

__all__ = ["answer", "ask", "listen"]

_LIMIT_S = 5.0
_CREDENTIALS = struct.Struct("3i")  # of SO_PEERCRED: pid, uid, gid


def listen(job: str) -> Optional[socket.socket]:
    """The socket for questions about a job; None if it cannot be made."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(_name(job, os.getuid()))
        listener.listen()
    except OSError:
        listener.close()
        return None
    listener.setblocking(False)
    return listener


def answer(listener: socket.socket, status: Callable[[], str]) -> None:
    """Answer the next question; a thread of its own does it, since the reader may be slow."""
    try:
        connection, _ = listener.accept()
    except OSError:
        return  # the connection has gone again
    if _user(connection) not in (0, os.getuid()):
        connection.close()
        return
    connection.settimeout(_LIMIT_S)
    told = (connection, status().encode(errors="replace"))
    threading.Thread(target=_tell, args=told, name="status", daemon=True).start()


def ask(job: str) -> Optional[str]:
    """The status of a job; None if it does not answer within some seconds."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_LIMIT_S)
        try:
            connection.connect(_name(job, os.getuid()))
            if _user(connection) != os.getuid():
                return None  # another user has taken the name
            said = b""
            while True:
                data = connection.recv(1 << 16)
                if not data:
                    return said.decode(errors="replace") or None
                said += data
        except OSError:
            return None


def _tell(connection: socket.socket, text: bytes) -> None:
    with connection:
        try:
            connection.sendall(text)
        except OSError:
            pass  # the reader has gone


def _name(job: str, user: int) -> str:
    return f"\0baryon-{user}-{job}"


def _user(connection: socket.socket) -> int:
    """The user of the process at the other end; of a listener's end, the user that made it."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(data)[1])
