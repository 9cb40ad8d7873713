"""Answers hellos on a host, and says them. Part of probe.py's text there: see meeting.py.

Python 3.6 and its standard library, and ZeroMQ.
"""

import resource
import time

__all__ = ["Greeter"]


class Greeter:
    """Answers hellos, and says them."""

    def __init__(self, keys, address):
        import zmq

        self._zmq = zmq
        self._keys = keys
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._context = zmq.Context()
        self._context.max_sockets = 1 << 14
        self._server = self._context.socket(zmq.REP)
        self._server.linger = 0
        self._server.ipv6 = ":" in address
        self._server.curve_server = True
        self._server.curve_secretkey = keys["server_secret"].encode()
        self._server.curve_publickey = keys["server_public"].encode()
        self._server.bind(f"tcp://[{address}]:*" if ":" in address else f"tcp://{address}:*")
        self.endpoint = self._server.last_endpoint.decode()

    def try_to_reach(self, targets, limit_s):
        """The numbers of those that do not answer."""
        zmq, waiting = self._zmq, {}
        poller = zmq.Poller()
        poller.register(self._server, zmq.POLLIN)
        for number, endpoint in targets:
            client = self._context.socket(zmq.REQ)
            client.linger = 0
            client.ipv6 = "[" in endpoint
            client.curve_serverkey = self._keys["server_public"].encode()
            client.curve_secretkey = self._keys["client_secret"].encode()
            client.curve_publickey = self._keys["client_public"].encode()
            client.connect(endpoint)
            client.send(b"hello")
            waiting[client] = number
            poller.register(client, zmq.POLLIN)
        deadline = time.monotonic() + limit_s
        while waiting and time.monotonic() < deadline:
            for ready, _ in poller.poll(50):
                ready.recv()
                deadline = time.monotonic() + limit_s
                if ready is self._server:
                    ready.send(b"hello")
                    continue
                poller.unregister(ready)
                del waiting[ready]
                ready.close()
        unreachable = sorted(waiting.values())
        for client in waiting:
            client.close()
        return unreachable

    def answer_until_input(self):
        """Answer others' hellos until there is something to read on standard input."""
        poller = self._zmq.Poller()
        poller.register(self._server, self._zmq.POLLIN)
        poller.register(0, self._zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self._server in ready:
                self._server.recv()
                self._server.send(b"hello")
            if 0 in ready:
                return
