"""Rows over real connections: between workers and owners, and through a server in between."""

import numpy as np
import pytest

from baryon.ps import UsageError, wire
from baryon.ps.rows import as_bytes
from baryon.worker.mxnet.pickled import dump_optimizer

from ..conftest import answered, ask
from ..server.test_relay import Tree

SHAPE = (70_000, 5)  # two buckets: 52,428 rows in the first
EDGES = [0, 52_427, 52_428, 69_999]


def workers_of(job, num_workers=2, num_servers=2):
    made = job(num_workers, num_servers)
    workers = [made.worker(rank) for rank in range(num_workers)]
    for worker in workers:
        worker.key("table", SHAPE)
    return made, workers


def test_rows_are_summed_over_workers_and_servers(job):
    _, (first, second) = workers_of(job)
    assert {s.bucket.server for s in first.store.key("table").slices} == {0, 1}
    first.init("table", 7.0)
    answered(first.begin_rows("table", EDGES, [1, 2, 3, 4]), second.begin_rows("table", [0], [5]))
    for worker in (first, second):
        assert worker.pull_rows("table", EDGES)[:, 0].tolist() == [6.0, 2.0, 3.0, 4.0]
        assert worker.pull("table").sum() == 15.0 * 5
        assert worker.pull_rows("table", [69_999]).tolist() == [[4.0] * 5]


def test_all_rows_and_rows_may_be_pushed_in_one_round(job):
    _, (first, second) = workers_of(job)
    first.init("table", 0.0)
    whole = second.begin("push", "table", 1.0, want_value=True)
    answered(first.begin_rows("table", [3], [10]), whole)
    assert second.places["table"][2:4, 0].tolist() == [1.0, 11.0]


def test_an_optimizer_updates_the_rows(job, mx):
    _, (first, second) = workers_of(job)
    first.init("table", 1.0)
    optimizer = mx.optimizer.SGD(learning_rate=0.5, wd=0.1, lazy_update=True)
    first.store.set_updater("mxnet", dump_optimizer(optimizer))
    first.client.drain()
    for _ in range(2):
        answered(first.begin_rows("table", [], []), second.begin_rows("table", [52_428], [2.0]))
    once = 1.0 - 0.5 * (2.0 + 0.1)
    twice = once - 0.5 * (2.0 + 0.1 * once)
    expected = [[1.0] * 5, [twice] * 5]
    np.testing.assert_allclose(first.pull_rows("table", [0, 52_428]), expected, rtol=1e-6)


def test_keys_without_such_rows_are_refused_by_the_client(job):
    worker = job(num_workers=1).worker(0)
    worker.key("wide", (2, 300_000))
    worker.key("scalar", ())
    for name in ("wide", "scalar"):
        with pytest.raises(UsageError, match="use dense gradients"):
            worker.begin_rows(name, [], [])


@pytest.mark.parametrize(
    ("message", "payload", "says"),
    [
        (wire.PushRows(0, 0, 0, 1), [], "came in 1 frames"),
        (wire.PullRows(0, 0, 0), [b"", b""], "came in 3 frames"),
        (wire.PushRows(0, 0, 0, 1), [bytes(8)], "8 bytes of rows"),
        (wire.PullRows(0, 0, 0), [bytes(7)], "7 bytes of ids"),
        (wire.PullRows(0, 0, 0), [as_bytes(np.array([3])).tobytes()], "for 3 rows"),
        (wire.PushRows(0, 1, 0, 1), [b""], "no bucket 1"),
        (wire.PushRows(1, 0, 0, 1), [b""], "store 1 has not been opened"),
        (wire.AnswerRows(0, 0, 0), [b""], "AnswerRows"),
    ],
)
def test_wrong_rows_are_told_to_their_sender_and_nobody_is_harmed(job, message, payload, says):
    made = job(num_workers=2)
    worker = made.worker(0)
    worker.key("w", (3, 2))
    worker.init("w", 1.0)
    rogue = made.peer(made.worker_keys[1])
    rogue.connect(made.servers[0].endpoint)
    ask(rogue, [wire.DATA.encode(wire.Hello(wire.VERSION))])
    for known in (
        wire.Open(0, "sync"),
        wire.Declare(0, 0, (wire.KeySpec("w", (3, 2), "float32"),)),
    ):
        rogue.send(wire.DATA.encode(known))
    assert says in ask(rogue, [wire.DATA.encode(message), *payload]).text
    assert worker.pull("w").tolist() == [[1.0, 1.0]] * 3
    assert made.faults.empty()


@pytest.fixture(params=[True, False], ids=["encrypted", "plain"])
def tree(no_leaks, request):
    made = Tree(encrypts=request.param)
    yield made
    made.close()


def test_rows_rise_and_come_down_over_every_link(tree):
    """Two workers in shared memory with a server that shares its own with the owner; one by TCP."""
    first, _, far = tree.workers
    first.init("big", 7.0)
    for round_ in (1, 2, 3):
        terms = ([2, 699], [round_, 1]), ([2], [10]), ([437, 699], [5, 100])
        answered(*(w.begin_rows("big", *term) for w, term in zip(tree.workers, terms)))
        for worker in tree.workers:
            rows = worker.pull_rows("big", [0, 2, 437, 699])
            assert rows[:, -1].tolist() == [0.0, 10.0 + round_, 5.0, 101.0]
        if round_ != 2:
            for worker in tree.workers:
                assert worker.pull("big")[[2, 3], 0].tolist() == [10.0 + round_, 0.0]
    answered(*tree.begin_push("big", 1.0, 10.0, 100.0))
    assert first.pull_rows("big", [5])[0, 0] == 111.0 == far.pull_rows("big", [699])[0, 0]


def test_a_pull_of_rows_through_a_server_waits_for_the_first_value(tree):
    second, far = tree.workers[1:]
    tree.workers[0].init("big", 3.0)
    for worker in (second, far):
        assert worker.pull_rows("big", [1]).tolist() == [[3.0] * 600]
