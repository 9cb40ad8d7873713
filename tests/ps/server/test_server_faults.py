"""What a server and its clients do when something is wrong: who is told, and who is served on."""

import logging
import pickle
import re

import numpy as np
import pytest
import zmq

from baryon.ps import PeerError, ProtocolError, UsageError, wire
from baryon.ps.client.requests import Request, Requests
from baryon.worker.mxnet.pickled import dump_optimizer
from tests.waiting import LIMIT_S

from ..conftest import Outcome, answered, ask
from ..updaters import mxnet_blob
from .test_server import two_workers

HELLO = wire.DATA.encode(wire.Hello(wire.VERSION))


def assert_fails(worker, outcome, kind, says):
    """An operation of the worker ends with the reason, which is raised from then on."""
    assert re.search(says, outcome.error())
    with pytest.raises(kind, match=says):
        worker.client.drain(LIMIT_S)
    with pytest.raises(kind, match=says):
        worker.client.raise_if_failed()


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


@pytest.mark.parametrize(
    ("theirs", "says"),
    [
        (wire.Open(1, "async"), "'async' "),
        (wire.Open(1, "sync", True), "'sync' with whole keys "),
        (wire.Open(1, "sync", False, 3), r"'sync' with a staleness of 3 "),
    ],
)
def test_stores_that_differ_reach_all_workers_and_the_caller(job, theirs, says):
    made, (first, second) = two_workers(job)
    waiting = [worker.begin("pull", "weight") for worker in (first, second)]
    opened = [first.client.open(wire.Open(1, "sync"))]
    made.until(lambda: 1 in made.servers[0]._stores, "worker 0's store")
    opened.append(second.client.open(theirs))
    says = f"kvstore number 1 is 'sync' on worker 0 and {says}on worker 1; create the same"
    for worker, outcome in zip((first, second), waiting):
        assert_fails(worker, outcome, PeerError, says)
    assert "kvstore number 1" in made.faults.get(timeout=LIMIT_S)


def test_an_optimizer_that_raises_reaches_all_workers_and_the_caller(job, mx, monkeypatch):
    def raise_it(*args):
        raise ZeroDivisionError("a wonderful reason")

    monkeypatch.setattr(mx.optimizer.SGD, "update_multi_precision", raise_it)
    made, workers = two_workers(job)
    workers[0].store.set_updater("mxnet", mxnet_blob(pickle.dumps(mx.optimizer.SGD())))
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
    workers[0].store.set_updater("mxnet", mxnet_blob(pickle.dumps(logging.Formatter())))
    assert_fails(workers[0], pushed, PeerError, "logging.Formatter, which servers do not load")
    assert "logging.Formatter" in made.faults.get(timeout=LIMIT_S)
    assert_fails(workers[1], waiting, PeerError, "logging.Formatter")


def test_fail_ends_every_operation_with_the_reason(job):
    worker = job(num_workers=2).worker(0)
    for name in ("weight", "bias", "early", "late"):
        worker.key(name, (2,))
    under_way = [worker.begin("push", "weight", 1.0), worker.begin("pull", "bias")]
    late = Outcome("push", worker.store.key("late"), want_value=True)
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
    assert [late.error(), to_come.error()] == [str(reason)] * 2
    with pytest.raises(UsageError, match="stop"):
        worker.client.drain(LIMIT_S)
    assert worker.loop.call(lambda: worker.client._core.num_unfinished) == 0


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
    assert_fails(first, waiting, ProtocolError, "server 0 broke the protocol")


def test_a_server_that_speaks_for_another_is_named(job):
    """It answers what another was asked."""
    made = job(num_workers=1, num_servers=2)
    worker = made.worker(0)
    worker.key("weight", (4,))
    place = worker.key("bias", (4,), "float64")
    (slice_,) = worker.store.key("bias").slices
    assert (slice_.bucket.index, slice_.bucket.server) == (1, 1)
    waiting = worker.begin("pull", "bias")
    frames = [wire.DATA.encode(wire.Answer(0, 1, 0, 1, True)), np.ones(4).tobytes()]
    worker.loop.call(worker.client._on_message, 0, [*map(zmq.Frame, frames)])
    assert_fails(worker, waiting, ProtocolError, "server 0 broke the protocol: .* bucket 1")
    assert not place.any()


@pytest.mark.parametrize("answer", [wire.Stored(1), wire.Joined(1), wire.State(1, None)])
def test_only_who_was_asked_a_question_answers_it(answer):
    requests = Requests()
    done = []
    request = Request(
        1, lambda serial: wire.PutState(0, serial, 0, 0, 0, 0, SPEC), done=lambda: done.append(1)
    )
    requests.add(request)
    for server in (0, 1) if not isinstance(answer, wire.Stored) else (0,):
        with pytest.raises(ProtocolError, match=f"{type(answer).__name__} number 1 answers"):
            requests.answered(server, answer, None)
    assert not done
    requests.answered(1, wire.Stored(1), None)
    assert done == [1] and request.answer == wire.Stored(1)


SPEC = wire.StateSpec(None, (), 0, {})


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
    monkeypatch.setattr("baryon.ps.client.client._forks", 1)  # what a fork does in the child
    with pytest.raises(UsageError, match="was forked"):
        worker.client.raise_if_failed()
    monkeypatch.undo()


def test_only_rank_0_changes_hyper_parameters(job, mx):
    _, workers = two_workers(job)
    workers[0].store.set_updater("mxnet", dump_optimizer(mx.optimizer.SGD()))
    workers[0].init("weight", 1.0)  # so that the optimizer has arrived
    waiting = workers[1].begin("push", "weight", 1.0)
    workers[1].store.set_hyper(1, {"lr": 9.0}, [], [])
    assert_fails(workers[1], waiting, PeerError, "worker 1 changed an optimizer that is not its")


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
    "an optimizer not from rank 0": [wire.DATA.encode(wire.SetUpdater(0, 1, "mxnet", b""))],
    "hyper-parameters not from rank 0": [
        wire.DATA.encode(wire.SetHyper(0, 1, 1, 1, {"lr": 1.0}, [], []))
    ],
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
