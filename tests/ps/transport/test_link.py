"""Connections between workers and servers that break: nothing is lost, nothing is done twice."""

import random
import re
import time

import numpy as np
import pytest

from baryon.ps import PeerError, UsageError, wire
from baryon.ps.compression import CODECS, compression_of
from baryon.ps.transport import dialer
from baryon.worker.mxnet.pickled import dump_optimizer
from tests.waiting import LIMIT_S, wait_until

from ...proxy import Proxy
from ..conftest import Job, answered, ask

ROUNDS = 6
KEYS = {"w": ((30, 20), "float32"), "b": ((7,), "float32"), "d": ((400,), "float64")}
BIG = {"big": ((330_000,), "float32")}  # two buckets, one on each server
LOST = r"lost server 0 \(tcp://127.0.0.1:\d+\) for \d+ s: is the network between"


@pytest.fixture
def proxies(no_leaks):
    made = []

    def make(server, cuts=()):
        made.append(Proxy(server.endpoint, cuts))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


@pytest.fixture
def job(proxies, job):
    """Jobs that are closed before the proxies."""
    return job


def until(worker, condition, what):
    """Wait until ``condition()`` is true in the worker's loop."""
    wait_until(lambda: worker.loop.call(condition), what)


# -- whatever is cut, the result is the same ----------------------------------------------------


def train(mx, workers, keys, codec=""):
    """Rounds of SGD with momentum and a change of its rate; the weights of all workers."""
    data = np.random.default_rng(1)
    for worker in workers:
        if codec:
            params = {"type": codec, "min_size": 100, "answers": True}
            worker.store.set_compression(compression_of(params))
        for name, (shape, dtype) in keys.items():
            worker.key(name, shape, dtype)
        worker.key("rows", (50, 4))
    workers[0].init("rows", 1.0)
    for name, (shape, _) in keys.items():
        workers[0].init(name, data.standard_normal(shape))
    store = workers[0].store
    optimizer = mx.optimizer.SGD(learning_rate=0.1, momentum=0.9)
    store.set_updater("mxnet", dump_optimizer(optimizer, [("w", 0.5)]))
    for round_ in range(ROUNDS):
        if round_ == ROUNDS // 2:
            workers[0].set_hyper({"lr": 0.03}, [("w", 0.25)], [])
        begun = []
        begun += [
            worker.begin_rows("rows", np.sort(data.choice(50, 3, False)), data.standard_normal(3))
            for worker in workers
        ]
        for name, (shape, _) in keys.items():
            want_value = round_ % 2 == 0
            for worker in workers:
                begun.append(worker.begin("push", name, data.standard_normal(shape), want_value))
        answered(*begun)
        some = [worker.pull_rows("rows", [3, 30, 49]).tobytes() for worker in workers]
        assert some[0] == some[1]
    return [{name: worker.pull(name).tobytes() for name in (*keys, "rows")} for worker in workers]


@pytest.fixture(scope="module")
def undisturbed(mx):
    weights = {}

    def get(keys, codec=""):
        if (len(keys), codec) not in weights:
            made = Job(num_workers=2, num_servers=2)
            first, second = train(mx, [made.worker(0), made.worker(1)], keys, codec)
            made.close()
            assert first == second
            weights[len(keys), codec] = first
        return weights[len(keys), codec]

    return get


@pytest.mark.parametrize("seed", range(30))
def test_cuts_at_any_byte_change_no_bit_of_the_result(
    job, proxies, mx, undisturbed, monkeypatch, seed
):
    train_with_cuts(job, proxies, mx, undisturbed, monkeypatch, seed, "")


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_nor_do_they_if_it_is_compressed(job, proxies, mx, undisturbed, monkeypatch, seed, codec):
    train_with_cuts(job, proxies, mx, undisturbed, monkeypatch, seed, codec)


def train_with_cuts(job, proxies, mx, undisturbed, monkeypatch, seed, codec):
    monkeypatch.setattr(dialer, "_RETRY_S", 0.01)
    chance = random.Random(seed)
    is_big = seed % 6 == 0
    keys = {**KEYS, **BIG} if is_big else KEYS
    reach = 2_000_000 if is_big else 15_000
    if codec:
        reach //= 10
    made = job(num_workers=2, num_servers=2)
    links = [
        [
            proxies(server, [chance.randrange(1, reach) for _ in range(chance.randrange(1, 5))])
            for server in made.servers
        ]
        for _ in range(2)
    ]
    workers = [made.worker(rank, [proxy.endpoint for proxy in links[rank]]) for rank in range(2)]
    expected = undisturbed(keys, codec)
    assert train(mx, workers, keys, codec) == [expected] * 2
    assert (expected != undisturbed(keys)) == bool(codec)
    assert sum(proxy.num_cuts for row in links for proxy in row) >= 2
    assert made.faults.empty() and all(worker.faults.empty() for worker in workers)


def test_a_link_that_is_silent_for_a_while_is_made_anew_and_goes_on(job, proxies):
    """What the old connection still carries arrives beside what is sent again on the new one."""
    made = job(num_workers=2)
    proxy = proxies(made.servers[0])
    workers = [made.worker(0), made.worker(1, [proxy.endpoint], silence_s=2.0)]
    for worker in workers:
        worker.key("weight", (50_000,))
    answered(*(worker.begin("push", "weight", 1.0, want_value=True) for worker in workers))
    (its_link,) = workers[1].client._links
    for value in (2.0, 3.0):
        proxy.black_hole()
        begun = [worker.begin("push", "weight", value, want_value=True) for worker in workers]
        until(workers[1], lambda: not its_link.is_up, "heartbeats to miss the server")
        proxy.resume()
        answered(*begun)
        assert all((worker.places["weight"] == 2 * value).all() for worker in workers)
    assert workers[1].faults.empty()


# -- a link that stays down ---------------------------------------------------------------------


def test_a_link_that_stays_silent_fails_and_is_named(job, proxies):
    made = job(num_workers=2, num_servers=2)
    proxy = proxies(made.servers[0])
    endpoints = [proxy.endpoint, made.servers[1].endpoint]
    worker = made.worker(1, endpoints, silence_s=1.0)
    worker.key("weight", (4,))
    its_link = worker.client._links
    until(worker, lambda: all(one.is_up for one in its_link), "both links to come up")
    waiting = worker.begin("push", "weight", 1.0)
    proxy.black_hole()
    text = worker.faults.get(timeout=LIMIT_S)
    assert re.fullmatch(LOST + ".*", text)
    assert waiting.error() == f"worker 1 has {text}" and proxy.endpoint in text
    with pytest.raises(PeerError, match="worker 1 has " + LOST):
        worker.client.raise_if_failed()
    assert worker.faults.empty()


def test_links_that_never_come_up_are_all_named(job, proxies):
    made = job(num_workers=2, num_servers=2)
    mute = [proxies(server) for server in made.servers]
    for proxy in mute:
        proxy.black_hole()
    worker = made.worker(1, [proxy.endpoint for proxy in mute], silence_s=0.5)
    text = worker.faults.get(timeout=LIMIT_S)
    assert all(f"server {n} ({proxy.endpoint}) for " in text for n, proxy in enumerate(mute))


def test_nothing_is_said_of_servers_after_the_client_has_failed(job, proxies):
    made = job(num_workers=2)
    proxy = proxies(made.servers[0])
    proxy.black_hole()
    worker = made.worker(1, [proxy.endpoint], silence_s=0.2)
    worker.client.fail(UsageError("the job is stopping"))
    outages = worker.client._core.outages
    until(worker, lambda: outages.down_s[0] > 0.4, "the limit to pass")
    assert worker.faults.empty()
    with pytest.raises(UsageError, match="stopping"):
        worker.client.raise_if_failed()


def test_time_in_which_the_worker_itself_was_suspended_does_not_count(job, proxies):
    made = job(num_workers=2)
    proxy = proxies(made.servers[0])
    proxy.black_hole()
    worker = made.worker(1, [proxy.endpoint], silence_s=LIMIT_S)

    def wake_up_late():
        core = worker.client._core
        core.look(time.monotonic() + 1000.0, [False])
        return core.outages.down_s[0]

    assert 0.0 < worker.loop.call(wake_up_late) < LIMIT_S / 2
    assert worker.faults.empty()
    proxy.resume()
    worker.client.drain(LIMIT_S)


# -- a server and the connections of one worker -------------------------------------------------

ONES = np.ones(4, "float32").tobytes()
PUSH = [wire.DATA.encode(wire.Push(0, 0, 0, 1, 1, True)), ONES]


def hello(connection):
    return [wire.DATA.encode(wire.Hello(wire.VERSION, connection))]


@pytest.fixture
def reconnecting(job):
    """Worker 0, and two bare connections of worker 1, the first of which has said Hello."""
    made = job(num_workers=2)
    worker = made.worker(0)
    worker.key("weight", (4,))
    old, new = (made.peer(made.worker_keys[1]) for _ in range(2))
    for peer in (old, new):
        peer.connect(made.servers[0].endpoint)
    assert ask(old, hello(1)) == wire.Hello(wire.VERSION, 1)
    for message in (wire.Open(0, "sync"), wire.Declare(0, 0, (KEY,))):
        old.send_multipart([wire.DATA.encode(message)])
    assert ask(old, hello(1)) == wire.Hello(wire.VERSION, 1)  # they have arrived
    return made, worker, old, new


KEY = wire.KeySpec("weight", (4,), "float32")


def test_an_answer_goes_to_the_latest_connection_once_and_only_if_asked_for_there(reconnecting):
    made, worker, old, new = reconnecting
    old.send_multipart(PUSH)
    made.until(made.waits, "worker 1's push")
    assert ask(new, hello(2)) == wire.Hello(wire.VERSION, 2)
    answered(worker.begin("push", "weight", 2.0))  # the round ends
    assert ask(new, PUSH) == wire.Answer(0, 0, 0, 1, True)
    assert ask(new, hello(2)) == wire.Hello(wire.VERSION, 2)  # nothing lies between
    assert old.poll(0) == 0


def test_what_comes_late_from_an_older_connection_is_dropped(reconnecting):
    made, worker, old, new = reconnecting
    assert ask(new, hello(2)) == wire.Hello(wire.VERSION, 2)
    for frames in (PUSH, [b"noise"], hello(1), PUSH):
        old.send_multipart(frames)
    server = made.servers[0]
    answered(worker.begin("init", "weight", 5.0))
    assert ask(new, [wire.DATA.encode(wire.Pull(0, 0, 0, 1))]) == wire.Answer(0, 0, 0, 1, True)
    heard = made.in_server(lambda: server._children[1].number)
    assert heard == 2 and not made.in_server(made.waits)
    new.send_multipart(PUSH)
    answered(worker.begin("push", "weight", 1.0))
    assert wire.DATA.decode(new.recv_multipart()[0]) == wire.Answer(0, 0, 0, 1, True)


def test_a_repeated_setting_is_accepted_and_changes_nothing(job, mx):
    made = job(num_workers=1)
    peer = made.peer(made.worker_keys[0])
    peer.connect(made.servers[0].endpoint)
    assert ask(peer, hello(1)) == wire.Hello(wire.VERSION, 1)
    peer.send_multipart([wire.DATA.encode(wire.Open(0, "sync"))])
    pickled = dump_optimizer(mx.optimizer.SGD(learning_rate=0.5, momentum=0.9))
    optimizer = [wire.DATA.encode(wire.SetUpdater(0, 1, "mxnet", pickled))]

    def updater():
        return made.in_server(lambda: made.servers[0]._stores[0].updater)

    assert ask(peer, optimizer) == wire.Accepted(0, 1)
    first = updater()
    assert ask(peer, optimizer) == wire.Accepted(0, 1) and updater() is first

    def set_rate(serial, rate):
        scalars = {"lr": rate}
        return ask(
            peer, [wire.DATA.encode(wire.SetHyper(0, serial, serial - 1, 0, scalars, [], []))]
        )

    assert [set_rate(2, 0.1), set_rate(3, 0.2)] == [wire.Accepted(0, 2), wire.Accepted(0, 3)]
    assert set_rate(2, 0.1) == wire.Accepted(0, 2)
    assert made.in_server(lambda: first._versions.scalars(0, 2)) == {"lr": 0.2}
    assert "setting number 5 came after number 3" in set_rate(5, 0.3).text


def test_a_store_that_was_closed_while_a_link_was_down_is_closed_and_not_opened_again(job, proxies):
    made = job(num_workers=2)
    server = made.servers[0]
    proxy = proxies(server)
    workers = [made.worker(0), made.worker(1, [proxy.endpoint], silence_s=2.0)]
    for worker in workers:
        worker.key("weight", (5,))
    answered(*(worker.begin("push", "weight", 1.0) for worker in workers))
    proxy.black_hole()
    for worker in workers:
        worker.store = None
    made.until(lambda: server._stores.closed == {0: {0}}, "worker 0 to close the store")
    (its_link,) = workers[1].client._links
    until(workers[1], lambda: not its_link.is_up, "heartbeats to miss the server")
    proxy.resume()
    workers[1].client.drain()
    made.until(lambda: not server._stores, "the end of the store")
    settings = workers[1].client._core._settings
    assert workers[1].loop.call(lambda: (settings, its_link.is_up)) == ({}, True)


def test_a_repeated_close_is_accepted_and_opens_nothing(job):
    made = job(num_workers=1)
    peer = made.peer(made.worker_keys[0])
    peer.connect(made.servers[0].endpoint)
    assert ask(peer, hello(1)) == wire.Hello(wire.VERSION, 1)
    peer.send_multipart([wire.DATA.encode(wire.Open(0, "sync"))])
    for _ in range(2):
        assert ask(peer, [wire.DATA.encode(wire.Close(0, 1))]) == wire.Accepted(0, 1)
        assert made.in_server(lambda: made.servers[0]._stores) == {}
