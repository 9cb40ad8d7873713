"""A real server and real clients, over TCP loopback with CURVE."""

import logging
import os
import pickle
import re

import numpy as np
import pytest
import zmq

from baryon.ps import (
    Operation,
    PeerError,
    ProtocolError,
    UsageError,
    WaitTimeout,
    dump_optimizer,
    wire,
)

from .conftest import LIMIT_S, Outcome, answered, ask

NAMES = ("weight", "bias")
HELLO = wire.DATA.encode(wire.Hello(wire.VERSION))


@pytest.fixture(autouse=True)
def quiet_log(caplog):
    caplog.set_level(logging.CRITICAL, "baryon.server")


def two_workers(job, num_servers=1, shape=(3, 4)):
    made = job(num_workers=2, num_servers=num_servers)
    workers = [made.worker(0), made.worker(1)]
    for worker in workers:
        for name in NAMES:
            worker.key(name, shape)
    return made, workers


def assert_fails(worker, outcome, kind, says):
    """An operation of the worker ends with the reason, which is raised from then on."""
    assert re.search(says, outcome.error())
    with pytest.raises(kind, match=says):
        worker.client.drain(LIMIT_S)
    with pytest.raises(kind, match=says):
        worker.client.raise_if_failed()


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


def test_stores_are_apart(job):
    _, workers = two_workers(job)
    stores = [worker.client.open("sync") for worker in workers]
    places = [store.add_key("weight", (2,), "float64") for store in stores]
    for place, store in zip(places, stores):
        place[:] = 5.0
        operation = Operation("push", store.key("weight"), want_value=True)
        store.announce(operation)
        store.ready(operation)
    answered(*(worker.begin("push", "weight", 1.0, want_value=True) for worker in workers))
    for worker, place in zip(workers, places):
        worker.client.drain(LIMIT_S)
        assert place.tolist() == [10.0, 10.0] and (worker.places["weight"] == 2.0).all()


def test_an_optimizer_updates_the_weights(job, mx):
    _, workers = two_workers(job)
    workers[0].init("weight", 1.0)
    optimizer = mx.optimizer.SGD(learning_rate=0.5)
    workers[0].store.set_optimizer(pickle.dumps(optimizer), [("weight", 0.5)], [])
    workers[0].init("bias", 0.0)  # so that the optimizer has arrived
    for expected in (0.0, -1.0):
        answered(*(worker.begin("push", "weight", 2.0, want_value=True) for worker in workers))
        assert all((worker.places["weight"] == expected).all() for worker in workers)


def test_hyper_parameters_change_for_rounds_to_come(job, mx):
    _, workers = two_workers(job, num_servers=2)
    for name in NAMES:
        workers[0].init(name, 1.0)
    store = workers[0].store
    store.set_optimizer(dump_optimizer(mx.optimizer.SGD(learning_rate=0.5)), [], [])
    for expected in (0.0, -0.5):
        outcomes = [
            worker.begin("push", n, 1.0, want_value=True) for worker in workers for n in NAMES
        ]
        answered(*outcomes)
        for worker in workers:
            assert (worker.places["weight"] == expected).all()
            assert (worker.places["bias"] == (0.0 if expected == 0.0 else -1.5)).all()
        store.set_hyper({"lr": 0.25}, [("bias", 3.0)], [])


def test_only_rank_0_changes_hyper_parameters(job, mx):
    _, workers = two_workers(job)
    workers[0].store.set_optimizer(dump_optimizer(mx.optimizer.SGD()), [], [])
    workers[0].init("weight", 1.0)  # so that the optimizer has arrived
    waiting = workers[1].begin("push", "weight", 1.0)
    workers[1].store.set_hyper({"lr": 9.0}, [], [])
    assert_fails(workers[1], waiting, PeerError, "worker 1 changed an optimizer that is not its")


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


def test_a_worker_that_has_ended_is_left_out_from_now_on(job):
    """The scheduler says so; the server's own loop is told."""
    made, (first, _) = two_workers(job)
    waiting = first.begin("push", "weight", 3.0, want_value=True)
    made.until(made.waits, "worker 0's push")
    made.in_server(made.servers[0].worker_left, 1)
    answered(waiting)
    assert (first.places["weight"] == 3.0).all()
    answered(first.begin("push", "bias", 4.0))
    store = first.client.open("sync")  # also in stores to come
    store.add_key("late", (2,), "float32")
    operation = Operation("push", store.key("late"), want_value=False)
    store.announce(operation)
    store.ready(operation)
    first.client.drain(LIMIT_S)


# -- what makes a store useless -----------------------------------------------------------------


def test_disagreeing_shapes_reach_all_workers_and_the_caller(job):
    made = job(num_workers=2)
    first, second = made.worker(0), made.worker(1)
    first.key("weight", (3, 4))
    early = first.begin("pull", "weight")  # waits for ever
    made.until(made.waits, "worker 0's pull")
    second.key("weight", (4, 3))
    late = second.begin("pull", "weight")
    says = r"key 'weight' is float32\(3, 4\) on worker 0 and float32\(4, 3\) on worker 1"
    assert_fails(first, early, PeerError, says)
    assert_fails(second, late, PeerError, says)
    assert "same network" in made.faults.get(timeout=LIMIT_S)


def test_an_optimizer_that_raises_reaches_all_workers_and_the_caller(job, mx, monkeypatch):
    def raise_it(*args):
        raise ZeroDivisionError("a wonderful reason")

    monkeypatch.setattr(mx.optimizer.SGD, "update_multi_precision", raise_it)
    made, workers = two_workers(job)
    workers[0].store.set_optimizer(pickle.dumps(mx.optimizer.SGD()), [], [])
    workers[0].init("weight", 1.0)
    outcomes = [worker.begin("push", "weight", 1.0) for worker in workers]
    for worker, outcome in zip(workers, outcomes):
        assert_fails(
            worker, outcome, PeerError, "(?s)server 0 failed:.*ZeroDivisionError: a wonderful"
        )
    assert "a wonderful reason" in made.faults.get(timeout=LIMIT_S)


def test_an_optimizer_outside_the_allow_list_reaches_all_workers_and_the_caller(job, mx):
    made, workers = two_workers(job)
    waiting = workers[1].begin("push", "weight", 1.0)
    made.until(made.waits, "worker 1's push")
    pushed = workers[0].begin("push", "bias", 1.0)
    workers[0].store.set_optimizer(pickle.dumps(logging.Formatter()), [], [])
    assert_fails(workers[0], pushed, PeerError, "logging.Formatter, which servers do not load")
    assert "logging.Formatter" in made.faults.get(timeout=LIMIT_S)
    assert_fails(workers[1], waiting, PeerError, "logging.Formatter")


def test_fail_ends_every_operation_with_the_reason(job):
    worker = job(num_workers=2).worker(0)
    for name in ("weight", "bias", "early", "late"):
        worker.key(name, (2,))
    under_way = [worker.begin("push", "weight", 1.0), worker.begin("pull", "bias")]
    late = Operation("push", worker.store.key("late"), want_value=True)
    announced = Outcome(late)
    worker.store.announce(late)  # not ready, and so in the way of the next
    under_way.append(worker.begin("push", "early", 1.0))
    reason = UsageError("the scheduler says stop")
    worker.client.fail(reason)
    assert [outcome.error() for outcome in under_way] == [str(reason)] * 3
    with pytest.raises(UsageError) as caught:
        worker.client.raise_if_failed()
    assert caught.value is reason

    worker.store.ready(late)
    to_come = worker.begin("push", "weight", 1.0)
    assert [announced.error(), to_come.error()] == [str(reason)] * 2
    with pytest.raises(UsageError, match="stop"):
        worker.client.drain(LIMIT_S)
    assert worker.loop.call(lambda: worker.client._unfinished) == 0


def test_the_first_reason_to_fail_is_kept(job):
    worker = job(num_workers=2).worker(0)
    worker.client.fail(UsageError("the cause"))
    worker.client.fail(PeerError("a consequence"))
    with pytest.raises(UsageError, match="the cause"):
        worker.client.drain(LIMIT_S)


def test_a_worker_that_comes_after_the_failure_is_told_too(job):
    made = job(num_workers=2)
    made.in_server(made.servers[0]._fail, "the optimizer has failed")
    late = made.peer(made.worker_keys[1])
    late.rcvtimeo = 1000  # what passes for never, here
    late.connect(made.servers[0].endpoint)
    assert ask(late, [HELLO]) == wire.Fault("the optimizer has failed")


@pytest.mark.parametrize(
    "answer",
    [
        b"\xc1",
        wire.DATA.encode(wire.Pull(0, 0, 0, 1)),
        wire.DATA.encode(wire.Answer(9, 0, 0, 1, False)),
        wire.DATA.encode(wire.Answer(-1, 0, 0, 1, False)),
        wire.DATA.encode(wire.Answer(0, 7, 0, 1, False)),
        wire.DATA.encode(wire.Answer(0, 0, 0, 1, True)),
    ],
    ids=["noise", "a worker's", "store", "store below zero", "bucket", "no payload"],
)
def test_a_server_that_breaks_the_protocol_is_named(job, answer):
    _, (first, _) = two_workers(job)
    waiting = first.begin("push", "weight", 1.0)
    first.loop.call(first.client._on_message, 0, [zmq.Frame(answer)])
    assert_fails(first, waiting, ProtocolError, "server 0 sent what it must not")


def test_a_rank_0_that_ends_without_a_first_value_reaches_who_waits_for_it(job):
    made, (_, second) = two_workers(job)
    waiting = second.begin("pull", "weight")
    made.until(made.waits, "worker 1's pull")
    made.in_server(made.servers[0].worker_left, 0)
    assert_fails(second, waiting, PeerError, "worker 0 has ended without initialising")
    assert "worker 0 has ended" in made.faults.get(timeout=LIMIT_S)


def test_a_forked_process_cannot_use_its_parents_stores(job, monkeypatch):
    worker = job(num_workers=1).worker(0)
    worker.client.raise_if_failed()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(UsageError, match="was forked"):
        worker.client.raise_if_failed()
    monkeypatch.undo()


# -- malformed messages of a worker -------------------------------------------------------------

WEIGHT = np.ones(12, "float32").tobytes()
MALFORMED = {
    "an empty header": [b""],
    "noise": [b"\xff\x00\x13noise"],
    "no field": [b"\x91\xa5Hello"],
    "another version": [wire.DATA.encode(wire.Hello(99))],
    "a server's message": [wire.DATA.encode(wire.Answer(0, 0, 0, 1, False))],
    "a fault": [wire.DATA.encode(wire.Fault("you are"))],
    "an unknown store": [wire.DATA.encode(wire.Pull(7, 0, 0, 1))],
    "a store below zero": [wire.DATA.encode(wire.Pull(-1, 0, 0, 1))],
    "an unknown bucket": [wire.DATA.encode(wire.Pull(0, 5, 0, 1))],
    "a bucket below zero": [wire.DATA.encode(wire.Pull(0, -1, 0, 1))],
    "too many slices": [wire.DATA.encode(wire.Pull(0, 0, 1, 2**60))],
    "a push without payload": [wire.DATA.encode(wire.Push(0, 0, 0, 1, 1, True))],
    "a pull with payload": [wire.DATA.encode(wire.Pull(0, 0, 0, 1)), WEIGHT],
    "a payload too short": [wire.DATA.encode(wire.Push(0, 0, 0, 1, 1, True)), WEIGHT[:-1]],
    "a payload too long": [wire.DATA.encode(wire.Push(0, 0, 0, 1, 1, True)), WEIGHT + b"x"],
    "three frames": [wire.DATA.encode(wire.Push(0, 0, 0, 1, 1, True)), WEIGHT, WEIGHT],
    "a round to come": [wire.DATA.encode(wire.Push(0, 0, 0, 1, 9, True)), WEIGHT],
    "a value not from rank 0": [wire.DATA.encode(wire.Init(0, 0, 0, 1)), WEIGHT],
    "an optimizer not from rank 0": [wire.DATA.encode(wire.SetOptimizer(0, b"", [], []))],
    "hyper-parameters not from rank 0": [wire.DATA.encode(wire.SetHyper(0, {"lr": 1.0}, [], []))],
    "a key out of turn": [wire.DATA.encode(wire.Declare(0, 5, ()))],
    "a header nested without end": [b"\x93\xa5Hello\x01" + b"\x91" * 100_000 + b"\x01"],
}


@pytest.mark.parametrize("which", MALFORMED)
def test_a_malformed_message_is_answered_with_a_fault_and_others_are_served(job, which):
    made = job(num_workers=3)
    workers = [made.worker(0), made.worker(1)]
    for worker in workers:
        worker.key("weight", (3, 4))
    waiting = workers[0].begin("push", "weight", 1.0, want_value=True)
    made.until(made.waits, "worker 0's push")
    rogue = made.peer(made.worker_keys[2])
    rogue.connect(made.servers[0].endpoint)

    assert "server 0 refused a message" in ask(rogue, MALFORMED[which]).text

    assert ask(rogue, [HELLO]) == wire.Hello(wire.VERSION)
    made.in_server(made.servers[0].worker_left, 2)
    answered(waiting, workers[1].begin("push", "weight", 2.0, want_value=True))
    for worker in workers:
        worker.client.raise_if_failed()
        assert (worker.places["weight"] == 3.0).all()
    assert made.faults.empty()
