"""A TCP relay between a worker and a server that can cut connections, or hold them up."""

import os
import select
import socket
import struct
import threading
from typing import Dict, List, Optional, Sequence

from tests.waiting import LIMIT_S

_CHUNK_NBYTES = 1 << 16
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER without time


class _Pipe:
    """One direction of a connection."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source = source
        self.target = target
        self.waiting = b""  # read and not yet written


class Proxy:
    """Relays to ``endpoint`` in a thread of its own until `close`.

    ``cuts`` are numbers of bytes, both directions together: after so many, whichever connection
    carried the last of them is reset at both ends, and the next number counts from there.
    """

    def __init__(self, endpoint: str, cuts: Sequence[int] = ()) -> None:
        host, port = endpoint[len("tcp://") :].rsplit(":", 1)
        self._target = (host, int(port))
        self._cuts = list(cuts)
        self.num_cuts = 0
        self._is_black_hole = self._is_closed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = "tcp://{}:{}".format(*self._listener.getsockname())
        self._by_source: Dict[socket.socket, _Pipe] = {}
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def black_hole(self) -> None:
        """Take nothing from any connection, and no new one; nobody is told."""
        self._is_black_hole = True
        os.write(self._wake_write, b".")

    def resume(self) -> None:
        """Go on where `black_hole` has stopped: late, but nothing is lost here."""
        self._is_black_hole = False
        os.write(self._wake_write, b".")

    def close(self) -> None:
        self._is_closed = True
        os.write(self._wake_write, b".")
        self._thread.join(LIMIT_S)
        for source in list(self._by_source):
            source.close()
        self._listener.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    # -- in the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._is_closed:
            sources: List[socket.socket] = []
            targets: List[socket.socket] = []
            if not self._is_black_hole:
                pipes = self._by_source.values()
                sources = [self._listener, *(p.source for p in pipes if not p.waiting)]
                targets = [p.target for p in pipes if p.waiting]
            readable, writable, _ = select.select([self._wake_read, *sources], targets, [])
            for source in readable:
                if source == self._wake_read:
                    os.read(source, 4096)
                elif source is self._listener:
                    self._accept()
                elif source in self._by_source:
                    self._read(self._by_source[source])
            for target in writable:
                pipe = next((p for p in self._by_source.values() if p.target is target), None)
                if pipe is not None and pipe.waiting:
                    self._write(pipe)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(self._target)
        except OSError:
            near.close()
            return
        for source, target in ((near, far), (far, near)):
            source.setblocking(False)
            self._by_source[source] = _Pipe(source, target)

    def _read(self, pipe: _Pipe) -> None:
        try:
            pipe.waiting = pipe.source.recv(_CHUNK_NBYTES)
        except OSError:
            pass
        if not pipe.waiting:
            self._drop(pipe)

    def _write(self, pipe: _Pipe) -> None:
        budget: Optional[int] = self._cuts[0] if self._cuts else None
        try:
            sent = pipe.target.send(pipe.waiting[:budget])
        except OSError:
            self._drop(pipe)
            return
        pipe.waiting = pipe.waiting[sent:]
        if budget is not None:
            self._cuts[0] -= sent
            if not self._cuts[0]:
                del self._cuts[0]
                self.num_cuts += 1
                self._drop(pipe)

    def _drop(self, pipe: _Pipe) -> None:
        for end in (pipe.source, pipe.target):
            del self._by_source[end]
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            end.close()
