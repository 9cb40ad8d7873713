"""Somebody with access to the network and to none of the keys, at every port that a job opens."""

import random
import resource
import socket
import struct
import subprocess
import threading
from typing import Dict, Iterator, List, Set, Tuple

import pytest
import zmq

from baryon.ps import new_key_pair, secure_client
from tests.cluster import JobRun
from tests.waiting import wait_until

from .conftest import SshCluster

pytestmark = pytest.mark.hosts

LOOP = """
import mxnet as mx
kv = mx.kv.create("dist_sync")
kv.init("w", mx.nd.ones((64, 64)))
out = mx.nd.zeros((64, 64))
step = 0
while True:
    kv.pushpull("w", mx.nd.ones((64, 64)), out=out)
    out.wait_to_read()
    step += 1
    if step % 200 == 0:
        assert (out.asnumpy() == 2).all(), "somebody has pushed"
        print("STEP", flush=True)
"""
Address = Tuple[str, int]


@pytest.fixture
def run(cluster: SshCluster) -> Iterator[JobRun]:
    """A job of two workers and two servers in the midst of training."""
    run = cluster.start("-n", 2, cluster.script(LOOP))
    run.wait_for_output("STEP", 2)
    yield run
    run.signal(15)
    run.end()


def steps(run: JobRun) -> int:
    return run.out.count("STEP")


def goes_on(run: JobRun) -> None:
    before = steps(run)
    wait_until(lambda: steps(run) >= before + 6, "the job to go on")
    assert run.err == "launch.py: looking at 2 hosts\n", "nothing is said of strangers"


def listening(cluster: SshCluster, run: JobRun) -> Set[Address]:
    """Where the job listens: found as an administrator would, with all rights."""
    found: Set[Address] = set()
    for host in cluster.bed.hosts[:2]:
        ss = cluster.bed.run(host, ["ss", "-Htln"], stdout=subprocess.PIPE)
        for line in ss.communicate()[0].decode().splitlines():
            address, _, port = line.split()[3].rpartition(":")
            if port != "22":
                found.add((address, int(port)))
    for process in run.processes("baryon.launcher"):
        for connection in process.net_connections("tcp"):
            if connection.status == "LISTEN":
                found.add((connection.laddr.ip, connection.laddr.port))
    return found


def test_every_port_is_on_the_clusters_own_network(cluster: SshCluster, run: JobRun) -> None:
    """One of the scheduler and one of each server; none on other interfaces."""
    found = listening(cluster, run)
    addresses = sorted(address for address, _ in found)
    own = [cluster.bed.driver_address, *(host.address for host in cluster.bed.hosts[:2])]
    assert addresses == sorted(own)


def test_port_scan_and_garbage(cluster: SshCluster, run: JobRun) -> None:
    """Whatever is sent, nothing comes back but ZeroMQ's public greeting."""
    noise = random.Random(1)
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
    for address in listening(cluster, run):
        for junk in (
            b"",
            b"GET / HTTP/1.0\r\n\r\n",
            greeting,
            bytes(noise.getrandbits(8) for _ in range(5000)),
        ):
            said = talk(address, junk)
            assert said in (b"", said[:64]) and b"baryon" not in said
            assert len(said) <= 64, "more than the greeting"
            if len(said) > 32:
                assert b"CURVE" in said, "it takes nobody without keys"
    goes_on(run)


def talk(address: Address, data: bytes) -> bytes:
    """What is answered within half a second."""
    with socket.create_connection(address, timeout=5) as raw:
        said = b""
        try:
            raw.sendall(data)
            raw.settimeout(0.5)
            while True:
                more = raw.recv(4096)
                if not more:
                    return said
                said += more
        except OSError:
            return said


def test_wrong_keys(cluster: SshCluster, run: JobRun) -> None:
    """One's own keys; an honest client that has the wrong server's; no keys at all."""
    context = zmq.Context()
    for host, port in listening(cluster, run):
        for secure in (
            lambda s: None,
            lambda s: secure_client(s, new_key_pair(), new_key_pair().public),
        ):
            stranger = context.socket(zmq.DEALER)
            stranger.linger = 0
            secure(stranger)
            stranger.connect(f"tcp://{host}:{port}")
            stranger.send_multipart([b"\x95\xa4Pull\x00\x00\x00\x01"])
            assert stranger.poll(300) == 0, "a stranger got an answer"
            stranger.close()
    context.term()
    goes_on(run)


def test_replayed_capture(cluster: SshCluster) -> None:
    """All that agents and tasks have said to the scheduler, taken from the wire, said again."""
    port = free_port(cluster.bed.driver_address)
    with Capture(cluster.bed.driver_link, port) as capture:
        run = cluster.start("-n", 2, "--port", port, cluster.script(LOOP))
        run.wait_for_output("STEP", 2)
        conversations = capture.conversations()
    assert len(conversations) >= 6, "two agents, two servers, two workers"
    for conversation in conversations:
        assert b"CURVE" in conversation[:64] and len(conversation) > 400, "a whole handshake"
        for address in listening(cluster, run):
            said = talk(address, conversation)
            assert len(said) <= GREETING_NBYTES + WELCOME_NBYTES, "past the handshake"
    goes_on(run)
    run.signal(15)
    assert run.end() == 143


GREETING_NBYTES, WELCOME_NBYTES = 64, 2 + 168  # ZMTP 3.1 (RFC 37), CurveZMQ (RFC 26)


def free_port(address: str) -> int:
    with socket.create_server((address, 0)) as taken:
        return int(taken.getsockname()[1])


class Capture:
    """What comes in to a TCP port over a network link, as somebody on the wire sees it."""

    def __init__(self, link: str, port: int) -> None:
        self._port = port
        self._streams: Dict[Tuple[bytes, int], Dict[int, bytes]] = {}
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
        self._socket.bind((link, 0))
        self._socket.settimeout(0.1)
        self._is_over = False
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> "Capture":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over = True
        self._thread.join()
        self._socket.close()

    def conversations(self) -> List[bytes]:
        """The bytes of each connection, in order."""
        return [b"".join(data for _, data in sorted(s.items())) for s in self._streams.values()]

    def _read(self) -> None:
        while not self._is_over:
            try:
                packet = self._socket.recv(1 << 16)[14:]  # after Ethernet's header
            except OSError:
                continue
            tcp = packet[4 * (packet[0] & 15) : int.from_bytes(packet[2:4], "big")]
            if packet[9] != socket.IPPROTO_TCP:
                continue
            source, target, sequence = struct.unpack("!HHI", tcp[:8])
            data = tcp[4 * (tcp[12] >> 4) :]
            if target == self._port and data:
                self._streams.setdefault((packet[12:16], source), {})[sequence] = data


def test_ten_thousand_connections(cluster: SshCluster, run: JobRun) -> None:
    """A thousand at a time, half of them silent, half of them garbage, on all ports in turn."""
    addresses = sorted(listening(cluster, run))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    opened: List[socket.socket] = []
    try:
        for number in range(10_000):
            try:
                raw = socket.create_connection(addresses[number % len(addresses)], timeout=2)
            except OSError:
                continue  # refused, as it should be in the end
            opened.append(raw)
            if number % 2:
                raw.send(b"\0" * 100)
            if len(opened) > 1000:
                opened.pop(0).close()
        goes_on(run)
    finally:
        for raw in opened:
            raw.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    goes_on(run)
