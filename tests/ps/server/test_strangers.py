"""Who is not of the job does not get a message to a server, and does not disturb it."""

import random
import resource
import select
import socket
import subprocess
import sys

import numpy as np
import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from baryon.ps import new_key_pair, wire
from baryon.ps.transport import security
from tests.waiting import LIMIT_S

from ..conftest import answered

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00"  # ZMTP 3.0 (ZeroMQ RFC 23), to be completed
NOISE = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "random": bytes(random.Random(5).getrandbits(8) for _ in range(5000)),
    "zeros": bytes(5000),
    "zmtp 1": b"\x01\x00" * 100,
    "null mechanism": GREETING + b"NULL".ljust(20, b"\0") + bytes(32) + b"\x04\x19\x05READY" * 9,
    "curve noise": GREETING + b"CURVE".ljust(20, b"\0") + bytes(32) + bytes([4, 200]) + bytes(200),
}
DATA_OF_WORKER_1 = [
    wire.DATA.encode(wire.Push(0, 0, 0, 1, 1, True)),
    np.full(4, 99, "float32").tobytes(),
]


class RunningRound:
    """Worker 0 has pushed, worker 1 has not: a push that got through would end the round."""

    def __init__(self, job):
        self.job = job(num_workers=2)
        self.workers = [self.job.worker(0), self.job.worker(1)]
        for worker in self.workers:
            worker.key("weight", (4,))
        self.waiting = self.workers[0].begin("push", "weight", 1.0, want_value=True)
        self.server = self.job.servers[0]

    def assert_undisturbed(self):
        last = self.workers[1].begin("push", "weight", 2.0, want_value=True)
        answered(self.waiting, last)
        for worker in self.workers:
            assert worker.places["weight"].tolist() == [3.0] * 4
        assert self.job.in_server(lambda: set(self.server.senders)) == {0, 1}
        assert self.job.faults.empty()


@pytest.fixture
def running(job):
    return RunningRound(job)


@pytest.mark.parametrize("which", NOISE)
def test_noise_on_a_bare_connection_is_hung_up_on(running, which):
    address, port = running.server.endpoint[len("tcp://") :].split(":")
    with socket.create_connection((address, int(port)), timeout=LIMIT_S) as connection:
        try:
            connection.sendall(NOISE[which])
            while connection.recv(4096):
                pass  # the server's own greeting
        except ConnectionError:
            pass  # hung up on while we still sent
    running.assert_undisturbed()


def refused_connection(running, keys, server_public=None):
    """A stranger sends what worker 1 would; returns once its connection was refused."""
    stranger = running.job.peer(keys, server_public)
    monitor = stranger.get_monitor_socket()
    stranger.connect(running.server.endpoint)
    stranger.send_multipart(DATA_OF_WORKER_1)
    stranger.send_multipart([wire.DATA.encode(wire.Hello(wire.VERSION))])
    hung_up = (
        zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
        zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
        zmq.EVENT_HANDSHAKE_FAILED_AUTH,
        zmq.EVENT_DISCONNECTED,
    )
    while True:
        assert monitor.poll(int(LIMIT_S * 1000)), "the connection was not refused"
        event = recv_monitor_message(monitor)["event"]
        assert event != zmq.EVENT_HANDSHAKE_SUCCEEDED
        if event in hung_up:
            return stranger


STRANGERS = {
    "no curve": lambda made: (None, None),
    "wrong server key": lambda made: (made.worker_keys[1], new_key_pair().public),
    "not on the allow-list": lambda made: (new_key_pair(), None),
}


@pytest.mark.parametrize("which", STRANGERS)
def test_a_stranger_is_refused(running, which):
    stranger = refused_connection(running, *STRANGERS[which](running.job))
    running.assert_undisturbed()
    assert stranger.poll(0) == 0


def test_the_same_messages_of_worker_1_itself_do_get_through(job):
    """The strangers' messages had no effect only because strangers sent them."""
    running = RunningRound(job)
    peer = running.job.peer(running.job.worker_keys[1])
    peer.connect(running.server.endpoint)
    # The server may drop what worker 1's own client has under way, so the peer declares the key.
    declared = wire.Declare(0, 0, (wire.KeySpec("weight", (4,), "float32"),))
    for message in (wire.Hello(wire.VERSION, connection=2), wire.Open(0, "sync"), declared):
        peer.send_multipart([wire.DATA.encode(message)])
    peer.send_multipart(DATA_OF_WORKER_1)
    answered(running.waiting)
    assert running.workers[0].places["weight"].tolist() == [100.0] * 4


# -- many of them -------------------------------------------------------------------------------

CROWD = """
import resource, socket, sys
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
connections = []
for number in range(count):
    connection = socket.create_connection((host, port), timeout=30)
    if number % 2:
        try:
            connection.sendall(b"GET / HTTP/1.1\\r\\n" * 20)
        except ConnectionError:
            pass
    connections.append(connection)
    if len(connections) > min(6000, hard - 100):
        connections.pop(0).close()
print(len(connections), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def many_descriptors():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_ten_thousand_strangers_do_not_keep_workers_from_their_rounds(many_descriptors, job):
    """Half of them send noise, half say nothing; a worker that comes in their midst is served."""
    made = job(num_workers=2)
    workers = [made.worker(0)]
    workers[0].key("weight", (1000,))
    host, port = made.servers[0].endpoint[len("tcp://") :].split(":")
    crowd = subprocess.Popen(
        [sys.executable, "-c", CROWD, host, port, "10000"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        workers.append(made.worker(1))
        workers[1].key("weight", (1000,))
        said = select.poll()  # select.select knows no descriptor above 1023
        said.register(crowd.stdout, select.POLLIN)
        rounds = rounds_after = 0
        while rounds_after < 20:
            answered(*(worker.begin("push", "weight", 1.0, want_value=True) for worker in workers))
            assert all((worker.places["weight"] == 2.0).all() for worker in workers)
            rounds += 1
            if rounds_after or said.poll(0):
                rounds_after += 1
        assert int(crowd.stdout.readline()) > 1000, "the crowd has not come"
        assert rounds > rounds_after
        late = made.peer(made.worker_keys[1])
        late.connect(made.servers[0].endpoint)
        hello = wire.Hello(wire.VERSION, connection=2)
        late.send_multipart([wire.DATA.encode(hello)])
        assert wire.DATA.decode(late.recv_multipart()[0]) == hello
    finally:
        crowd.communicate(b"", timeout=LIMIT_S)
    assert crowd.returncode == 0 and made.faults.empty()
    assert all(worker.faults.empty() for worker in workers)


def test_who_says_nothing_is_hung_up_on(job, monkeypatch):
    monkeypatch.setattr(security, "_HANDSHAKE_LIMIT_MS", 100)
    made = job(num_workers=1)
    host, port = made.servers[0].endpoint[len("tcp://") :].split(":")
    with socket.create_connection((host, int(port)), timeout=LIMIT_S) as connection:
        while connection.recv(4096):
            pass  # the server's greeting
