"""The synchronous store: one contribution of each worker per round, merged in rank order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baryon.ps.errors import ProtocolError
from baryon.ps.plan import Plan
from baryon.ps.server.async_store import AsyncStore
from baryon.ps.server.slot import Wait
from baryon.ps.server.sync_store import SyncStore
from baryon.ps.wire import KeySpec

from ..updaters import Calls

KEYS = ("a", "b", "c")  # four float32 each, together in bucket 0
STRIDE = 64  # bytes from one of them to the next


def store_of(num_workers, keys=KEYS, shape=(4,), dtype="float32", **options):
    store = SyncStore(0, Plan(1, **options), range(num_workers))
    for rank in range(num_workers):
        store.declare(rank, 0, [KeySpec(name, shape, dtype) for name in keys])
    return store


def payload(*values, dtype="float32"):
    """A run of slices of four elements: each all ``value``, or as given by an array."""
    parts = [np.broadcast_to(np.asarray(value, dtype), (4,)) for value in values]
    data = np.zeros((len(parts) - 1) * STRIDE + parts[-1].nbytes, np.uint8)
    for number, part in enumerate(parts):
        data[number * STRIDE : number * STRIDE + part.nbytes] = part.copy().view(np.uint8)
    data.flags.writeable = False  # as frames from the network are
    return data


def seen(store, replies):
    """(rank, slice, value) per slice of the replies, sorted; value None: answered without one."""
    found = []
    for reply in replies:
        for number in range(reply.num_slices):
            value = None
            if reply.has_value:
                start = number * STRIDE
                value = store.values(reply)[start : start + 16].copy().view("float32")
                assert (value == value[0]).all()
                value = float(value[0])
            found.append((reply.child, reply.first + number, value))
    return sorted(found, key=lambda entry: (entry[:2], entry[2] is not None))


def push(store, rank, value, round_=1, first=0, want_value=True, bucket=0):
    values = value if isinstance(value, tuple) else (value,)
    return store.push(rank, bucket, first, len(values), round_, want_value, payload(*values))


def pulled(store, rank=0, first=0, count=1):
    return seen(store, store.pull(rank, 0, first, count))


# -- rounds -------------------------------------------------------------------------------------


def test_a_round_ends_with_the_last_worker_and_answers_all_with_the_sum():
    store = store_of(3)
    assert push(store, 1, 10.0) == [] and push(store, 0, 1.0) == []
    assert seen(store, push(store, 2, 100.0)) == [(0, 0, 111.0), (1, 0, 111.0), (2, 0, 111.0)]


def test_a_rounds_sum_replaces_the_one_before():
    store = store_of(2)
    for round_, value in enumerate([1.0, 5.0, -2.0], 1):
        push(store, 1, value, round_)
        assert seen(store, push(store, 0, value, round_)) == [(0, 0, 2 * value), (1, 0, 2 * value)]


def test_an_updater_gets_the_sum_and_changes_the_value():
    store, calls = store_of(2), []

    def update(slice_, merged, value, version):
        calls.append((slice_.key.name, round_, merged.tolist()))
        value -= 0.5 * merged

    store.updater = Calls(update)
    store.init(0, 0, 1, 1, payload(10.0))
    for round_ in (1, 2):
        push(store, 0, 1.0, round_, first=1)
        push(store, 1, 3.0, round_, first=1)
    assert calls == [("b", 1, [4.0] * 4), ("b", 2, [4.0] * 4)]
    assert pulled(store, first=1) == [(0, 1, 6.0)]


def test_who_does_not_want_the_value_is_answered_without():
    store = store_of(2)
    push(store, 0, 1.0, want_value=False)
    assert seen(store, push(store, 1, 2.0)) == [(0, 0, None), (1, 0, 3.0)]


def test_a_lone_workers_value_does_not_alias_its_message():
    """The payload is memory of a frame that is freed; the value must be a copy."""
    store = store_of(1)
    data = payload(1.0).copy()
    store.push(0, 0, 0, 1, 1, True, data)
    data[:] = 0
    assert pulled(store) == [(0, 0, 1.0)]


@pytest.mark.parametrize("with_update", [False, True])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_pull_sees_the_old_value_until_the_round_is_complete(order, with_update):
    """Also where the last addition writes the value in place, and from the accumulator's memory."""
    store = store_of(3)
    if with_update:
        store.updater = Calls(lambda slice_, merged, value, version: np.copyto(value, merged))
    store.init(0, 0, 0, 1, payload(7.0))
    for round_, old in [(1, 7.0), (2, 111.0), (3, 222.0)]:
        for rank in order:
            assert pulled(store) == [(0, 0, old)]
            push(store, rank, round_ * 10.0**rank, round_)
        assert pulled(store) == [(0, 0, 111.0 * round_)]


@given(
    st.integers(1, 5).flatmap(lambda n: st.tuples(st.just(n), st.permutations(range(3 * n)))),
    st.lists(st.sets(st.sampled_from([1, 2]), max_size=2), min_size=5, max_size=5),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_a_sum_is_the_same_bits_whatever_the_order_of_arrival(arrival, cuts, with_update, seed):
    """Each worker cuts its push of three slices into runs of its own; all runs arrive anyhow."""
    num_workers, order = arrival
    random = np.random.default_rng(seed)
    scale = 10.0 ** random.integers(-3, 4, (num_workers, 3, 4))
    parts = (random.standard_normal((num_workers, 3, 4)) * scale).astype("float32")
    expected = parts[0].copy()
    for rank in range(1, num_workers):
        expected = expected + parts[rank]

    store = store_of(num_workers)
    if with_update:
        store.updater = Calls(lambda slice_, merged, value, version: np.copyto(value, merged))
    runs = []
    for rank in range(num_workers):
        edges = [0, *sorted(cuts[rank]), 3]
        runs += [(rank, first, end) for first, end in zip(edges, edges[1:])]
    for number in [n for n in order if n < len(runs)]:
        rank, first, end = runs[number]
        store.push(rank, 0, first, end - first, 1, False, payload(*parts[rank, first:end]))
    (reply,) = store.pull(0, 0, 0, 3)
    for number in range(3):
        got = store.values(reply)[number * STRIDE : number * STRIDE + 16]
        assert got.tobytes() == expected[number].tobytes()


@pytest.mark.parametrize("dtype", ["float64", "float16", "uint8", "int8", "int32", "int64"])
def test_every_dtype_is_summed_as_itself(dtype):
    store = store_of(2, dtype=dtype)
    for rank, value in enumerate([100, 27]):
        store.push(rank, 0, 1, 1, 1, False, payload(value, dtype=dtype))
    (reply,) = store.pull(0, 0, 1, 1)
    assert store.values(reply).view(dtype).tolist() == [127] * 4


@pytest.mark.parametrize(("shape", "sums"), [((), [3.0]), ((0,), [])])
def test_0d_and_empty_keys_take_part_in_rounds(shape, sums):
    store = store_of(2, shape=shape)
    for rank, value in enumerate([1.0, 2.0]):
        replies = store.push(rank, 0, 1, 1, 1, True, np.full(shape, value, "f4").ravel().view("u1"))
    assert [(r.child, store.values(r).view("float32").tolist()) for r in replies] == [
        (0, sums),
        (1, sums),
    ]


def test_only_the_slices_of_this_server_are_held():
    plan = Plan(2, bucket_nbytes=64)
    store = SyncStore(1, plan, range(1))
    store.declare(0, 0, [KeySpec("big", (64,), "float32")])  # four buckets, on both servers
    buckets = {slice_.bucket.server: slice_.bucket.index for slice_ in plan["big"].slices}
    data = np.ones(16, "float32").view("u1")
    assert len(store.push(0, buckets[1], 0, 1, 1, True, data)) == 1
    for action in (
        lambda: store.push(0, buckets[0], 0, 1, 1, True, data),
        lambda: store.init(0, buckets[0], 0, 1, data),
        lambda: store.pull(0, buckets[0], 0, 1),
    ):
        with pytest.raises(ProtocolError, match="not on server 1"):
            action()


# -- first values -------------------------------------------------------------------------------


def test_pulls_wait_for_the_first_value():
    store = store_of(2)
    assert store.pull(0, 0, 0, 1) == [] and store.pull(1, 0, 0, 1) == []
    assert seen(store, store.init(0, 0, 0, 1, payload(3.0))) == [
        (0, 0, None),
        (0, 0, 3.0),
        (1, 0, 3.0),
    ]
    assert pulled(store, 1) == [(1, 0, 3.0)]


def test_a_pull_of_a_run_is_answered_slice_by_slice_as_they_come():
    store = store_of(2)
    store.init(0, 0, 1, 1, payload(5.0))
    assert pulled(store, 1, count=3) == [(1, 1, 5.0)]
    assert seen(store, store.init(0, 0, 0, 1, payload(4.0))) == [(0, 0, None), (1, 0, 4.0)]
    replies = seen(store, store.init(0, 0, 0, 3, payload(0.0, 0.0, 6.0)))
    assert (1, 2, 6.0) in replies and len(replies) == 4
    assert len(store.pull(1, 0, 0, 3)) == 1  # one message, now that all are there


def test_a_round_that_ends_before_the_first_value_came_answers_the_pulls_too():
    store = store_of(1)
    assert store.pull(0, 0, 0, 1) == []
    replies = push(store, 0, 2.0, want_value=False)
    replies += store.init(0, 0, 0, 1, payload(9.0))
    assert (0, 0, 2.0) in seen(store, replies)
    assert store.waits() == []


def test_the_first_initial_value_counts():
    store = store_of(2)
    store.init(0, 0, 0, 1, payload(3.0))
    assert seen(store, store.init(0, 0, 0, 1, payload(99.0))) == [(0, 0, None)]
    assert pulled(store) == [(0, 0, 3.0)]


def test_only_rank_0_initialises():
    store = store_of(2)
    with pytest.raises(ProtocolError, match="worker 1"):
        store.init(1, 0, 0, 1, payload(3.0))
    assert store.pull(0, 0, 0, 1) == []


# -- repeats ------------------------------------------------------------------------------------


def test_a_repeat_in_the_round_counts_once():
    store = store_of(2)
    push(store, 0, 1.0)
    assert push(store, 0, 1.0) == []
    assert seen(store, push(store, 1, 2.0)) == [(0, 0, 3.0), (1, 0, 3.0)]


def test_a_repeat_that_is_held_counts_once():
    store = store_of(3)
    push(store, 2, 100.0)
    push(store, 2, 100.0)
    push(store, 1, 10.0)
    assert seen(store, push(store, 0, 1.0)) == [(rank, 0, 111.0) for rank in range(3)]


def test_who_connects_again_has_contributed_but_is_answered_only_when_it_asks_again():
    store = store_of(2)
    push(store, 1, 2.0)
    store.forget_requests(1)
    assert seen(store, push(store, 0, 1.0)) == [(0, 0, 3.0)]
    assert seen(store, push(store, 1, 2.0)) == [(1, 0, 3.0)]


def test_who_connects_and_asks_again_within_the_round_is_answered_once_as_it_asked_last():
    store = store_of(2)
    push(store, 1, 2.0, want_value=False)
    store.forget_requests(1)
    assert push(store, 1, 50.0, want_value=True) == []
    assert seen(store, push(store, 0, 1.0)) == [(0, 0, 3.0), (1, 0, 3.0)]


def test_a_pull_of_who_connects_again_is_answered_only_when_it_asks_again():
    store = store_of(3)
    for rank in (1, 2):
        store.pull(rank, 0, 0, 1)
    store.forget_requests(1)
    assert seen(store, store.init(0, 0, 0, 1, payload(4.0))) == [(0, 0, None), (2, 0, 4.0)]
    assert pulled(store, 1) == [(1, 0, 4.0)]


def test_keys_may_be_declared_again_alike():
    store = store_of(2)
    again = [KeySpec(name, (4,), "float32") for name in (*KEYS, "new")]
    store.declare(1, 0, again[:2])
    store.declare(1, 1, again[1:])
    store.declare(0, 3, again[3:])
    assert [key.name for key in store.plan.keys] == [*KEYS, "new"]
    with pytest.raises(ProtocolError, match="number 1 after number 4, and not as it had before"):
        store.declare(1, 1, [KeySpec("b", (5,), "float32")])


@pytest.mark.parametrize(("want_value", "answer"), [(True, 3.0), (False, None)])
def test_a_repeat_of_a_past_round_is_answered_and_changes_nothing(want_value, answer):
    store = store_of(2)
    push(store, 0, 1.0)
    push(store, 1, 2.0)
    assert seen(store, push(store, 0, 50.0, want_value=want_value)) == [(0, 0, answer)]
    assert store.waits() == [] and pulled(store) == [(0, 0, 3.0)]


def test_slices_of_one_run_may_be_in_different_states():
    """One is done, one is completed by this push, one is begun by it."""
    store = store_of(2)
    for rank in (0, 1):
        push(store, rank, 1.0, first=0)
    push(store, 0, 5.0, first=1)
    assert seen(store, push(store, 1, (9.0, 6.0, 7.0))) == [(0, 1, 11.0), (1, 0, 2.0), (1, 1, 11.0)]
    assert seen(store, push(store, 0, 1.0, first=2)) == [(0, 2, 8.0), (1, 2, 8.0)]


def test_neighbours_that_complete_together_are_answered_together():
    store = store_of(2)
    push(store, 0, (1.0, 2.0, 3.0))
    replies = push(store, 1, (10.0, 20.0, 30.0))
    assert [(r.child, r.first, r.num_slices) for r in replies] == [(0, 0, 3), (1, 0, 3)]
    assert seen(store, replies)[:3] == [(0, 0, 11.0), (0, 1, 22.0), (0, 2, 33.0)]


def test_neighbours_that_complete_together_for_different_askers_are_told_apart():
    store = store_of(2)
    push(store, 0, 1.0, first=0, want_value=True)
    push(store, 0, 2.0, first=1, want_value=False)
    assert seen(store, push(store, 1, (10.0, 20.0), want_value=False)) == [
        (0, 0, 11.0), (0, 1, None), (1, 0, None), (1, 1, None),
    ]  # fmt: skip


# -- what waits ---------------------------------------------------------------------------------


def test_waits_name_who_waits_for_whom():
    store = store_of(3)
    assert store.waits() == []
    push(store, 1, 1.0, first=1)
    assert store.waits() == [Wait(1, "b", 1, (0, 2))]
    push(store, 0, 1.0, first=1)
    assert sorted(store.waits()) == [Wait(0, "b", 1, (2,)), Wait(1, "b", 1, (2,))]
    push(store, 2, 1.0, first=1)
    assert store.waits() == []


def test_the_wait_that_is_told_is_the_longest_not_that_of_the_first_key():
    """A key that one worker never pushes comes to light although others go on."""
    store = store_of(2)
    push(store, 0, 1.0, first=1)  # "b", which worker 1 has not
    for round_ in (1, 2):
        push(store, 0, 1.0, round_)
        assert store.waits() == [Wait(0, "b", 1, (1,))]
        push(store, 1, 1.0, round_)
    assert store.waits() == [Wait(0, "b", 1, (1,))]


@pytest.mark.parametrize("kind", [SyncStore, AsyncStore])
def test_to_look_for_waits_looks_at_no_slice_where_nobody_waits(kind):
    store = kind(0, Plan(1), range(2))
    for rank in range(2):
        store.declare(rank, 0, [KeySpec(name, (4,), "float32") for name in KEYS])
    store.set_updater(Calls(lambda *args: None))
    looked = []
    store._waits_at = lambda slot: looked.append(slot) or iter(())
    store.init(0, 0, 0, 3, payload(1.0, 1.0, 1.0))
    for rank in range(2):
        push(store, rank, (1.0, 1.0, 1.0))
    assert store.waits() == looked == [] and not store._waited
    store.declare(1, 3, [KeySpec("d", (4,), "float32")])
    store.pull(1, 0, 3, 1)
    store.waits()
    assert [slot.slice.key.name for slot in looked] == ["d"]


def test_a_pull_before_the_first_value_waits_for_rank_0():
    store = store_of(2)
    store.pull(1, 0, 2, 1)
    assert store.waits() == [Wait(1, "c", 0, (0,))]


# -- epochs -------------------------------------------------------------------------------------


def test_a_child_that_has_joined_is_not_waited_for_until_all_have():
    store = store_of(3)
    assert push(store, 0, 1.0) == push(store, 1, 10.0) == []
    assert seen(store, store.join(2, 1)) == [(0, 0, 11.0), (1, 0, 11.0)]
    assert store.join(0, 1) == [] and not store.have_all_joined
    assert seen(store, push(store, 1, 5.0, 2)) == [(1, 0, 5.0)]
    assert store.join(1, 1) == [] and store.have_all_joined
    store.begin_epoch()
    assert push(store, 2, 1.0) == push(store, 0, 2.0) == []
    assert seen(store, push(store, 1, 3.0)) == [(0, 0, 6.0), (1, 0, 6.0), (2, 0, 6.0)]


def test_a_child_that_has_left_does_not_hold_the_epoch_up():
    store = store_of(3)
    store.join(0, 1)
    store.join(1, 1)
    store.leave(0)
    assert not store.have_all_joined
    store.leave(2)
    assert store.have_all_joined
    store.begin_epoch()
    assert seen(store, push(store, 1, 3.0)) == [(1, 0, 3.0)]


def test_joining_twice_or_another_epoch_is_refused():
    store = store_of(2)
    with pytest.raises(ProtocolError, match="joined epoch 2 after 0"):
        store.join(0, 2)
    store.leave(0)
    with pytest.raises(ProtocolError, match="joined epoch 1"):
        store.join(0, 1)
