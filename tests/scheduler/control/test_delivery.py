"""Connections of the control plane break at any moment: nothing is lost, nothing comes twice."""

import random
import time
from collections import deque

import pytest
import zmq

from baryon.ps import Authenticator, ProtocolError, Reactor, new_key_pair, secure_server
from baryon.scheduler.control import AgentConfig, delivery, messages
from baryon.scheduler.control.delivery import (
    Caller,
    Conversations,
    Delivery,
    Envelope,
    decode_envelope,
)
from baryon.scheduler.control.uplink import Uplink
from tests.waiting import LIMIT_S

from ...proxy import Proxy

SEEDS = range(200)


class Line:
    """One peer and the scheduler, without sockets; connections break when ``chance`` says so.

    What the peer has sent on a connection that broke may arrive late, up to some point, between
    the messages of the next; what the scheduler has sent on it is lost.
    """

    def __init__(self, chance):
        self.chance = chance
        self.up, self.down = {}, {}  # by connection: what is under way
        self.connection = 0
        self.at_scheduler, self.at_peer = [], []
        self.caller = Caller(7, self.from_peer)
        self.conversations = Conversations(self.from_scheduler)
        self.num_resets = 0
        self.reset()

    def reset(self):
        if self.connection:
            self.num_resets += 1
            late = self.up[self.connection]
            for _ in range(self.chance.randrange(len(late) + 1)):
                late.pop()
            self.down[self.connection].clear()
        self.connection += 1
        self.up[self.connection], self.down[self.connection] = deque(), deque()
        self.caller.connected(self.connection)

    def from_peer(self, *frames):
        if self.connection:
            self.up[self.connection].append(frames)

    def from_scheduler(self, route, *frames):
        if route == b"%d" % self.connection:
            self.down[self.connection].append(frames)

    def pass_on(self, connection):
        """The next message of each way of a connection, if there is one."""
        if self.up[connection]:
            data, message = self.up[connection].popleft()
            envelope = decode_envelope(data)
            if self.conversations.hear("peer", b"%d" % connection, envelope, 1) and message:
                self.at_scheduler.append(message)
        if self.down[connection]:
            data, message = self.down[connection].popleft()
            if self.caller.hear(decode_envelope(data), 1) and message:
                self.at_peer.append(message)

    def pass_everything_on(self):
        while any(self.up.values()) or any(self.down.values()):
            for connection in self.up:
                self.pass_on(connection)


@pytest.mark.parametrize("seed", SEEDS)
def test_resets_at_random_moments_lose_nothing(seed):
    chance = random.Random(seed)
    line = Line(chance)
    line.caller.send("u0", 1)
    line.pass_on(1)
    to_scheduler, to_peer = ["u0"], []
    for number in range(1, 200):
        act = chance.random()
        if act < 0.25:
            to_scheduler.append(f"u{number}")
            line.caller.send(to_scheduler[-1], 1)
        elif act < 0.5:
            to_peer.append(f"d{number}")
            line.conversations.send("peer", to_peer[-1], 1)
        elif act < 0.6:
            line.reset()
        elif act < 0.65:
            line.conversations.acknowledge_all()
        else:
            line.pass_on(chance.randint(max(1, line.connection - 2), line.connection))
    assert line.num_resets > 5
    line.pass_everything_on()
    line.conversations.acknowledge_all()
    line.pass_everything_on()
    assert line.at_scheduler == to_scheduler
    assert line.at_peer == to_peer
    assert line.caller.kept() == [], "and all is acknowledged"
    (conversation,) = line.conversations._lives["peer"].values()
    assert conversation.delivery.kept() == []


def test_what_is_not_acknowledged_is_counted():
    end = Delivery()
    assert [end.number("a", 10), end.number("b", 5)] == [1, 2]
    assert end.kept_nbytes == 15
    assert end.take(0, heard=1, nbytes=0)
    assert (end.kept_nbytes, end.kept()) == (5, [(2, "b")])
    assert end.take(0, heard=0, nbytes=0), "late, and nothing new"
    assert end.kept() == [(2, "b")]


def test_much_is_acknowledged_at_once_and_little_a_little_later():
    sent = []
    scheduler = Conversations(lambda *frames: sent.append(decode_envelope(frames[1]).heard))
    scheduler.hear("peer", b"r", Envelope(7, 1, 1, 0), 10)
    assert sent == []
    scheduler.acknowledge("another")
    assert sent == []
    scheduler.acknowledge("peer")
    assert sent == [1]
    scheduler.hear("peer", b"r", Envelope(7, 1, 2, 0), delivery.ACKNOWLEDGE_NBYTES)
    assert sent == [1, 2]
    scheduler.acknowledge_all()
    assert sent == [1, 2]


def test_another_process_with_the_same_keys_begins_anew_and_is_answered():
    sent = []
    scheduler = Conversations(lambda route, envelope, message: sent.append((route, message)))
    assert scheduler.hear("peer", b"first", Envelope(7, 1, 1, 0), 1)
    assert scheduler.hear("peer", b"second", Envelope(8, 1, 1, 0), 1)
    assert scheduler.hear("peer", b"first", Envelope(7, 1, 2, 0), 1), "the first one goes on"
    scheduler.send("peer", "x", 1)
    assert sent == [(b"second", "x")]
    scheduler.send("nobody", "x", 1)
    assert len(sent) == 1


def test_lives_without_end_are_forgotten():
    scheduler = Conversations(lambda *frames: None)
    for life in range(100):
        scheduler.hear("peer", b"r", Envelope(life, 1, 1, 0), 1)
    assert len(scheduler._lives["peer"]) == delivery._MAX_LIVES


@pytest.mark.parametrize(
    "envelope", [Envelope(7, 1, 0, 1), Envelope(7, 1, 5, 0), Envelope(7, 1, 1 << 62, 0)], ids=repr
)
def test_what_cannot_be_is_refused_and_changes_nothing(envelope):
    scheduler = Conversations(lambda *frames: None)
    assert scheduler.hear("peer", b"r", Envelope(7, 1, 1, 0), 1)
    before = repr(scheduler._lives["peer"][7].delivery)
    with pytest.raises(ProtocolError, match="impossible"):
        scheduler.hear("peer", b"r", envelope, 1)
    assert repr(scheduler._lives["peer"][7].delivery) == before
    assert scheduler.hear("peer", b"r", Envelope(7, 1, 2, 0), 1)


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\x93\x01\x02\x03", Envelope(7, -1, 0, 0).encode()]
)
def test_what_is_no_envelope_is_refused(data):
    with pytest.raises(ProtocolError):
        decode_envelope(data)


# -- with real sockets --------------------------------------------------------------------------


class Ends:
    """A scheduler's socket and an `Uplink` in one reactor, with a proxy between them."""

    def __init__(self, cuts):
        self.reactor = Reactor()
        self.context = zmq.Context()
        server, peer = new_key_pair(), new_key_pair()
        self.authenticator = Authenticator(self.context, {peer.public: "peer"})
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.router_mandatory = True
        secure_server(self.socket, server)
        self.socket.bind("tcp://127.0.0.1:*")
        self.proxy = Proxy(self.socket.get_string(zmq.LAST_ENDPOINT), cuts)
        self.conversations = Conversations(self.post)
        self.at_scheduler, self.at_peer = [], []
        self.reactor.receive(self.socket, self.on_frames)
        self.uplink = Uplink(
            self.reactor, self.context,
            AgentConfig(
                job="", host=0, endpoint=self.proxy.endpoint, scheduler_key=server.public,
                public_key=peer.public, secret_key=peer.secret, silence_s=LIMIT_S,
            ),
            self.at_peer.append,
        )  # fmt: skip

    def post(self, route, envelope, frame):
        try:
            self.socket.send_multipart(
                [route, envelope] if frame is None else [route, envelope, frame]
            )
        except zmq.ZMQError:
            pass

    def on_frames(self, frames):
        route, envelope, *body = [frame.bytes for frame in frames]
        data = body[0] if body else b""
        if self.conversations.hear("peer", route, decode_envelope(envelope), len(data)) and data:
            self.at_scheduler.append(messages.CONTROL.decode(data))
        self.conversations.acknowledge("peer")

    def send_down(self, message):
        data = messages.CONTROL.encode(message)
        self.conversations.send("peer", data, len(data))

    def run_until(self, condition):
        deadline = time.monotonic() + LIMIT_S

        def look():
            if condition() or time.monotonic() > deadline:
                self.reactor.stop()
            else:
                self.reactor.call_later(0.001, look)

        self.reactor._stopped = False
        look()
        self.reactor.run()
        assert condition(), (self.uplink._caller, self.conversations._lives, self.proxy.num_cuts)

    def close(self):
        self.uplink.close()
        self.authenticator.stop()
        self.context.destroy(linger=0)
        self.proxy.close()
        self.reactor.close()


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_resets_at_any_byte_lose_nothing(first, monkeypatch):
    """Two hundred seeds, twenty in each case."""
    monkeypatch.setattr("baryon.ps.transport.dialer._RETRY_S", 0.001)
    num_cuts = sum(talk(random.Random(seed)) for seed in range(first, first + 20))
    assert num_cuts > 20


def talk(chance):
    """Twenty messages each way, whatever is cut; returns how often something was."""
    ends = Ends([chance.randint(1, 4000) for _ in range(chance.randint(1, 6))])
    up = [messages.Gather(str(n), "x", bytes(chance.randrange(500))) for n in range(20)]
    down = [messages.Abort("x" * chance.randrange(500)) for _ in range(20)]
    try:
        ends.uplink.send(up[0])
        ends.run_until(lambda: ends.at_scheduler)
        for to_scheduler, to_peer in zip(up[1:], down):
            ends.uplink.send(to_scheduler)
            ends.send_down(to_peer)
            ends.uplink.send_now(messages.Alive())
        ends.send_down(down[-1])
        ends.run_until(lambda: len(ends.at_peer) >= len(down) and ends.uplink.is_done)
        got = [one for one in ends.at_scheduler if not isinstance(one, messages.Alive)]
        assert (got, ends.at_peer) == (up, down)
        return ends.proxy.num_cuts
    finally:
        ends.close()
