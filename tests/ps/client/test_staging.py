"""A store in a worker: where its keys lie, which bytes leave, and what an answer changes."""

import numpy as np
import pytest

from baryon.ps import wire
from baryon.ps.client.departures import Operation, Run
from baryon.ps.client.staging import Staging
from baryon.ps.client.worker_store import WorkerStore
from baryon.ps.compression import compression_of
from baryon.ps.errors import ProtocolError
from baryon.ps.memory import Memory
from baryon.ps.plan import Plan

STRIDE = 64  # bytes from one small key to the next


def store_of(plan, number=0):
    """A store with one memory for gradients and values."""
    memory = Memory()
    return WorkerStore(number, plan, Staging(number, memory, memory))


def add_key(store, *key):
    return store.staging.outgoing.key(store.plan.add(*key))


@pytest.fixture
def store():
    """Keys a and b share bucket 0; big spans buckets 1, 2 and 3."""
    made = store_of(Plan(num_servers=2, bucket_nbytes=256), 5)
    for name, shape in [("a", (2, 2)), ("b", (3,)), ("big", (10, 15))]:
        add_key(made, name, shape, "float32")
    return made


def places(store):
    """The contents of the keys' memory, in the plan's order."""
    found = []
    for key in store.plan.keys:
        parts = []
        for slice_ in key.slices:
            run = Run((Operation("init", key, False),), (slice_,))
            parts.append(store.staging.payload(run).view("float32"))
        found.append(np.concatenate(parts))
    return found


def under_way(store, kind, name, want_value=True):
    """An operation all of whose slices have been sent."""
    operation = Operation(kind, store.plan[name], want_value)
    for slice_ in operation.key.slices:
        store.outstanding[slice_] = operation
    return operation


def run_of(store, kind, *names):
    operations = tuple(Operation(kind, store.plan[name], want_value=True) for name in names)
    for operation in operations:
        operation.round = 7
    return Run(operations, tuple(operation.key.slices[0] for operation in operations))


def answer(store, slice_, has_value, count=1):
    return wire.Answer(store.number, slice_.bucket.index, slice_.position, count, has_value)


@pytest.mark.parametrize("shape", [(), (0,), (3, 4), (100, 3)])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_key_has_a_place_of_its_shape_that_starts_at_zero(shape, dtype):
    place = add_key(store_of(Plan(2, bucket_nbytes=256)), "w", shape, dtype)
    assert (place.shape, place.dtype, place.flags["C_CONTIGUOUS"]) == (shape, dtype, True)
    assert not place.any()


def test_what_is_written_to_a_place_is_what_is_sent_and_places_do_not_overlap():
    store = store_of(Plan(2, bucket_nbytes=256))
    made = [
        add_key(store, n, (size,), "float32") for n, size in enumerate([3, 100, 1, 64, 16, 200])
    ]
    for number, place in enumerate(made):
        place[:] = number
    for number, sent in enumerate(places(store)):
        assert sent.tolist() == [number] * made[number].size


@pytest.mark.parametrize(
    ("kind", "header", "has_payload"),
    [
        ("init", wire.Init(5, 0, 0, 2), True),
        ("push", wire.Push(5, 0, 0, 2, 7, True), True),
        ("pull", wire.Pull(5, 0, 0, 2), False),
    ],
)
def test_a_run_is_one_message(store, kind, header, has_payload):
    run = run_of(store, kind, "a", "b")
    payload = store.staging.payload(run)
    assert store.staging.header(run) == header
    assert (payload is not None) == has_payload
    assert payload is None or payload.nbytes == STRIDE + 12


def test_rounds_are_counted_per_key(store):
    a, b = store.plan["a"], store.plan["b"]
    assert [store.next_round(key) for key in (a, a, b, a)] == [1, 2, 1, 3]


def test_an_answer_with_a_value_fills_the_slices_that_it_names_and_no_other(store):
    done = [under_way(store, "pull", name) for name in "ab"]
    payload = np.zeros(STRIDE + 12, np.uint8)
    payload[:16].view("float32")[:] = 1.5
    payload[STRIDE:].view("float32")[:] = 2.5
    first = store.plan["a"].slices[0]
    assert store.answered(answer(store, first, True, count=2), payload) == done
    assert [values.tolist() for values in places(store)] == [[1.5] * 4, [2.5] * 3, [0.0] * 150]


def test_an_answer_without_a_value_leaves_the_memory_alone(store):
    operation = under_way(store, "push", "b", want_value=False)
    assert store.answered(answer(store, store.plan["b"].slices[0], False), None) == [operation]
    assert not places(store)[1].any()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_a_split_key_is_answered_with_its_last_slice(store, order):
    operation = under_way(store, "push", "big")
    slices = [operation.key.slices[number] for number in order]
    finished = []
    for slice_ in slices:
        assert finished == []
        payload = np.full(slice_.stop - slice_.start, slice_.start, "float32").view("u1")
        finished = store.answered(answer(store, slice_, True), payload)
    assert finished == [operation] and store.outstanding == {}
    assert places(store)[2].tolist() == [0.0] * 60 + [60.0] * 60 + [120.0] * 30


def test_a_repeat_of_an_answer_ends_nothing_twice(store):
    operation = under_way(store, "push", "big", want_value=False)
    first, *others = operation.key.slices
    for _ in range(5):
        assert store.answered(answer(store, first, False), None) == []
    assert store.answered(answer(store, others[0], False), None) == []
    assert store.answered(answer(store, others[1], False), None) == [operation]
    assert store.answered(answer(store, others[1], False), None) == []


@pytest.mark.parametrize(
    ("kind", "want_value", "has_value"),
    [("push", True, False), ("push", False, True), ("pull", False, False), ("init", True, True)],
)
def test_an_answer_with_a_value_that_is_not_wanted_or_without_is_refused(
    store, kind, want_value, has_value
):
    """Its value would belong to an earlier round, or overwrite memory that is not the store's."""
    operations = [under_way(store, kind, name, want_value) for name in ("a", "b")]
    slices = [operation.key.slices[0] for operation in operations]
    payload = np.ones(slices[1].end, np.uint8) if has_value else None
    message = wire.Answer(store.number, 0, 0, 2, has_value)
    with pytest.raises(ProtocolError, match=f"does not answer a {kind}"):
        store.answered(message, payload)
    assert not any(place.any() for place in places(store))
    assert list(store.outstanding) == slices


@pytest.mark.parametrize("nbytes", [0, 15, 17, STRIDE + 12])
def test_a_value_of_another_size_is_refused_and_nothing_is_written(store, nbytes):
    under_way(store, "pull", "a")
    message = answer(store, store.plan["a"].slices[0], True)
    with pytest.raises(ProtocolError, match=f"{nbytes} bytes for 16"):
        store.answered(message, np.ones(nbytes, np.uint8))
    assert not places(store)[0].any() and len(store.outstanding) == 1


def test_an_answer_leaves_slices_alone_that_nothing_waits_for(store):
    """The engine may be using their places again."""
    operation = under_way(store, "pull", "b")
    message = answer(store, store.plan["a"].slices[0], True, count=2)
    payload = np.full(STRIDE // 4 + 3, 7.0, "float32").view("u1")
    assert store.answered(message, payload) == [operation]
    assert store.answered(message, payload * 0) == []
    assert [values.tolist() for values in places(store)][:2] == [[0.0] * 4, [7.0] * 3]


def test_unanswered_is_what_was_sent_to_a_server_less_what_it_has_answered(store):
    sent = run_of(store, "push", "a", "b")
    store.sent(sent)
    big = under_way(store, "pull", "big")
    assert {s.bucket.server for s in big.key.slices} == {0, 1}
    by_server = [
        [(run.operations, run.slices) for run in store.unanswered(server)] for server in (0, 1)
    ]
    alone = {s: ((big,), (s,)) for s in big.key.slices}
    of_big = [[alone[s] for s in big.key.slices if s.bucket.server == n] for n in (0, 1)]
    one_by_one = [((op,), (s,)) for op, s in zip(sent.operations, sent.slices)]
    assert by_server == [[*one_by_one, *of_big[0]], of_big[1]]

    store.answered(answer(store, sent.slices[0], True), None)
    store.answered(answer(store, next(s for s in alone if s.bucket.server == 1), True), None)
    (rest, *_) = store.unanswered(0)
    assert (rest.operations, rest.slices) == (sent.operations[1:], sent.slices[1:])
    assert len(store.unanswered(1)) == len(of_big[1]) - 1
    assert store_of(Plan(1)).unanswered(0) == []


@pytest.mark.parametrize("where", [(9, 0, 1), (-1, 0, 1), (0, 1, 2), (0, 0, 0)])
def test_an_answer_for_slices_that_are_not_there_is_refused(store, where):
    with pytest.raises(ProtocolError, match="no "):
        store.answered(wire.Answer(5, *where, False), None)


def test_giving_up_names_every_operation_once_sent_or_ready(store):
    sent = under_way(store, "push", "big")
    ready, not_ready = (Operation("push", store.plan[name], True) for name in "ab")
    store.departures.announce(ready)
    store.departures.announce(not_ready)
    store.departures.ready(ready)
    assert store.forget_all() == [sent, ready]
    assert store.forget_all() == []


# -- compression --------------------------------------------------------------------------------


@pytest.fixture
def compressing():
    """Keys a, w, b, c, v share bucket 0; w and v, of 100 elements, are compressed."""
    made = store_of(Plan(1))
    for name, size in [("a", 5), ("w", 100), ("b", 5), ("c", 5), ("v", 100)]:
        add_key(made, name, (size,), "float32")
    made.staging.compress(compression_of({"type": "2bit", "min_size": 100, "answers": True}))
    return made


def test_each_compressed_slice_travels_by_itself_and_its_neighbours_stay_together(compressing):
    run = run_of(compressing, "push", *"awbcv")
    parts = [[slice_.key.name for slice_ in part.slices] for part in compressing.staging.apart(run)]
    assert parts == [["a"], ["w"], ["b", "c"], ["v"]]
    messages = [compressing.staging.message(part) for part in compressing.staging.apart(run)]
    assert [header.is_compressed for header, _ in messages] == [False, True, False, True]
    assert [payload.nbytes for _, payload in messages] == [20, 28, STRIDE + 20, 28]


@pytest.mark.parametrize("kind", ["init", "pull"])
def test_other_operations_are_not_compressed(compressing, kind):
    run = run_of(compressing, kind, *"awbcv")
    assert list(compressing.staging.apart(run)) == [run]
    assert compressing.staging.message(run)[0].count == 5


def test_a_contribution_is_encoded_once_however_often_it_is_sent(compressing):
    place = compressing.staging.outgoing.key(compressing.plan["w"])
    slice_ = compressing.plan["w"].slices[0]
    sent = []
    for _ in range(3):
        place[:] = 0.2
        run = run_of(compressing, "push", "w")
        compressing.sent(run)
        first = compressing.staging.message(run)[1].tobytes()
        (again,) = compressing.unanswered()
        assert compressing.staging.message(again)[1].tobytes() == first
        compressing.answered(answer(compressing, slice_, True), None)
        sent.append(any(first))
    assert sent == [False, False, True]  # 0.6 reaches the threshold of 0.5


def test_compressed_answers_are_added_to_what_came_before(compressing):
    codec = compression_of({"type": "2bit"}).codec
    key = compressing.plan["w"]
    (slice_,) = key.slices
    seen = []
    change = codec.encode(np.full(100, 0.5, "f4"))
    first = np.full(100, 3.0, "f4").view("u1")
    for payload, flags in [
        (first, (False, False)), (change, (True, True)), (change, (True, True)),
        (change, (True, False)),
    ]:  # fmt: skip
        under_way(compressing, "push", "w")
        message = wire.Answer(0, 0, slice_.position, 1, True, *flags)
        compressing.answered(message, payload)
        seen.append(set(compressing.staging.incoming.key(key).tolist()))
    assert seen == [{3.0}, {3.5}, {4.0}, {0.5}]


def test_compressed_answers_are_refused_unless_they_were_asked_for(compressing, store):
    run = compressing.plan.buckets[0].slices
    for made, message in [
        (compressing, wire.Answer(0, 0, 0, 2, True, True, True)),
        (compressing, wire.Answer(0, 0, run[1].position, 1, True, True, True)),
        (store, wire.Answer(5, 0, 0, 1, True, True, False)),
    ]:
        with pytest.raises(ProtocolError):
            made.answered(message, np.zeros(28, "u1"))
