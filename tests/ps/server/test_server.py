"""A real server and real clients, over TCP loopback with CURVE."""

import pickle
import threading

import numpy as np
import pytest

from baryon.ps import Operation, WaitTimeout, wire
from baryon.worker.mxnet.pickled import dump_optimizer
from tests.waiting import LIMIT_S

from ..conftest import answered
from ..updaters import mxnet_blob

NAMES = ("weight", "bias")


def two_workers(job, num_servers=1, shape=(3, 4)):
    made = job(num_workers=2, num_servers=num_servers)
    workers = [made.worker(0), made.worker(1)]
    for worker in workers:
        for name in NAMES:
            worker.key(name, shape)
    return made, workers


# -- operations ---------------------------------------------------------------------------------


def test_init_on_one_worker_is_pulled_by_all(job):
    _, (first, second) = two_workers(job)
    early = second.begin("pull", "weight")  # perhaps before there is a value
    first.init("weight", np.arange(12).reshape(3, 4))
    answered(early)
    assert second.places["weight"].tolist() == np.arange(12).reshape(3, 4).tolist()
    assert first.pull("weight").tolist() == np.arange(12).reshape(3, 4).tolist()


def test_push_then_pull_gives_the_sum_to_all(job):
    _, workers = two_workers(job)
    workers[0].init("weight", 0)
    answered(*(worker.begin("push", "weight", 10.0**n) for n, worker in enumerate(workers)))
    for worker in workers:
        assert (worker.pull("weight") == 11.0).all()


def test_rounds_of_pushpull_answer_with_each_rounds_sum(job):
    _, workers = two_workers(job)
    for round_ in range(1, 21):
        answered(
            *(
                worker.begin("push", name, round_ * 10.0**n, want_value=True)
                for name in NAMES
                for n, worker in enumerate(workers)
            )
        )
        for worker in workers:
            assert all((worker.places[name] == 11.0 * round_).all() for name in NAMES)


def test_a_worker_is_not_answered_before_the_other_has_pushed(job):
    _, (first, second) = two_workers(job)
    waiting = first.begin("push", "weight", 1.0)
    first.init("bias", 0)  # answered after the push has reached the server
    assert not waiting.is_known()
    answered(second.begin("push", "weight", 1.0), waiting)


def test_a_big_key_is_split_over_two_servers(job):
    _, workers = two_workers(job, num_servers=2, shape=(700, 1000))  # three buckets each
    slices = workers[0].store.key("weight").slices
    assert {slice_.bucket.server for slice_ in slices} == {0, 1} and len(slices) == 3
    values = [np.arange(700_000, dtype="float32").reshape(700, 1000) + n for n in range(2)]
    answered(
        *(w.begin("push", "weight", value, want_value=True) for w, value in zip(workers, values))
    )
    for worker in workers:
        np.testing.assert_array_equal(worker.places["weight"], values[0] + values[1])


@pytest.mark.parametrize("shape", [(), (0,), (0, 5)])
def test_0d_and_empty_keys_travel(job, shape):
    _, workers = two_workers(job, shape=shape)
    workers[0].init("weight", 1)
    answered(*(worker.begin("push", "weight", 3.0, want_value=True) for worker in workers))
    for worker in workers:
        assert worker.pull("weight").tolist() == np.full(shape, 6.0).tolist()


def test_a_key_is_declared_before_anything_of_it_is_sent(job):
    """Though what has become ready before it was declared has asked to be sent already."""
    worker = job(num_workers=1).worker(0)
    worker.key("a", (2,))
    answered(worker.begin("push", "a", 1.0))  # the connection is up

    def all_at_once():
        first = worker.begin("push", "a", 1.0)
        worker.key("b", (2,))
        return first, worker.begin("push", "b", 1.0)

    answered(*worker.loop.call(all_at_once))


def test_stores_are_apart(job):
    _, workers = two_workers(job)
    stores = [worker.client.open(wire.Open(1, "sync")) for worker in workers]
    places = [store.outgoing(store.declare("weight", (2,), "float64")) for store in stores]
    for place, store in zip(places, stores):
        place[:] = 5.0
        operation = Operation("push", store.key("weight"), want_value=True)
        store.announce(operation)
        store.ready(operation)
    answered(*(worker.begin("push", "weight", 1.0, want_value=True) for worker in workers))
    for worker, place in zip(workers, places):
        worker.client.drain(LIMIT_S)
        assert place.tolist() == [10.0, 10.0] and (worker.places["weight"] == 2.0).all()


def test_a_store_is_gone_when_all_have_closed_it(job):
    made, (first, second) = two_workers(job)
    server = made.servers[0]
    first.init("weight", 1.0)
    first.store = None
    first.client.drain()
    first.client.drain()  # which waits for what the first one has made known
    assert made.in_server(lambda: list(server._stores)) == [0]
    assert (second.pull("weight") == 1.0).all()
    second.store = None
    made.until(lambda: not server._stores, "the end of the store")
    for worker in (first, second):
        worker.client.drain()
        assert worker.loop.call(lambda c: (c._stores, c._introduction), worker.client._core) == (
            {},
            [],
        )
    for worker in (first, second):
        worker.store = worker.client.open(wire.Open(1, "sync"))
        worker.key("weight", (3, 4))
    answered(*(worker.begin("push", "weight", 1.0, want_value=True) for worker in (first, second)))
    assert (second.places["weight"] == 2.0).all()


def test_who_has_left_has_closed_its_stores(job):
    made, (_first, second) = two_workers(job)
    made.until(lambda: made.servers[0]._stores, "the store")
    second.store = None
    made.until(lambda: made.servers[0]._stores.closed == {0: {1}}, "worker 1 to close it")
    made.in_server(made.servers[0].worker_left, 0)
    assert not made.in_server(lambda: made.servers[0]._stores)


def test_a_store_is_not_closed_while_something_of_it_is_under_way(job, mx):
    made, (first, second) = two_workers(job)
    first.init("weight", 1.0)
    # Who begins an operation refers to the store until it is done, and so does a setting.
    first.store.set_updater("mxnet", dump_optimizer(mx.optimizer.SGD()))
    first.store = second.store = None
    first.client.drain()
    made.until(lambda: not made.servers[0]._stores, "the end of the store")
    assert made.faults.empty()
    first.client.raise_if_failed()


def test_an_optimizer_updates_the_weights(job, mx):
    _, workers = two_workers(job)
    workers[0].init("weight", 1.0)
    optimizer = mx.optimizer.SGD(learning_rate=0.5)
    workers[0].store.set_updater("mxnet", mxnet_blob(pickle.dumps(optimizer), [("weight", 0.5)]))
    workers[0].init("bias", 0.0)  # so that the optimizer has arrived
    for expected in (0.0, -1.0):
        answered(*(worker.begin("push", "weight", 2.0, want_value=True) for worker in workers))
        assert all((worker.places["weight"] == expected).all() for worker in workers)


def test_hyper_parameters_change_for_rounds_to_come(job, mx):
    _, workers = two_workers(job, num_servers=2)
    for name in NAMES:
        workers[0].init(name, 1.0)
    store = workers[0].store
    store.set_updater("mxnet", dump_optimizer(mx.optimizer.SGD(learning_rate=0.5)))
    for expected in (0.0, -0.5):
        outcomes = [
            worker.begin("push", n, 1.0, want_value=True) for worker in workers for n in NAMES
        ]
        answered(*outcomes)
        for worker in workers:
            assert (worker.places["weight"] == expected).all()
            assert (worker.places["bias"] == (0.0 if expected == 0.0 else -1.5)).all()
        workers[0].set_hyper({"lr": 0.25}, [("bias", 3.0)], [])


# -- waiting ------------------------------------------------------------------------------------


def test_drain_waits_for_all_that_was_begun(job):
    _, workers = two_workers(job)
    outcomes = [worker.begin("push", name, 1.0) for worker in workers for name in NAMES]
    for worker in workers:
        worker.client.drain(LIMIT_S)
    assert all(outcome.is_known() for outcome in outcomes)
    answered(*outcomes)


def test_drain_with_nothing_begun_returns(job):
    job(num_workers=1).worker(0).client.drain(LIMIT_S)


def test_drain_gives_up_at_its_limit_and_says_how_many_are_left(job):
    _, (first, second) = two_workers(job)
    for name in NAMES:
        first.begin("push", name, 1.0)
    with pytest.raises(WaitTimeout, match="2 operations were not answered in 0 s"):
        first.client.drain(0.01)
    first.client.raise_if_failed()  # nothing is broken
    for name in NAMES:
        second.begin("push", name, 1.0)
    first.client.drain(LIMIT_S)


def test_a_wait_ends_when_nothing_at_all_is_answered_any_more(job):
    """Whatever is answered meanwhile may be what it has to wait for."""
    _, (first, second) = two_workers(job)
    first.client._timeout_s = 0.01
    waiting = first.begin("push", "weight", 1.0)
    with pytest.raises(WaitTimeout, match="waited 0 s for rows of key 'weight'; see --timeout"):
        first.client.wait(threading.Event(), "rows of key 'weight'")

    class Late(threading.Event):
        """Is set by and by, while others are answered."""

        count = 0

        def wait(self, timeout=None):
            self.count += 1
            answered(second.begin("push", "bias", 1.0), first.begin("push", "bias", 1.0))
            return self.count == 3

    first.client.wait(Late(), "what is late")
    answered(second.begin("push", "weight", 1.0), waiting)


def test_a_worker_that_has_ended_is_left_out_from_now_on(job):
    """The scheduler says so; the server's own loop is told."""
    made, (first, _) = two_workers(job)
    waiting = first.begin("push", "weight", 3.0, want_value=True)
    made.until(made.waits, "worker 0's push")
    made.in_server(made.servers[0].worker_left, 1)
    answered(waiting)
    assert (first.places["weight"] == 3.0).all()
    answered(first.begin("push", "bias", 4.0))
    store = first.client.open(wire.Open(1, "sync"))  # also in stores to come
    store.declare("late", (2,), "float32")
    operation = Operation("push", store.key("late"), want_value=False)
    store.announce(operation)
    store.ready(operation)
    first.client.drain(LIMIT_S)
