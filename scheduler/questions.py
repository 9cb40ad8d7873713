"""How another shell of this machine asks a job how it is: over a socket of the job's own.

It has an abstract name (unix(7)), so nothing of it lies in any file system, however full, slow or
long-named that is, and it goes with the job's process. Only the job's user, or root, is answered.
Rejected: SIGUSR1, whose answer goes to the job's output, among what its tasks write.
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
    """Where the job of this name is asked; None if that cannot be had."""
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
    """Answer whoever asks now, from a thread of its own: they may be slow to read."""
    try:
        connection, _ = listener.accept()
    except OSError:
        return  # gone again
    if _user(connection) not in (0, os.getuid()):
        connection.close()
        return
    connection.settimeout(_LIMIT_S)
    told = (connection, status().encode(errors="replace"))
    threading.Thread(target=_tell, args=told, name="status", daemon=True).start()


def ask(job: str) -> Optional[str]:
    """What the job of this name says of its state; None if it does not answer in some seconds."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_LIMIT_S)
        try:
            connection.connect(_name(job, os.getuid()))
            if _user(connection) != os.getuid():
                return None  # somebody else has taken the name
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
            pass  # whoever asked has gone


def _name(job: str, user: int) -> str:
    return f"\0baryon-{user}-{job}"


def _user(connection: socket.socket) -> int:
    """Who is at the other end; of a listener's, who made it."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(data)[1])
