"""Carries hosts' connections back to this machine through SSH, if hosts cannot reach it directly.

Behind NAT or a firewall, no host can connect to the scheduler. Instead sshd listens on the host's
own loopback address, and forwards connections to us (RFC 4254, section 7). CURVE protects them end
to end, so the port is as safe as any other.

Running the scheduler on the first host was rejected: the terminal, signals, logs and the SSH
connections are on this machine, and each would need a protocol to get there.
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
# At a time, for one host. Not only its agent and tasks, but every user there can connect.
_MOST_CONNECTIONS = 256


def open_tunnel(connection: Connection, address: str, port: int) -> int:
    """Forward a port of the host's loopback address to ``address:port`` on this machine.

    Returns the host's port, which stays open as long as the connection. Raises PeerError if sshd
    refuses.
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
    """Pass bytes on in both directions until one side ends."""
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
        pass  # one side has gone; ZeroMQ connects again if it needs to
    finally:
        channel.close()
