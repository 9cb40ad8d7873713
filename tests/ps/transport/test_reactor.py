"""The loop: posted calls, timers, descriptors, and how it ends."""

import os
import threading
from types import SimpleNamespace

import pytest
import zmq

from baryon.ps import Reactor
from baryon.ps.transport import reactor as reactor_module
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def reactor(no_leaks):
    made = Reactor()
    yield made
    made.close()


@pytest.fixture
def clock(monkeypatch):
    """The reactor's clock, standing still at ``clock.now``."""
    fake = SimpleNamespace(now=100.0)
    monkeypatch.setattr(reactor_module, "time", SimpleNamespace(monotonic=lambda: fake.now))
    return fake


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.fixture
def sockets(reactor):
    """Two connected ZeroMQ sockets; closed before the reactor is, as their owners do."""
    context = zmq.Context()
    left, right = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    left.bind("inproc://pair")
    right.connect("inproc://pair")
    yield left, right
    reactor.unwatch(left)
    context.destroy(linger=0)


class Broken(Exception):
    pass


def fail():
    raise Broken


# -- posted calls -------------------------------------------------------------------------------


def test_posted_calls_run_in_the_loops_thread_in_order(reactor):
    calls = []
    for number in range(100):
        reactor.post(lambda n: calls.append((n, threading.get_ident())), number)
    reactor.post(reactor.stop)
    reactor.run()
    assert calls == [(number, threading.get_ident()) for number in range(100)]


def test_a_post_wakes_a_loop_that_has_nothing_to_do(loop_thread):
    """Each post waits for the one before, so a lost wake-up would stop the chain."""
    loop_thread.start()
    for _ in range(500):
        done = threading.Event()
        loop_thread.reactor.post(done.set)
        assert done.wait(LIMIT_S), "the loop sleeps although something is posted"


def test_each_threads_posts_keep_their_order(loop_thread):
    calls = []
    loop_thread.start()

    def post_many(thread):
        for number in range(1000):
            loop_thread.reactor.post(calls.append, (thread, number))

    posters = [threading.Thread(target=post_many, args=(name,)) for name in "abc"]
    for poster in posters:
        poster.start()
    for poster in posters:
        poster.join(LIMIT_S)
    loop_thread.call(lambda: None)
    assert len(calls) == 3000
    for name in "abc":
        assert [number for thread, number in calls if thread == name] == list(range(1000))


def test_a_call_that_posts_for_ever_does_not_starve_sockets(reactor, pipe):
    def again():
        reactor.post(again)

    os.write(pipe[1], b".")
    reactor.watch(pipe[0], reactor.stop)
    reactor.post(again)
    reactor.run()
    reactor.unwatch(pipe[0])


# -- timers -------------------------------------------------------------------------------------


def test_timers_run_when_due_in_order_of_their_times(reactor, clock):
    calls = []
    for delay_s, name in [(3, "c"), (1, "a"), (2, "b"), (1, "a, set later"), (50, "not yet")]:
        reactor.call_later(delay_s, lambda name=name: calls.append(name))
    reactor.call_later(4, reactor.stop)
    reactor.post(setattr, clock, "now", 104.0)
    reactor.run()
    assert calls == ["a", "a, set later", "b", "c"]


def test_a_cancelled_timer_does_not_run(reactor, clock):
    calls = []
    timer = reactor.call_later(2, lambda: calls.append("cancelled before"))
    late = reactor.call_later(2, lambda: calls.append("cancelled by one due with it"))
    reactor.call_later(1, late.cancel)
    reactor.call_later(3, reactor.stop)
    timer.cancel()
    reactor.post(setattr, clock, "now", 110.0)
    reactor.run()
    assert calls == []


def test_a_timer_wakes_the_loop_by_itself(reactor):
    reactor.call_later(0.001, reactor.stop)
    reactor.run()


def test_call_every_goes_on_at_its_interval(reactor, clock):
    times = []

    def tick():
        times.append(clock.now)
        if len(times) == 3:
            reactor.stop()

    def advance():
        clock.now += 1.0
        reactor.post(advance)

    reactor.call_every(5, tick)
    reactor.post(advance)
    reactor.run()
    assert times == [105.0, 110.0, 115.0]


# -- sockets and descriptors --------------------------------------------------------------------


def test_a_watched_descriptor_calls_while_it_can_be_read(reactor, pipe):
    read = []

    def take_one():
        read.append(os.read(pipe[0], 1))
        if len(read) == 3:
            reactor.stop()

    os.write(pipe[1], b"xyz")
    reactor.watch(pipe[0], take_one)
    reactor.run()
    assert read == [b"x", b"y", b"z"]
    reactor.unwatch(pipe[0])


def test_unwatch_ends_the_calls_though_there_is_more_to_read(reactor, pipe):
    calls = []

    def once():
        calls.append("read")
        reactor.unwatch(pipe[0])
        reactor.post(turn, 3)

    def turn(left):
        calls.append(f"{left} turns of the loop to go")
        reactor.post(turn, left - 1) if left else reactor.stop()

    os.write(pipe[1], b"xyz")
    reactor.watch(pipe[0], once)
    reactor.run()
    assert calls == ["read", *(f"{left} turns of the loop to go" for left in (3, 2, 1, 0))]


def test_unwatch_counts_at_once_for_what_is_ready_in_the_same_turn(reactor):
    """A handler may close another's source, whose own handler must not run then."""
    pipes = [os.pipe(), os.pipe()]
    calls = []

    def first(mine, other):
        calls.append(mine)
        reactor.unwatch(mine)
        reactor.unwatch(other)
        reactor.stop()

    (a, a_end), (b, b_end) = pipes
    for end in (a_end, b_end):
        os.write(end, b".")
    reactor.watch(a, lambda: first(a, b))
    reactor.watch(b, lambda: first(b, a))
    reactor.run()
    assert len(calls) == 1
    for end in (a, a_end, b, b_end):
        os.close(end)


def test_writable_and_readable_of_one_source_are_watched_apart(reactor, sockets):
    left, right = sockets
    calls = []

    def on_writable():
        calls.append("write")
        reactor.unwatch_writable(left)
        right.send(b"hello")

    def on_message(frames):
        calls.append(frames[0].bytes)
        reactor.stop()

    reactor.receive(left, on_message)
    reactor.watch_writable(left, on_writable)
    reactor.run()
    assert calls == ["write", b"hello"]


def test_all_messages_of_a_socket_are_handed_over_in_order(reactor, sockets):
    left, right = sockets
    got = []

    def on_message(frames):
        got.append([frame.bytes for frame in frames])
        if len(got) == 200:
            reactor.stop()

    for number in range(200):
        right.send_multipart([b"%d" % number, b"second frame"])
    reactor.receive(left, on_message)
    reactor.run()
    assert got == [[b"%d" % number, b"second frame"] for number in range(200)]


def test_a_handler_may_close_its_socket_with_messages_left_in_it(reactor, sockets):
    left, right = sockets
    got = []

    def on_message(frames):
        got.append(frames[0].bytes)
        reactor.unwatch(left)
        left.close()
        reactor.stop()

    for text in (b"one", b"two"):
        right.send(text)
    reactor.receive(left, on_message)
    reactor.run()
    assert got == [b"one"]


# -- the end ------------------------------------------------------------------------------------


def test_stop_from_another_thread_ends_a_sleeping_loop(loop_thread):
    loop_thread.start()
    loop_thread.call(lambda: None)
    loop_thread.reactor.stop()
    loop_thread.join()


def test_stop_before_run_is_not_lost(reactor):
    reactor.stop()
    reactor.run()


def test_an_exception_in_a_posted_call_ends_the_loop_and_is_raised(reactor):
    calls = []
    reactor.post(fail)
    reactor.post(calls.append, "after")
    with pytest.raises(Broken):
        reactor.run()
    assert calls == []


def test_an_exception_in_a_timer_ends_the_loop_and_is_raised(reactor):
    reactor.call_later(0, fail)
    with pytest.raises(Broken):
        reactor.run()


def test_an_exception_in_a_handler_ends_the_loop_and_is_raised(reactor, pipe):
    os.write(pipe[1], b".")
    reactor.watch(pipe[0], fail)
    with pytest.raises(Broken):
        reactor.run()
    reactor.unwatch(pipe[0])


def test_more_wake_ups_than_the_pipe_holds_do_no_harm(reactor):
    """Nobody reads the pipe while the loop is busy; a full one must not block whoever posts."""
    for _ in range(70_000):
        reactor.stop()
    reactor.run()


def test_stop_after_close_writes_to_nobody_elses_descriptor():
    """A signal handler may call `stop` late, when the numbers have been given out again."""
    reactor = Reactor()
    reactor.close()
    ends = os.pipe()
    os.set_blocking(ends[0], False)
    try:
        reactor.stop()
        with pytest.raises(BlockingIOError):
            os.read(ends[0], 1)
    finally:
        for end in ends:
            os.close(end)
