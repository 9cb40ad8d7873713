"""Rows in every kind of store: how they are merged, applied, passed on and refused."""

import numpy as np
import pytest

from baryon.ps.errors import ProtocolError, UsageError
from baryon.ps.memory import Memory
from baryon.ps.plan import Plan
from baryon.ps.rows import Rows, add_rows, as_bytes, encoded
from baryon.ps.server.async_store import AsyncStore
from baryon.ps.server.rising_store import RisingStore
from baryon.ps.server.sync_store import SyncStore
from baryon.ps.wire import KeySpec

from ..updaters import Calls

SHAPE = (5, 2)
BUCKET_NBYTES = 24  # three rows: two slices


def opened(store, children, shape=SHAPE):
    for child in range(children):
        store.declare(child, 0, [KeySpec("w", shape, "float32")])
    return store


def sync_store(children=2, bucket_nbytes=1024, has_whole_keys=False):
    plan = Plan(1, bucket_nbytes, has_whole_keys)
    return opened(SyncStore(0, plan, range(children)), children)


def rising_store(children=2, first=0):
    plan = Plan(1, 1024)
    store = RisingStore(1, plan, range(children), Memory(), Memory(), first=first)
    return opened(store, children)


def rows(given):
    """{id: value of all its elements} as sent."""
    values = np.repeat(np.array(list(given.values()), "float32"), 2).reshape(-1, 2)
    return encoded(Rows(np.array(list(given), np.int64), values))


def ids(*given):
    return as_bytes(np.array(given, np.int64))


def dense(value):
    array = np.full(10, value, "float32").view(np.uint8)
    array.flags.writeable = False
    return array


def value(store):
    """Of each row its first element."""
    return store._memory.key(store.plan["w"])[:, 0].tolist()


def add(slice_, merged, target, version):
    if isinstance(merged, Rows):
        add_rows(target, merged)
    else:
        target += merged


# -- the synchronous store ------------------------------------------------------------------------


def test_a_round_of_rows_replaces_the_value_by_their_sum():
    store = sync_store()
    store.init(0, 0, 0, 1, dense(7.0))
    assert store.push_rows(1, 0, 0, 1, rows({3: 1.0, 4: 2.0})) == []
    replies = store.push_rows(0, 0, 0, 1, rows({0: 5.0, 3: 10.0}))
    assert sorted((reply.child, reply.has_value) for reply in replies) == [(0, False), (1, False)]
    assert value(store) == [5.0, 0.0, 0.0, 11.0, 2.0]


def test_an_updater_gets_rows_of_which_it_may_change_some():
    store, seen = sync_store(), []
    store.init(0, 0, 0, 1, dense(7.0))
    store.updater = Calls(
        lambda unit, gradient, target, version: seen.append(gradient) or add_rows(target, gradient)
    )
    store.push_rows(0, 0, 0, 1, rows({3: 1.0}))
    store.push_rows(1, 0, 0, 1, rows({}))
    assert seen[0].ids.tolist() == [3]
    assert value(store) == [7.0, 7.0, 7.0, 8.0, 7.0]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("sparse", [0, 1, 2, None])
@pytest.mark.parametrize("with_update", [False, True])
def test_rows_and_whole_slices_are_added_up(order, sparse, with_update):
    """Whoever sends rows where others send all, or the other way round, in any order."""
    store = sync_store(3)
    store.init(0, 0, 0, 1, dense(0.0))
    store.updater = Calls(add) if with_update else None
    for rank in order:
        assert value(store) == [0.0] * 5, "not before the round is complete"
        if (rank == sparse) != (sparse is None):
            store.push_rows(rank, 0, 0, 1, rows({1: 10.0**rank}))
        else:
            store.push(rank, 0, 0, 1, 1, True, dense(10.0**rank))
    is_sparse = [(rank == sparse) != (sparse is None) for rank in range(3)]
    everywhere = sum(10.0**r for r in range(3) if not is_sparse[r])
    expected = [everywhere] * 5
    expected[1] = 111.0
    assert value(store) == expected


def test_rows_are_summed_in_the_order_of_the_children():
    """1e8 + 1 - 1e8 is 0 in float32, and 1e8 - 1e8 + 1 is 1."""
    terms = (1e8, 1.0, -1e8)
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        store = sync_store(3)
        for rank in order:
            store.push_rows(rank, 0, 0, 1, rows({2: terms[rank]}))
        assert value(store)[2] == 0.0


@pytest.mark.parametrize("is_dense", [(False, False), (True, False), (True, True)])
def test_a_whole_key_is_updated_by_the_rows_of_all_its_slices(is_dense):
    store, seen = sync_store(1, BUCKET_NBYTES, has_whole_keys=True), []
    store.updater = Calls(
        lambda slice_, merged, target, version: seen.append((slice_.index, merged))
    )
    parts = [rows({1: 1.0}), rows({0: 2.0})]
    for number in (1, 0):
        slice_ = store.plan["w"].slices[number]
        where = slice_.bucket.index, slice_.position
        if is_dense[number]:
            payload = np.full(slice_.stop - slice_.start, 3.0, "float32").view(np.uint8)
            replies = store.push(0, *where, 1, 1, False, payload)
        else:
            replies = store.push_rows(0, *where, 1, parts[number])
    assert len(replies) == 2, "both slices are answered when the last has come"
    ((index, merged),) = seen
    assert index == 0
    if is_dense == (False, False):
        assert merged.ids.tolist() == [1, 3] and merged.values[:, 0].tolist() == [1.0, 2.0]
    elif is_dense == (True, False):
        assert merged.reshape(5, 2)[:, 0].tolist() == [3.0, 3.0, 3.0, 2.0, 0.0]
    else:
        assert merged.tolist() == [3.0] * 10


def test_rows_are_pulled_of_whatever_was_pushed():
    store = sync_store(1)
    store.init(0, 0, 0, 1, np.arange(10, dtype="float32").view(np.uint8))
    (reply,) = store.pull_rows(0, 0, 0, ids(1, 4))
    assert reply.rows.view("float32").tolist() == [2.0, 3.0, 8.0, 9.0]
    (reply,) = store.pull_rows(0, 0, 0, ids())
    assert reply.rows.size == 0


def test_a_pull_of_rows_waits_for_the_first_value_or_for_nobody():
    store = sync_store(2)
    assert store.pull_rows(1, 0, 0, ids(2)) == []
    assert [wait.child for wait in store.waits()] == [1]
    store.forget_requests(1)
    assert store.waits() == []
    store.pull_rows(1, 0, 0, ids(3))
    answers = store.init(0, 0, 0, 1, dense(4.0))
    assert [a.rows.view("float32").tolist() for a in answers if a.rows is not None] == [[4.0, 4.0]]
    store = sync_store(2)
    store.lose_first()
    with pytest.raises(UsageError, match="without initialising"):
        store.pull_rows(1, 0, 0, ids(2))
    store = sync_store(2)
    store.pull_rows(1, 0, 0, ids(2))
    with pytest.raises(UsageError, match="without initialising"):
        store.lose_first()


@pytest.mark.parametrize("call", ["push_rows", "pull_rows"])
@pytest.mark.parametrize("payload", [ids(5), ids(-1), ids(2, 1), ids(1, 1), np.zeros(5, np.uint8)])
def test_wrong_rows_are_refused_and_change_nothing(call, payload):
    store = sync_store(2)
    store.init(0, 0, 0, 1, dense(1.0))
    args = (0, 0, 0, 1) if call == "push_rows" else (0, 0, 0)
    if call == "push_rows" and payload.size % 8 == 0:
        payload = np.concatenate((payload, payload))  # with values of as many bytes
    with pytest.raises(ProtocolError):
        getattr(store, call)(*args, payload)
    assert store.waits() == [] and value(store) == [1.0] * 5


def test_rows_of_slices_that_are_not_there_or_of_a_wrong_round_are_refused():
    store = sync_store(2)
    with pytest.raises(ProtocolError, match="no bucket 3"):
        store.push_rows(0, 3, 0, 1, rows({}))
    with pytest.raises(ProtocolError, match="no slices"):
        store.pull_rows(0, 0, 1, ids())
    with pytest.raises(ProtocolError, match="round 2"):
        store.push_rows(0, 0, 0, 2, rows({}))


# -- a server below others ------------------------------------------------------------------------


def risen(store):
    rising, store.rising = store.rising, []
    return [(rise.kind, rise.round if "push" in rise.kind else None) for rise in rising], rising


def a_round_of_rows(store, round_=1):
    store.push_rows(0, 0, 0, round_, rows({1: 1.0}))
    store.push_rows(1, 0, 0, round_, rows({1: 1.0, 3: 4.0}))
    kinds, (rise,) = risen(store)
    assert kinds == [("push_rows", round_)]
    return rise, store.answered_above(rise.slice)


def test_the_sum_of_rows_rises_as_rows():
    rise, replies = a_round_of_rows(rising_store())
    assert rise.rows.ids.tolist() == [1, 3] and rise.rows.values[:, 0].tolist() == [2.0, 4.0]
    assert [(reply.child, reply.has_value) for reply in replies] == [(0, False), (1, False)]


def test_after_a_round_of_rows_the_value_comes_from_above_once():
    store = rising_store(first=None)
    rise, _ = a_round_of_rows(store)
    assert store.pull(0, 0, 0, 1) == [] and store.pull(1, 0, 0, 1) == []
    assert risen(store)[0] == [("pull", None)]
    replies = store.answered_above(rise.slice)
    assert sorted(reply.child for reply in replies) == [0, 1]
    assert len(store.pull(0, 0, 0, 1)) == 1 and store.rising == []
    a_round_of_rows(store, 2)
    assert store.pull(0, 0, 0, 1) == [], "it has changed"


def test_rows_come_from_above_asked_for_as_one():
    store = rising_store(children=4, first=None)
    for child in (2, 3):  # who pull and do not push
        store.leave(child)
    rise, _ = a_round_of_rows(store)
    assert store.pull_rows(0, 0, 0, ids(0, 3)) == []
    kinds, (first,) = risen(store)
    assert kinds == [("pull_rows", None)] and first.ids.tolist() == [0, 3]
    assert store.pull_rows(1, 0, 0, ids(3)) == []  # which are on their way
    assert store.pull_rows(2, 0, 0, ids(2, 4)) == []  # which are not
    assert store.pull_rows(3, 0, 0, ids(1)) == []
    assert store.rising == []
    values = np.array([[0, 0.5], [3, 3.5]], "float32").reshape(-1).view(np.uint8)
    replies = store.rows_above(rise.slice, values)
    got = [(reply.child, reply.rows.view("float32").tolist()) for reply in replies]
    assert got == [(0, [0, 0.5, 3, 3.5]), (1, [3, 3.5])]
    kinds, (second,) = risen(store)
    assert kinds == [("pull_rows", None)] and second.ids.tolist() == [1, 2, 4]


def test_who_waits_for_all_of_it_waits_until_rows_have_come():
    store = rising_store(first=None)
    rise, _ = a_round_of_rows(store)
    store.pull_rows(0, 0, 0, ids(0))
    store.pull(1, 0, 0, 1)
    assert risen(store)[0] == [("pull_rows", None)]
    assert len(store.rows_above(rise.slice, dense(1.0)[:8])) == 1
    assert risen(store)[0] == [("pull", None)]
    store.pull_rows(0, 0, 0, ids(4))
    replies = store.answered_above(rise.slice)
    assert [(reply.child, reply.rows is None) for reply in replies] == [(1, True), (0, False)]


def test_rows_of_who_connects_again_are_not_answered_until_it_asks_again():
    store = rising_store(first=None)
    rise, _ = a_round_of_rows(store)
    store.pull_rows(0, 0, 0, ids(0))
    store.forget_requests(0)
    risen(store)
    assert store.rows_above(rise.slice, dense(1.0)[:8]) == []


def test_rows_and_a_whole_slice_rise_as_a_whole_slice():
    store = rising_store()
    store.push_rows(0, 0, 0, 1, rows({1: 1.0}))
    store.push(1, 0, 0, 1, 1, True, dense(2.0))
    kinds, (rise,) = risen(store)
    assert kinds == [("push", 1)]
    assert store._outgoing.slice(rise.slice)[::2].tolist() == [2.0, 3.0, 2.0, 2.0, 2.0]


# -- the asynchronous store -----------------------------------------------------------------------


def test_rows_are_applied_as_they_arrive():
    store = opened(AsyncStore(0, Plan(1, 1024), range(2)), 2)
    store.set_updater(Calls(add))
    assert store.push_rows(1, 0, 0, 1, rows({1: 1.0})) == []  # before there is a value
    answers = store.init(0, 0, 0, 1, dense(0.0))
    assert [reply.child for reply in answers] == [0, 1]
    assert [reply.child for reply in store.push_rows(1, 0, 0, 2, rows({1: 1.0, 4: 5.0}))] == [1]
    assert [reply.child for reply in store.push_rows(1, 0, 0, 2, rows({1: 1.0}))] == [1]  # a repeat
    assert value(store) == [0.0, 2.0, 0.0, 0.0, 5.0]
    (reply,) = store.pull_rows(0, 0, 0, ids(4))
    assert reply.rows.view("float32").tolist() == [5.0, 5.0]


def test_rows_of_a_whole_key_are_applied_when_all_are_there():
    store = opened(AsyncStore(0, Plan(1, BUCKET_NBYTES, True), range(1)), 1)
    seen = []
    store.set_updater(Calls(lambda unit, gradient, *rest: seen.append(gradient)))
    first, second = store.plan["w"].slices
    for slice_ in (first, second):
        payload = np.zeros(slice_.nbytes, np.uint8)
        store.init(0, slice_.bucket.index, slice_.position, 1, payload)
    store.push_rows(0, second.bucket.index, 0, 1, rows({1: 1.0}))
    assert seen == []
    store.push_rows(0, first.bucket.index, 0, 1, rows({0: 2.0}))
    assert seen[0].ids.tolist() == [0, 4]


# -- what one child asks for and pushes at once -------------------------------------------------


@pytest.mark.parametrize("asks_for_rows", [False, True])
def test_a_sum_does_not_rise_before_what_has_been_asked_for_is_answered(asks_for_rows):
    """Or the answer to the one would be taken for that to the other: the round before's value."""
    store = rising_store(first=None)
    if asks_for_rows:
        a_round_of_rows(store)
        assert store.pull_rows(1, 0, 0, ids(0)) == []
    else:
        assert store.pull(1, 0, 0, 1) == []
    round_ = 2 if asks_for_rows else 1
    store.push(0, 0, 0, 1, round_, True, dense(1.0))
    assert store.push(1, 0, 0, 1, round_, True, dense(10.0)) == []
    kinds, (asked,) = risen(store)
    assert kinds == [("pull_rows" if asks_for_rows else "pull", None)]
    if asks_for_rows:
        replies = store.rows_above(asked.slice, dense(5.0)[:8])
    else:
        store._memory.slice(asked.slice)[:] = 5.0
        replies = store.answered_above(asked.slice)
    assert [reply.child for reply in replies] == [1]
    kinds, (sum_,) = risen(store)
    assert kinds == [("push", round_)]
    assert (store._outgoing.slice(sum_.slice) == 11.0).all()
    assert [reply.child for reply in store.answered_above(sum_.slice)] == [0, 1]


def test_a_late_first_value_does_not_overwrite_a_sum():
    store = rising_store(children=2)
    store.push(0, 0, 0, 1, 1, True, dense(1.0))
    with pytest.raises(ProtocolError, match="has been pushed already"):
        store.init(0, 0, 0, 1, dense(1000.0))
    store.push(1, 0, 0, 1, 1, True, dense(10.0))
    kinds, (rise,) = risen(store)
    assert kinds == [("push", 1)] and (store._outgoing.slice(rise.slice) == 11.0).all()


def test_nothing_is_added_to_a_first_value_on_its_way():
    store = rising_store(children=2)
    assert store.init(0, 0, 0, 1, dense(1.0)) == []
    store.push(1, 0, 0, 1, 1, True, dense(10.0))
    with pytest.raises(ProtocolError, match="before its first value was answered"):
        store.push(0, 0, 0, 1, 1, True, dense(1000.0))
    kinds, (rise,) = risen(store)
    assert kinds == [("init", None)] and (store._outgoing.slice(rise.slice) == 1.0).all()


@pytest.mark.parametrize("how", ["rows", "epoch"])
def test_a_first_value_is_no_news_where_there_was_one(how):
    """Those above ignore it, so this server must not take it for theirs."""
    store = rising_store()
    if how == "rows":
        rise, _ = a_round_of_rows(store)
    else:
        for child in range(2):
            store.push(child, 0, 0, 1, 1, True, dense(1.0))
        _, (rise,) = risen(store)
        store.answered_above(rise.slice)
        for child in range(2):
            store.join(child, 1)
        store.begin_epoch()
    (reply,) = store.init(0, 0, 0, 1, dense(1000.0))
    assert (reply.child, reply.has_value) == (0, False) and store.rising == []
    assert store.pull(1, 0, 0, 1) == [] and risen(store)[0] == [("pull", None)]
