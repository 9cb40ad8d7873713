"""What the synchronous store refuses, and workers that leave."""

import numpy as np
import pytest

from baryon.ps.errors import ProtocolError, UsageError
from baryon.ps.plan import Plan
from baryon.ps.server.slot import Wait
from baryon.ps.server.sync_store import SyncStore
from baryon.ps.wire import KeySpec

from ..updaters import Calls
from .test_store import payload, pulled, push, seen, store_of

# -- what the protocol does not allow -----------------------------------------------------------


@pytest.mark.parametrize("round_", [3, 1000])
def test_a_push_of_a_round_to_come_is_refused(round_):
    store = store_of(2)
    for rank in (0, 1):
        push(store, rank, 1.0)
    with pytest.raises(ProtocolError, match=rf"worker 1 pushed round {round_} of .*'a'.* round 2"):
        push(store, 1, 1.0, round_)
    assert store.waits() == [] and pulled(store) == [(0, 0, 2.0)]


@pytest.mark.parametrize("round_", [0, -1])
def test_a_push_of_a_round_that_never_was_is_refused(round_):
    """Rounds count from 1: there is nothing that this could be a repeat of."""
    with pytest.raises(ProtocolError):
        push(store_of(2), 0, 1.0, round_)


def test_a_push_of_a_child_that_has_left_is_refused():
    store = store_of(2)
    store.leave(1)
    with pytest.raises(ProtocolError, match="worker 1 "):
        push(store, 1, 1.0)
    assert store.waits() == []


@pytest.mark.parametrize("size", [0, 15, 17, 80])
def test_a_payload_of_another_size_is_refused(size):
    store = store_of(1)
    for action in (
        lambda: store.push(0, 0, 0, 1, 1, True, np.zeros(size, "u1")),
        lambda: store.init(0, 0, 0, 1, np.zeros(size, "u1")),
    ):
        with pytest.raises(ProtocolError, match=f"{size} bytes for 1 slices"):
            action()
    assert store.waits() == [] and store.pull(0, 0, 0, 1) == []


@pytest.mark.parametrize("where", [(1, 0, 1), (-1, 0, 1), (0, 3, 1), (0, 0, 4), (0, 0, 0)])
def test_slices_that_are_not_there_are_refused(where):
    store = store_of(1)
    for action in (
        lambda: store.push(0, *where, 1, True, payload(1.0)),
        lambda: store.init(0, *where, payload(1.0)),
        lambda: store.pull(0, *where),
    ):
        with pytest.raises(ProtocolError, match="no "):
            action()
    assert store.waits() == []


def test_a_refused_run_leaves_all_of_its_slices_as_they_were():
    """Its first slice could take part in round 2, its second is still in round 1."""
    store = store_of(2)
    for rank in (0, 1):
        push(store, rank, 1.0, first=0)
    with pytest.raises(ProtocolError):
        push(store, 0, (50.0, 50.0), round_=2)
    assert store.waits() == []
    push(store, 0, 3.0, round_=2)
    assert seen(store, push(store, 1, 4.0, round_=2)) == [(0, 0, 7.0), (1, 0, 7.0)]


def test_a_refused_run_does_not_end_a_round():
    store = store_of(2)
    for rank in (0, 1):
        push(store, rank, 1.0, first=0)
    push(store, 1, 4.0, round_=2, first=0)
    with pytest.raises(ProtocolError):
        push(store, 0, (50.0, 50.0), round_=2)
    assert pulled(store) == [(0, 0, 2.0)]
    assert seen(store, push(store, 0, 3.0, round_=2)) == [(0, 0, 7.0), (1, 0, 7.0)]


# -- declarations -------------------------------------------------------------------------------


def declared(*keys, num_workers=2):
    store = SyncStore(0, Plan(1), range(num_workers))
    store.declare(0, 0, [KeySpec(*key) for key in keys])
    return store


@pytest.mark.parametrize(
    ("theirs", "says"),
    [
        (("w", (4, 3), "float32"), ["key 'w'", "float32(3, 4)", "float32(4, 3)"]),
        (("w", (3, 4), "float16"), ["key 'w'", "float32(3, 4)", "float16(3, 4)"]),
        (("v", (3, 4), "float32"), ["key number 0", "'w' float32(3, 4)", "'v' float32(3, 4)"]),
        ((7, (3, 4), "float32"), ["key number 0", "'w' float32(3, 4)", "7 float32(3, 4)"]),
    ],
    ids=["shape", "dtype", "name", "kind of name"],
)
def test_workers_that_disagree_are_named_with_what_each_said(theirs, says):
    store = declared(("w", (3, 4), "float32"), num_workers=3)
    store.declare(2, 0, [KeySpec("w", (3, 4), "float32")])
    with pytest.raises(UsageError) as caught:
        store.declare(1, 0, [KeySpec(*theirs)])
    for text in [*says, "on worker 0", "on worker 1"]:
        assert text in str(caught.value)
    assert "worker 2" not in str(caught.value)
    assert len(store.plan.keys) == 1


def test_another_order_of_the_same_keys_is_refused_and_says_so():
    store = declared(("w", (2,), "float32"), ("b", (2,), "float32"))
    with pytest.raises(UsageError, match="same keys in the same order"):
        store.declare(1, 0, [KeySpec("b", (2,), "float32")])


def test_keys_may_be_declared_by_any_worker_first_and_piecemeal():
    store = SyncStore(0, Plan(1), range(2))
    a, b, c = (KeySpec(name, (4,), "float32") for name in "abc")
    store.declare(1, 0, [a])
    store.declare(0, 0, [a, b])
    store.declare(0, 2, [c])
    store.declare(1, 1, [b, c])
    assert [key.name for key in store.plan.keys] == ["a", "b", "c"]
    with pytest.raises(UsageError, match=r"float32\(4,\) on worker 0 and .* on worker 1"):
        store.declare(0, 3, [KeySpec("d", (4,), "float32")])
        store.declare(1, 3, [KeySpec("d", (5,), "float32")])


@pytest.mark.parametrize("first", [0, 2, -1])
def test_a_declaration_out_of_turn_is_refused(first):
    store = declared(("w", (2,), "float32"))
    with pytest.raises(ProtocolError, match=f"worker 0 declared its key number {first} after"):
        store.declare(0, first, [KeySpec("x", (2,), "float32")])
    assert len(store.plan.keys) == 1


@pytest.mark.parametrize(
    "key", [("w", (2,), "float32"), ("x", (2,), "complex64"), ("x", (-2,), "float32")]
)
def test_a_key_that_cannot_be_served_is_refused(key):
    store = declared(("w", (2,), "float32"))
    with pytest.raises(ProtocolError, match=repr(key[0])):
        store.declare(0, 1, [KeySpec(*key)])


def test_what_is_declared_alike_stays_usable_after_a_disagreement():
    store = store_of(2)
    store.declare(0, 3, [KeySpec("d", (4,), "float32")])
    with pytest.raises(UsageError):
        store.declare(1, 3, [KeySpec("d", (9,), "float32")])
    push(store, 0, 1.0)
    assert seen(store, push(store, 1, 2.0)) == [(0, 0, 3.0), (1, 0, 3.0)]


# -- leaving ------------------------------------------------------------------------------------


@pytest.mark.parametrize("leaver", [0, 1, 2])
def test_the_last_one_waited_for_leaves_and_the_round_ends_without_it(leaver):
    store = store_of(3)
    stay = [rank for rank in range(3) if rank != leaver]
    for rank in stay:
        push(store, rank, 10.0**rank)
    total = sum(10.0**rank for rank in stay)
    assert seen(store, store.leave(leaver)) == [(rank, 0, total) for rank in stay]


@pytest.mark.parametrize("leaver", [0, 1, 2])
def test_rounds_to_come_do_not_wait_for_who_has_left(leaver):
    store = store_of(3)
    stay = [rank for rank in range(3) if rank != leaver]
    assert store.leave(leaver) == []
    for round_ in (1, 2):
        assert push(store, stay[1], 10.0 * round_, round_) == []
        assert store.waits() == [Wait(stay[1], "a", round_, (stay[0],))]
        assert seen(store, push(store, stay[0], 1.0, round_)) == [
            (rank, 0, 10.0 * round_ + 1.0) for rank in stay
        ]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
@pytest.mark.parametrize("leaves_after", [1, 2])
def test_a_push_counts_in_its_round_although_its_sender_leaves(order, leaves_after):
    """Whether it was added already or is held for its turn; the leaver is answered too."""
    store = store_of(3)
    leaver = order[0]
    replies = []
    for number, rank in enumerate(order):
        if number == leaves_after:
            assert store.leave(leaver) == []
        replies += push(store, rank, 10.0**rank)
    assert seen(store, replies) == [(rank, 0, 111.0) for rank in range(3)]
    stay = sorted(order[1:])
    push(store, stay[1], 5.0, round_=2)
    assert seen(store, push(store, stay[0], 6.0, round_=2)) == [(rank, 0, 11.0) for rank in stay]


def test_a_worker_may_leave_in_a_different_state_in_every_slice():
    """It has pushed the first, is the last one missing in the second, and the third is idle."""
    store = store_of(2)
    push(store, 1, 5.0, first=0)
    push(store, 0, 7.0, first=1)
    assert seen(store, store.leave(1)) == [(0, 1, 7.0)]
    assert seen(store, push(store, 0, 1.0, first=0)) == [(0, 0, 6.0), (1, 0, 6.0)]
    assert seen(store, push(store, 0, 2.0, first=2)) == [(0, 2, 2.0)]


def test_all_may_leave_one_after_the_other():
    store = store_of(3)
    push(store, 2, 100.0)
    push(store, 1, 10.0)
    assert store.leave(1) == [] and store.leave(2) == []
    assert seen(store, store.leave(0)) == [(1, 0, 110.0), (2, 0, 110.0)]
    assert store.waits() == []


def test_leaving_twice_is_leaving_once():
    store = store_of(3)
    push(store, 0, 1.0)
    assert store.leave(1) == [] and store.leave(1) == []
    assert seen(store, store.leave(2)) == [(0, 0, 1.0)]


def test_who_has_left_cannot_push_but_can_pull():
    store = store_of(2)
    store.leave(1)
    push(store, 0, 3.0)
    with pytest.raises(ProtocolError, match="worker 1 pushed round 2"):
        push(store, 1, 1.0, round_=2)
    assert pulled(store, 1) == [(1, 0, 3.0)]


def test_a_leave_that_ends_a_round_hands_the_sum_to_the_updater():
    store = store_of(2)
    store.updater = Calls(lambda slice_, merged, value, version: np.add(value, merged, out=value))
    store.init(0, 0, 0, 1, payload(1.0))
    push(store, 0, 5.0)
    assert seen(store, store.leave(1)) == [(0, 0, 6.0)]


def test_pulls_of_a_key_that_rank_0_left_without_a_value_are_refused():
    """Whether they came before or after; nobody else can give it one."""
    store = store_of(2)
    assert store.pull(1, 0, 0, 1) == []
    with pytest.raises(UsageError, match="worker 0 has ended without initialising"):
        store.lose_first()
    store = store_of(2)
    store.leave(0)
    store.lose_first()
    with pytest.raises(UsageError, match="worker 0 has ended without initialising key"):
        store.pull(1, 0, 0, 1)


def test_the_message_names_the_key_without_a_value_not_just_the_first_of_the_run():
    store = store_of(2)
    store.init(0, 0, 0, 1, payload(1.0))
    assert store.leave(0) == []
    store.lose_first()
    assert pulled(store, 1) == [(1, 0, 1.0)]
    with pytest.raises(UsageError, match="worker 0 has ended without initialising key 'b'"):
        store.pull(1, 0, 0, 2)
    assert store.waits() == []
