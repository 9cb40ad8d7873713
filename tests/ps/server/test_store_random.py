"""The synchronous store against a model that is too simple to be wrong."""

import itertools
from collections import Counter

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from baryon.ps.plan import Plan
from baryon.ps.rows import Rows, add_rows, as_bytes, encoded
from baryon.ps.server.slot import Wait
from baryon.ps.server.sync_store import SyncStore
from baryon.ps.wire import KeySpec

from ..updaters import Calls

MOST_WORKERS = 4
BUCKET_NBYTES = 256
# big: slices of 16 and 9 rows
KEYS = [("a", (4,)), ("b", (0,)), ("m", (3, 2)), ("big", (25, 4)), ("c", ())]
RANKS = st.integers(0, MOST_WORKERS - 1)
ROW_IDS = st.lists(st.integers(0, 15), max_size=6)
VALUES = st.integers(-1000, 1000).map(float)  # sums of a few are exact in float32


def add(slice_, merged, value, version):
    """An optimizer."""
    if isinstance(merged, Rows):
        add_rows(value, merged)
    else:
        value += merged


class ModelSlice:
    def __init__(self, slice_):
        self.slice = slice_
        self.value = None  # its elements; None: none yet
        self.round = 0
        # rank -> (elements, want_value), of the round that is open; None: is not to be answered
        self.parts = {}
        self.pullers = []  # (rank, ids of rows; None: of all)

    def full(self, value):
        return (value,) * (self.slice.stop - self.slice.start)

    def ids(self, given):
        """``given`` as ids that it has."""
        return sorted({i % self.slice.num_rows for i in given}) if self.slice.num_rows else []

    def rows(self, ids):
        """The elements of some rows."""
        size = self.slice.key.row_size
        return tuple(x for i in ids for x in self.value[i * size : (i + 1) * size])

    def answer(self, ids):
        """What a pull is to get."""
        return self.value if ids is None else ("rows", self.rows(ids))


class StoreMachine(RuleBasedStateMachine):
    """Workers push, repeat, pull, join, connect again, leave: all answers are foretold."""

    @initialize(with_update=st.booleans(), is_whole=st.booleans(), workers=st.integers(2, 4))
    def start(self, with_update, is_whole, workers):
        self.with_update = with_update
        self.is_whole = is_whole and with_update
        self.workers = workers
        self.store = SyncStore(0, Plan(1, BUCKET_NBYTES, is_whole), range(workers))
        for rank in range(workers):
            self.store.declare(rank, 0, [KeySpec(name, shape, "float32") for name, shape in KEYS])
        if with_update:
            self.store.updater = Calls(add)
        self.buckets = [
            [ModelSlice(slice_) for slice_ in bucket.slices] for bucket in self.store.plan.buckets
        ]
        self.active = set(range(workers))
        self.joined = set()

    # -- stimuli

    @rule(bucket=st.integers(0, 9), first=st.integers(0, 9), count=st.integers(1, 9), value=VALUES)
    def init(self, bucket, first, count, value):
        run, expected = self.run(bucket, first, count), Counter()
        for slot in run:
            expected[0, slot.slice, None] += 1
            if slot.value is None:
                slot.value = slot.full(value)
                expected.update((r, slot.slice, slot.answer(ids)) for r, ids in slot.pullers)
                slot.pullers = []
        self.check(self.store.init(0, *self.where(run), self.payload(run, value)), expected)

    @rule(
        rank=RANKS, bucket=st.integers(0, 9), first=st.integers(0, 9), count=st.integers(1, 9),
        value=VALUES, want_value=st.booleans(), age=st.sampled_from([0, 0, 0, 1, 2]),
    )  # fmt: skip
    def push(self, rank, bucket, first, count, value, want_value, age):
        """A contribution to the open round, a repeat of one, or a repeat from rounds ago."""
        rank %= self.workers
        run = self.run(bucket, first, count)
        round_ = run[0].round + 1 - age
        alike = lambda slot: slot.value is not None and slot.round + 1 - age == round_  # noqa: E731
        run = list(itertools.takewhile(alike, run))
        if not run or round_ < 1 or (age == 0 and rank not in self.active):
            return
        expected = Counter()
        for slot in run:
            if age:
                expected[rank, slot.slice, slot.value if want_value else None] += 1
            elif rank in slot.parts:
                slot.parts[rank] = (slot.parts[rank][0], want_value)
            else:
                slot.parts[rank] = (slot.full(value), want_value)
                self.complete(slot, expected)
        data = self.payload(run, value)
        self.check(self.store.push(rank, *self.where(run), round_, want_value, data), expected)

    @rule(
        rank=RANKS, bucket=st.integers(0, 9), first=st.integers(0, 9), given=ROW_IDS, value=VALUES,
        age=st.sampled_from([0, 0, 0, 1, 2]),
    )  # fmt: skip
    def push_rows(self, rank, bucket, first, given, value, age):
        """The same of some rows of a slice, perhaps of none."""
        rank %= self.workers
        (slot,) = self.run(bucket, first, 1)
        round_ = slot.round + 1 - age
        is_refused = slot.value is None or round_ < 1 or (age == 0 and rank not in self.active)
        if is_refused or not slot.slice.key.has_rows:
            return
        ids, size = slot.ids(given), slot.slice.key.row_size
        expected = Counter()
        if age:
            expected[rank, slot.slice, None] += 1
        elif rank in slot.parts:
            slot.parts[rank] = (slot.parts[rank][0], False)
        else:
            part = np.zeros((slot.slice.num_rows, size))
            part[ids] = value
            slot.parts[rank] = (tuple(part.reshape(-1).tolist()), False)
            self.complete(slot, expected)
        rows = Rows(np.array(ids, np.int64), np.full((len(ids), size), value, np.float32))
        where = slot.slice.bucket.index, slot.slice.position
        self.check(self.store.push_rows(rank, *where, round_, encoded(rows)), expected)

    @rule(rank=RANKS, bucket=st.integers(0, 9), first=st.integers(0, 9), given=ROW_IDS)
    def pull_rows(self, rank, bucket, first, given):
        rank %= self.workers
        (slot,) = self.run(bucket, first, 1)
        if not slot.slice.key.has_rows:
            return
        expected, ids = Counter(), slot.ids(given)
        if self.waits_at(rank, [slot]):
            return
        if slot.value is None:
            slot.pullers.append((rank, ids))
        else:
            expected[rank, slot.slice, slot.answer(ids)] += 1
        payload = as_bytes(np.array(ids, np.int64))
        where = slot.slice.bucket.index, slot.slice.position
        self.check(self.store.pull_rows(rank, *where, payload), expected)

    @rule(rank=RANKS, bucket=st.integers(0, 9), first=st.integers(0, 9), count=st.integers(1, 9))
    def pull(self, rank, bucket, first, count):
        run, expected = self.run(bucket, first, count), Counter()
        rank %= self.workers
        if self.waits_at(rank, run):
            return
        for slot in run:
            if slot.value is None:
                slot.pullers.append((rank, None))
            else:
                expected[rank, slot.slice, slot.value] += 1
        self.check(self.store.pull(rank, *self.where(run)), expected)

    @rule(rank=RANKS)
    def connect_again(self, rank):
        rank %= self.workers
        for slot in self.slots():
            if rank in slot.parts:
                slot.parts[rank] = (slot.parts[rank][0], None)
            slot.pullers = [puller for puller in slot.pullers if puller[0] != rank]
        self.store.forget_requests(rank)

    @rule(rank=RANKS)
    def leave(self, rank):
        """One of several workers, and not rank 0 while it owes first values."""
        rank %= self.workers
        owes = any(slot.value is None for slot in self.slots())
        if self.active | self.joined == {rank} or (rank == 0 and owes):
            return
        if self.is_whole and any(rank in slot.parts for slot in self.slots()):
            return  # it may have sent a part of a key only, which a worker that ends well has not
        self.joined.discard(rank)
        self.check(self.store.leave(rank), self.without(rank))
        self.begin_epoch()

    @rule(rank=RANKS)
    def join(self, rank):
        """A worker that waits for nothing."""
        rank %= self.workers
        if rank not in self.active or any(rank in slot.parts for slot in self.slots()):
            return
        self.joined.add(rank)
        self.check(self.store.join(rank, self.store.epoch + 1), self.without(rank))
        self.begin_epoch()

    # -- the model

    @staticmethod
    def waits_at(rank, run):
        return any(puller == rank for slot in run for puller, _ in slot.pullers)

    def without(self, rank):
        """What is answered because a worker is not waited for any more."""
        self.active.discard(rank)
        expected = Counter()
        for slot in self.slots():
            self.complete(slot, expected)
        return expected

    def begin_epoch(self):
        assert self.store.have_all_joined == (not self.active)
        if not self.active:
            self.store.begin_epoch()
            self.active, self.joined = self.joined, set()
            for slot in self.slots():
                slot.round = 0

    def slots(self):
        return [slot for bucket in self.buckets for slot in bucket]

    def run(self, bucket, first, count):
        slots = self.buckets[bucket % len(self.buckets)]
        return slots[first % len(slots) :][:count]

    @staticmethod
    def where(run):
        return run[0].slice.bucket.index, run[0].slice.position, len(run)

    def complete(self, slot, expected):
        if self.is_whole:
            alike = [other for other in self.slots() if other.slice.key is slot.slice.key]
            if not all(self.is_merged(other) for other in alike):
                return
            for other in alike:
                self.end_round(other, expected)
        elif self.is_merged(slot):
            self.end_round(slot, expected)

    def is_merged(self, slot):
        return slot.parts and self.active <= set(slot.parts)

    def end_round(self, slot, expected):
        terms = [part for part, _ in slot.parts.values()]
        if self.with_update and slot.value is not None:
            terms.append(slot.value)
        slot.value = tuple(map(sum, zip(*terms)))
        for rank, (_, want_value) in slot.parts.items():
            if want_value is not None:
                expected[rank, slot.slice, slot.value if want_value else None] += 1
        slot.parts = {}
        slot.round += 1

    # -- the comparison

    @staticmethod
    def payload(run, value):
        start = run[0].slice.offset
        data = np.zeros(run[-1].slice.end - start, np.uint8)
        for slot in run:
            data[slot.slice.offset - start : slot.slice.end - start].view("float32")[:] = value
        data.flags.writeable = False
        return data

    def check(self, replies, expected):
        """Every slice is answered to whom, how often and with the value that the model says."""
        got = Counter()
        for reply in replies:
            run = self.store.plan.run(reply.bucket, reply.first, reply.num_slices)
            for slice_ in run:
                value = None
                if reply.has_value:
                    start = slice_.offset - run[0].offset
                    array = self.store.values(reply)[start : start + slice_.nbytes].copy()
                    value = tuple(array.view("float32").tolist())
                if reply.rows is not None:
                    value = "rows", tuple(reply.rows.view("float32").tolist())
                got[reply.child, slice_, value] += 1
        assert got == expected

    @invariant()
    def every_waiting_worker_is_named_with_a_wait_of_its_own(self):
        if not hasattr(self, "store"):
            return
        possible = {}
        for slot in self.slots():
            missing = tuple(sorted(self.active - set(slot.parts)))
            for rank in slot.parts if missing else ():  # else the key's other slices say so
                wait = Wait(rank, slot.slice.key.name, slot.round + 1, missing)
                possible.setdefault(rank, set()).add(wait)
            for rank, _ in slot.pullers:
                possible.setdefault(rank, set()).add(Wait(rank, slot.slice.key.name, 0, (0,)))
        waits = {wait.child: wait for wait in self.store.waits()}
        assert waits.keys() == possible.keys()
        assert all(wait in possible[rank] for rank, wait in waits.items())


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
