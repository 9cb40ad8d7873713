"""One TCP connection that carries as much as it can, both ways at once.

    python benchmarks/tcp_stream.py                     (listens)
    python benchmarks/tcp_stream.py ADDRESS             (connects)

Each end prints what it received a second, of payload: headers are what the rest of a link carries.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import threading
import time

PORT = 29400
BLOCK = 1 << 18
CONNECT_LIMIT_S = 10.0


def connect(address: str) -> socket.socket:
    if not address:
        with socket.create_server(("", PORT)) as listener:
            listener.settimeout(CONNECT_LIMIT_S)
            return listener.accept()[0]
    deadline = time.monotonic() + CONNECT_LIMIT_S
    while True:
        try:
            return socket.create_connection((address, PORT), CONNECT_LIMIT_S)
        except ConnectionRefusedError:  # the other end is not there yet
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def send(connection: socket.socket, seconds: float) -> None:
    block, deadline = bytes(BLOCK), time.monotonic() + seconds
    while time.monotonic() < deadline:
        connection.sendall(block)
    connection.shutdown(socket.SHUT_WR)


def received_per_s(connection: socket.socket) -> float:
    buffer, total, start = bytearray(BLOCK), 0, time.monotonic()
    while True:
        received = connection.recv_into(buffer)
        if not received:
            return total / (time.monotonic() - start)
        total += received


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", nargs="?", default="")
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    with connect(options.address) as connection:
        sender = threading.Thread(target=send, args=(connection, options.seconds))
        sender.start()
        json.dump({"bytes_per_s": received_per_s(connection)}, sys.stdout)
        sender.join()


if __name__ == "__main__":
    main()
