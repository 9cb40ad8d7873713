"""The asynchronous store: contributions are applied on arrival, answers may have to wait."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from baryon.ps.errors import ProtocolError, UsageError
from baryon.ps.plan import Plan
from baryon.ps.server.async_store import AsyncStore
from baryon.ps.server.slot import Wait
from baryon.ps.wire import KeySpec

from ..updaters import Calls

WORKERS = 3


def add(slice_, merged, value, version):
    np.add(value, merged, out=value)


def store_of(staleness=None, shape=(4,), has_whole_keys=False, update=add):
    plan = Plan(1, 256, has_whole_keys)
    store = AsyncStore(0, plan, range(WORKERS), staleness=staleness)
    for rank in range(WORKERS):
        store.declare(rank, 0, [KeySpec("a", shape, "float32")])
    if update is not None:
        store.set_updater(Calls(update))
    return store


def elements(value, count=4):
    return np.full(count, value, np.float32).view(np.uint8)


def seen(store, replies):
    """(child, value) of each reply; None: answered without one."""
    found = [
        (r.child, float(store.values(r).view(np.float32)[0]) if r.has_value else None)
        for r in replies
    ]
    return sorted(found, key=lambda entry: (entry[0], entry[1] is not None))


def init(store, value=0.0):
    return seen(store, store.init(0, 0, 0, 1, elements(value)))


def push(store, rank, round_, value=1.0, want_value=True):
    return seen(store, store.push(rank, 0, 0, 1, round_, want_value, elements(value)))


def test_a_push_is_applied_and_answered_at_once():
    store = store_of()
    init(store, 10.0)
    assert push(store, 1, 1) == [(1, 11.0)]
    assert push(store, 1, 2) == [(1, 12.0)]
    assert push(store, 0, 1, want_value=False) == [(0, None)]
    assert seen(store, store.pull(2, 0, 0, 1)) == [(2, 13.0)]


def test_what_comes_before_the_first_value_waits_for_it():
    store = store_of()
    assert push(store, 1, 1) == []
    assert init(store, 5.0) == [(0, None), (1, 6.0)]


def test_what_comes_before_the_optimizer_waits_for_it():
    store = store_of(update=None)
    init(store, 5.0)
    assert push(store, 1, 1) == []
    assert seen(store, store.set_updater(Calls(add))) == [(1, 6.0)]


def test_a_push_of_worker_0_without_an_optimizer_is_an_error():
    store = store_of(update=None)
    init(store)
    with pytest.raises(UsageError, match="call set_optimizer first"):
        push(store, 0, 1)


def test_nobody_gets_further_ahead_than_the_staleness():
    store = store_of(staleness=1)
    init(store)
    assert push(store, 0, 1) == [(0, 1.0)]
    assert push(store, 0, 2) == []  # two ahead of the others
    assert store.waits() == [Wait(0, "a", 2, (1, 2))]
    assert push(store, 1, 1) == [(1, 3.0)]
    assert store.waits() == [Wait(0, "a", 2, (2,))]
    assert push(store, 2, 1) == [(0, 4.0), (2, 4.0)]


def test_a_worker_that_has_left_holds_nobody_up():
    store = store_of(staleness=0)
    init(store)
    assert push(store, 0, 1) == push(store, 1, 1) == []
    assert seen(store, store.leave(2)) == [(0, 2.0), (1, 2.0)]
    with pytest.raises(ProtocolError, match="worker 2 pushed round 1"):
        push(store, 2, 1)


def test_a_repeat_is_counted_once_and_answered_again():
    store = store_of()
    init(store)
    assert push(store, 1, 1) == [(1, 1.0)]
    store.forget_requests(1)
    assert push(store, 1, 1) == [(1, 1.0)]
    with pytest.raises(ProtocolError, match="pushed round 3"):
        push(store, 1, 3)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_whole_key_is_updated_when_all_of_it_is_there(order):
    calls = []

    def update(slice_, merged, value, version):
        calls.append((slice_.index, merged.tolist()))
        value += merged

    store = store_of(shape=(100,), has_whole_keys=True, update=update)  # slices of 64 and 36
    for bucket, count in ((0, 64), (1, 36)):
        store.init(0, bucket, 0, 1, elements(1.0, count))
    replies = [
        store.push(1, bucket, 0, 1, 1, True, elements(bucket, (64, 36)[bucket])) for bucket in order
    ]
    assert replies[0] == [] and sorted(r.bucket for r in replies[1]) == [0, 1]
    assert calls == [(0, [0.0] * 64 + [1.0] * 36)]
    assert [store.values(r).view(np.float32)[0] for r in sorted(replies[1])] == [1.0, 2.0]


class AsyncMachine(RuleBasedStateMachine):
    """Workers push, repeat, connect again and leave anyhow; all answers are foretold."""

    @initialize(staleness=st.sampled_from([None, 0, 1, 3]))
    def start(self, staleness):
        self.staleness = staleness
        self.store = store_of(staleness, update=None)
        self.value = None
        self.has_update = False
        self.active = set(range(WORKERS))
        self.rounds = dict.fromkeys(range(WORKERS), 0)
        self.waiting = {}  # child -> contribution to be applied
        self.asking = set()

    def settle(self):
        """What must be answered now, of what has been asked."""
        if self.value is not None and self.has_update:
            for child in list(self.waiting):
                self.value += self.waiting.pop(child)
                self.rounds[child] += 1
        ready = {
            child
            for child in self.asking - set(self.waiting)
            if self.staleness is None
            or all(self.rounds[c] >= self.rounds[child] - self.staleness for c in self.active)
        }
        self.asking -= ready
        return [(child, self.value) for child in ready]

    def check(self, replies, expected):
        assert Counter(seen(self.store, replies)) == Counter(expected)

    @rule(value=st.integers(-9, 9))
    def init(self, value):
        is_new = self.value is None
        if is_new:
            self.value = float(value)
        replies = self.store.init(0, 0, 0, 1, elements(value))
        self.check(replies, [(0, None), *(self.settle() if is_new else [])])

    @rule()
    def set_updater(self):
        self.has_update = True
        self.check(self.store.set_updater(Calls(add)), self.settle())

    @rule(rank=st.integers(0, WORKERS - 1), value=st.integers(-9, 9))
    def push(self, rank, value):
        if rank not in self.active or rank in self.asking:
            return
        if rank == 0 and not self.has_update:
            return
        round_ = self.rounds[rank] + 1
        if rank not in self.waiting:
            self.waiting[rank] = value
        self.asking.add(rank)
        replies = self.store.push(rank, 0, 0, 1, round_, True, elements(value))
        self.check(replies, self.settle())

    @rule(rank=st.integers(0, WORKERS - 1))
    def connect_again_and_repeat(self, rank):
        self.store.forget_requests(rank)
        was_asking = rank in self.asking
        self.asking.discard(rank)
        round_ = self.rounds[rank] + (rank in self.waiting)
        if rank not in self.active or not round_ or not was_asking:
            return
        self.asking.add(rank)
        self.check(self.store.push(rank, 0, 0, 1, round_, True, elements(99)), self.settle())

    @rule(rank=st.integers(0, WORKERS - 1))
    def leave(self, rank):
        if rank in self.asking or self.active == {rank}:
            return
        self.active.discard(rank)
        self.check(self.store.leave(rank), self.settle())

    @invariant()
    def nobody_is_too_far_ahead(self):
        if self.staleness is not None:
            answered = [self.rounds[c] for c in self.active - self.asking]
            slowest = min(self.rounds[c] for c in self.active)
            assert all(round_ <= slowest + self.staleness for round_ in answered)


TestAsyncMachine = AsyncMachine.TestCase
TestAsyncMachine.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
