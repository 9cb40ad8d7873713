"""What waits for a socket: urgent first, in order among equals, never blocking, nothing lost."""

import numpy as np
import pytest
import zmq

from baryon.ps import Outbox, Reactor
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.usefixtures("no_leaks")


class Pair:
    """A sender that takes few messages ahead, and a peer that reads when it is told to."""

    def __init__(self):
        self.reactor = Reactor()
        self.context = zmq.Context()
        self.sender = self.context.socket(zmq.DEALER)
        self.peer = self.context.socket(zmq.DEALER)
        self.sender.sndhwm = self.peer.rcvhwm = 2
        self.peer.bind("inproc://peer")
        self.sender.connect("inproc://peer")
        self.outbox = Outbox(self.reactor, self.sender)
        self.received = []

    def read_all(self, count):
        """Let the peer read until ``count`` messages have come in all."""

        def on_message(frames):
            self.received.append([frame.bytes for frame in frames])
            if len(self.received) == count:
                self.reactor.stop()

        def give_up():
            raise AssertionError(f"only {len(self.received)} of {count} messages arrived")

        self.reactor.call_later(LIMIT_S, give_up)
        self.reactor.receive(self.peer, on_message)
        self.reactor.run()

    def close(self):
        self.context.destroy(linger=0)
        self.reactor.close()


@pytest.fixture
def pair(no_leaks):
    made = Pair()
    yield made
    made.close()


def texts(pair):
    return [frames[0] for frames in pair.received]


def test_nothing_is_sent_before_flush(pair):
    pair.outbox.put([b"a"])
    assert len(pair.outbox) == 1
    assert pair.peer.poll(0) == 0
    pair.outbox.flush()
    assert len(pair.outbox) == 0
    pair.read_all(1)
    assert texts(pair) == [b"a"]


def test_the_most_urgent_goes_first_and_equals_keep_their_order(pair):
    for text, priority in [(b"c", -1), (b"a", 5), (b"b1", 0), (b"b2", 0), (b"d", -2), (b"b3", 0)]:
        pair.outbox.put([text], priority)
    pair.outbox.flush()
    pair.read_all(6)
    assert texts(pair) == [b"a", b"b1", b"b2", b"b3", b"c", b"d"]


def test_a_peer_that_does_not_read_holds_messages_back_here(pair):
    """What ZeroMQ has taken is out of our hands; the rest can still be overtaken."""
    for number in range(50):
        pair.outbox.put([b"%d" % number])
    pair.outbox.flush()
    held = len(pair.outbox)
    assert 40 <= held < 50
    pair.outbox.put([b"urgent"], 1)
    pair.outbox.flush()
    assert len(pair.outbox) == held + 1
    pair.read_all(51)
    sent_ahead = 50 - held
    rest = [b"%d" % number for number in range(50)]
    assert texts(pair) == [*rest[:sent_ahead], b"urgent", *rest[sent_ahead:]]
    assert len(pair.outbox) == 0


def test_nothing_is_lost_or_doubled_under_back_pressure(pair):
    payload = bytes(range(256)) * 64
    for number in range(300):
        pair.outbox.put([b"%d" % number, payload], number % 3)
        if number % 7 == 0:
            pair.outbox.flush()
    pair.outbox.flush()
    pair.read_all(300)
    assert sorted(texts(pair), key=int) == [b"%d" % number for number in range(300)]
    assert all(frames[1] == payload for frames in pair.received)


def test_an_empty_outbox_leaves_the_loop_alone(pair):
    """A socket that can be written and is still watched for it would keep the loop spinning."""
    for number in range(20):
        pair.outbox.put([b"%d" % number])
    pair.outbox.flush()
    pair.read_all(20)
    assert pair.sender not in pair.reactor._poller


def test_frames_may_be_arrays_even_empty_ones(pair):
    pair.outbox.put([b"header", np.arange(3, dtype=np.uint8)])
    pair.outbox.put([b"header", np.zeros(0, np.uint8)])
    pair.outbox.flush()
    pair.read_all(2)
    assert pair.received == [[b"header", b"\x00\x01\x02"], [b"header", b""]]
