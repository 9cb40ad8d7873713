"""Lets the hosts of a job say hello to each other, and to this machine, over ZeroMQ with CURVE.

The other side is greeter.py, which probe.py runs on each host.
"""

import threading
from typing import Callable, Dict, List, Sequence

import zmq

from baryon.ps import bind_to, endpoint_of, new_key_pair

from .found_host import HERE, FoundHost, ask_probe, each

__all__ = ["let_them_meet"]

_HELLO_LIMIT_S = 3.0
_NEIGHBOURS = 4
_JOIN_LIMIT_S = 2.0


def let_them_meet(hosts: Sequence[FoundHost], port: int, is_thorough: bool) -> None:
    """Note in the reports which hosts cannot reach which others, or ``port`` of this machine.

    Each host tries every other if this ``is_thorough``, else only the next few: with many hosts, a
    host has its ports closed, not a pair.
    """
    able = [h for h in hosts if h.report.found.get("address") and _has_zmq(h)]
    if not able:
        return
    server, client = new_key_pair(), new_key_pair()
    keys = {
        "server_secret": server.secret,
        "server_public": server.public,
        "client_secret": client.secret,
        "client_public": client.public,
    }
    endpoints: Dict[int, str] = {}

    def listen(host: FoundHost) -> None:
        assert host.probe is not None
        endpoints[host.index] = ask_probe(host.probe, keys)["endpoint"]

    each(able, listen)
    able = [host for host in able if host.index in endpoints]
    numbers = {host.index: number for number, host in enumerate(hosts)}
    count = len(able) if is_thorough else _NEIGHBOURS + 1

    def others(index: int) -> List[int]:
        """The hosts after this one, in a ring."""
        ring = sorted(endpoints)
        start = ring.index(index)
        return (ring[start:] + ring[:start])[1:count]

    with _Greeter(server.secret, server.public, port, able) as here:

        def meet(host: FoundHost) -> None:
            assert host.probe is not None
            targets = [[numbers[index], endpoints[index]] for index in others(host.index)]
            endpoint = here.endpoints.get(host.scheduler_address)
            targets += [[HERE, endpoint]] if endpoint else []
            answer = ask_probe(host.probe, {"targets": targets, "limit_s": _HELLO_LIMIT_S})
            missed = [] if host.scheduler_address else [HERE]
            host.report.unreachable = (*missed, *answer["unreachable"])

        here.answer_while(lambda: each(able, meet))


def _has_zmq(host: FoundHost) -> bool:
    return host.probe is not None and bool(host.report.found["modules"]["zmq"])


class _Greeter:
    """Answers the hosts' hellos where the scheduler is going to listen."""

    def __init__(self, secret: str, public: str, port: int, hosts: Sequence[FoundHost]) -> None:
        self.endpoints: Dict[str, str] = {}  # by address; those that can be listened at
        self._context = zmq.Context()
        self._sockets: List[zmq.Socket] = []
        for address in {host.scheduler_address for host in hosts} - {""}:
            socket = self._context.socket(zmq.REP)
            socket.linger = 0
            socket.curve_server = True
            socket.curve_secretkey, socket.curve_publickey = secret.encode(), public.encode()
            try:
                self.endpoints[address] = bind_to(socket, endpoint_of(address, port or "*"))
            except zmq.ZMQError:
                socket.close()
                continue  # nobody is asked to reach it: the scheduler will say why it cannot listen
            self._sockets.append(socket)

    def __enter__(self) -> "_Greeter":
        return self

    def __exit__(self, *exception: object) -> None:
        self._context.destroy(linger=0)

    def answer_while(self, what: Callable[[], None]) -> None:
        """Call ``what()``, and answer until it returns."""
        poller = zmq.Poller()
        for socket in self._sockets:
            poller.register(socket, zmq.POLLIN)
        # The hosts are asked in this thread, which alone hears Ctrl-C; another answers.
        is_over = threading.Event()

        def answer() -> None:
            while not is_over.is_set():
                for socket, _ in poller.poll(20):
                    socket.recv()
                    socket.send(b"hello")

        thread = threading.Thread(target=answer, name="hello", daemon=True)
        thread.start()
        try:
            what()
        finally:
            is_over.set()
            thread.join(_JOIN_LIMIT_S)
