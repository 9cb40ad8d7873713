"""A way back through the SSH connection, for a launching machine that hosts cannot reach.

Behind NAT or a firewall no host can open a connection to the scheduler. sshd can: it listens on the
host's own loopback address, and whoever connects there is carried back to us (RFC 4254, section
7). CURVE goes through it end to end, so the port is no more open than any other.

Rejected: to run the scheduler on the first host instead. Terminal, signals, logs and the SSH
connections are here, and would all need a protocol of their own to get there.
"""

import selectors
import socket
import threading
from typing import Tuple

import paramiko

from baryon.ps import PeerError

from .connection import Connection

__all__ = ["open_tunnel"]

_CHUNK_NBYTES = 1 << 16
_CONNECT_LIMIT_S = 10.0
# Of one host at a time: an agent, its tasks, and any user of that host who finds the port.
_MOST_CONNECTIONS = 256


def open_tunnel(connection: Connection, address: str, port: int) -> int:
    """Carry connections to a port of the host's loopback address to ``address:port`` here.

    Returns the port; it is open as long as the connection is. Raises PeerError if sshd refuses.
    """
    free = threading.BoundedSemaphore(_MOST_CONNECTIONS)

    def on_connection(
        channel: paramiko.Channel, origin: Tuple[str, int], server: Tuple[str, int]
    ) -> None:
        # In the transport's thread, which must not wait.
        if not free.acquire(blocking=False):
            channel.close()
            return

        def carry() -> None:
            try:
                _carry(channel, address, port)
            finally:
                free.release()

        threading.Thread(target=carry, name=f"tunnel-{connection.name}", daemon=True).start()

    try:
        return connection.transport.request_port_forward("127.0.0.1", 0, on_connection)
    except paramiko.SSHException as error:
        raise PeerError(
            f"it cannot reach this machine, and its sshd does not forward ports ({error}); allow "
            "AllowTcpForwarding there, or open --port here"
        ) from error


def _carry(channel: paramiko.Channel, address: str, port: int) -> None:
    """Pass bytes on both ways until either side ends."""
    try:
        with socket.create_connection((address, port), timeout=_CONNECT_LIMIT_S) as here:
            here.settimeout(None)
            with selectors.DefaultSelector() as selector:
                selector.register(here, selectors.EVENT_READ, (here.recv, channel.sendall))
                selector.register(channel, selectors.EVENT_READ, (channel.recv, here.sendall))
                while True:
                    for ready, _ in selector.select():
                        take, give = ready.data
                        data = take(_CHUNK_NBYTES)
                        if not data:
                            return
                        give(data)
    except OSError:
        pass  # either side has gone; ZeroMQ connects again if it is still wanted
    finally:
        channel.close()
