"""A slice leaves after those announced before it in its bucket, and waits for no others."""

from collections import defaultdict
from typing import Dict, List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baryon.ps.client.departures import Departures, Operation
from baryon.ps.plan import Plan


def plan_of(*sizes: int) -> Plan:
    """Float32 keys 0, 1, ... of these sizes; a bucket has room for 4 keys of up to 16 elements."""
    plan = Plan(num_servers=2, bucket_nbytes=256)
    for name, size in enumerate(sizes):
        plan.add(name, (size,), "float32")
    return plan


def push(plan: Plan, name: int, round_: int = 1, priority: int = 0) -> Operation:
    operation = Operation("push", plan[name], want_value=True, priority=priority)
    operation.round = round_
    return operation


def taken(departures: Departures) -> List[List[Tuple[int, int, int]]]:
    """What leaves now: a list per run of (key, first element, round)."""
    return [
        [
            (slice_.key.name, slice_.start, op.round)
            for op, slice_ in zip(run.operations, run.slices)
        ]
        for run in departures.take()
    ]


def test_nothing_leaves_before_it_is_ready():
    plan, departures = plan_of(4), Departures()
    operation = push(plan, 0)
    departures.announce(operation)
    assert taken(departures) == []
    departures.ready(operation)
    assert taken(departures) == [[(0, 0, 1)]]
    assert taken(departures) == []


def test_neighbours_in_a_bucket_leave_as_one_run_whatever_order_they_became_ready_in():
    plan, departures = plan_of(4, 4, 4), Departures()
    operations = [push(plan, name) for name in range(3)]
    for operation in operations:
        departures.announce(operation)
    for operation in reversed(operations):
        departures.ready(operation)
    assert taken(departures) == [[(0, 0, 1), (1, 0, 1), (2, 0, 1)]]


def test_the_ready_wait_for_what_was_announced_before_them():
    plan, departures = plan_of(4, 4), Departures()
    first, second = push(plan, 0), push(plan, 1)
    departures.announce(first)
    departures.announce(second)
    departures.ready(second)
    assert taken(departures) == []
    departures.ready(first)
    assert taken(departures) == [[(0, 0, 1), (1, 0, 1)]]


def test_the_ready_do_not_wait_for_what_was_announced_after_them():
    plan, departures = plan_of(4, 4), Departures()
    first, second = push(plan, 0), push(plan, 1)
    departures.announce(first)
    departures.announce(second)
    departures.ready(first)
    assert taken(departures) == [[(0, 0, 1)]]
    departures.ready(second)
    assert taken(departures) == [[(1, 0, 1)]]


def test_buckets_do_not_wait_for_each_other():
    plan, departures = plan_of(64, 64), Departures()  # one bucket each
    first, second = push(plan, 0), push(plan, 1)
    departures.announce(first)
    departures.announce(second)
    departures.ready(second)
    assert taken(departures) == [[(1, 0, 1)]]


def test_the_next_steps_announcements_do_not_hold_back_this_steps_operations():
    plan, departures = plan_of(4, 4, 4), Departures()
    this = [push(plan, name, round_=1) for name in range(3)]
    following = [push(plan, name, round_=2) for name in range(3)]
    for operation in this + following:
        departures.announce(operation)
    for operation in reversed(this):
        departures.ready(operation)
    assert taken(departures) == [[(0, 0, 1), (1, 0, 1), (2, 0, 1)]]
    for operation in reversed(following):
        departures.ready(operation)
    assert taken(departures) == [[(0, 0, 2), (1, 0, 2), (2, 0, 2)]]


@pytest.mark.parametrize("field", ["kind", "round", "want_value"])
def test_what_differs_is_not_fused(field):
    plan, departures = plan_of(4, 4), Departures()
    first, second = push(plan, 0), push(plan, 1)
    setattr(second, field, {"kind": "init", "round": 2, "want_value": False}[field])
    for operation in (first, second):
        departures.announce(operation)
    for operation in (first, second):
        departures.ready(operation)
    runs = list(departures.take())
    assert [run.operations for run in runs] == [(first,), (second,)]


def test_what_does_not_adjoin_is_not_fused():
    plan, departures = plan_of(4, 4, 4), Departures()
    for operation in (push(plan, 0), push(plan, 2)):
        departures.announce(operation)
        departures.ready(operation)
    assert taken(departures) == [[(0, 0, 1)], [(2, 0, 1)]]


def test_announced_in_another_order_than_planned_is_fused_in_the_plans_order():
    plan, departures = plan_of(4, 4, 4), Departures()
    operations = [push(plan, name) for name in (2, 0, 1)]
    for operation in operations:
        departures.announce(operation)
    for operation in operations:
        departures.ready(operation)
    assert taken(departures) == [[(0, 0, 1), (1, 0, 1), (2, 0, 1)]]


def test_a_split_key_leaves_as_one_run_a_bucket():
    plan, departures = plan_of(150), Departures()  # slices of 64, 64 and 22 elements
    operation = push(plan, 0)
    assert operation.remaining == 3
    departures.announce(operation)
    departures.ready(operation)
    assert taken(departures) == [[(0, 0, 1)], [(0, 64, 1)], [(0, 128, 1)]]


def test_a_run_is_as_urgent_as_its_most_urgent_operation():
    plan, departures = plan_of(4, 4, 4), Departures()
    operations = [push(plan, name, priority=p) for name, p in enumerate([-2, 5, -7])]
    for operation in operations:
        departures.announce(operation)
    for operation in operations:
        departures.ready(operation)
    (run,) = departures.take()
    assert run.priority == 5


def test_giving_up_names_what_was_ready_and_forgets_the_rest():
    plan, departures = plan_of(4, 4, 4, 4), Departures()
    gone, held, ready, last = (push(plan, name) for name in range(4))
    for operation in (gone, held, ready, last):
        departures.announce(operation)
    departures.ready(gone)
    assert len(list(departures.take())) == 1
    departures.ready(ready)
    assert departures.ready_but_waiting() == [ready]
    departures.ready(held)
    departures.ready(last)
    assert list(departures.take()) == []


# -- any interleaving ---------------------------------------------------------------------------

SIZES = st.lists(st.sampled_from([0, 1, 4, 16, 17, 64, 65, 200]), min_size=1, max_size=6)


@st.composite
def histories(draw):
    """A plan, operations, and a legal history of ("announce" | "ready", operation) and takes."""
    plan = plan_of(*draw(SIZES))
    names = st.integers(0, len(plan.keys) - 1)
    operations = [
        push(plan, draw(names), round_) for round_ in draw(st.lists(st.integers(1, 3), max_size=12))
    ]
    to_announce, pending = list(operations), []
    events = []
    while to_announce or pending:
        moves = [("announce", 0)] * bool(to_announce) + [("ready", i) for i in range(len(pending))]
        event, index = draw(st.sampled_from(moves))
        if event == "announce":
            pending.append(to_announce.pop(0))
            events.append((event, pending[-1]))
        else:
            events.append((event, pending.pop(index)))
        if draw(st.booleans()):
            events.append(("take", None))
    return operations, [*events, ("take", None)]


@given(histories())
def test_each_take_releases_the_ready_heads_of_all_buckets_and_all_leave_once(history):
    operations, events = history
    departures = Departures()
    waiting: Dict[int, List] = defaultdict(list)  # the model: bucket -> (operation, slice)
    ready = set()
    left = []
    for event, operation in events:
        if event == "announce":
            departures.announce(operation)
            for slice_ in operation.key.slices:
                waiting[slice_.bucket.index].append((operation, slice_))
        elif event == "ready":
            departures.ready(operation)
            ready.add(operation)
        else:
            expected = []
            for queue in waiting.values():
                while queue and queue[0][0] in ready:
                    expected.append(queue.pop(0))
            runs = list(departures.take())
            got = [pair for run in runs for pair in zip(run.operations, run.slices)]
            assert sorted(map(identity, got)) == sorted(map(identity, expected))
            for run in runs:
                check_run(run)
            left += got
    everything = [(op, slice_) for op in operations for slice_ in op.key.slices]
    assert sorted(map(identity, left)) == sorted(map(identity, everything))
    for slice_ in {slice_ for _, slice_ in everything}:
        assert [op for op, s in left if s is slice_] == [op for op, s in everything if s is slice_]


def identity(pair):
    return id(pair[0]), pair[1].bucket.index, pair[1].position


def check_run(run):
    """Check that a run can be one message: neighbours in one bucket with the same header fields."""
    first = run.slices[0]
    assert [s.position for s in run.slices] == list(
        range(first.position, first.position + len(run.slices))
    )
    assert {s.bucket for s in run.slices} == {first.bucket}
    assert len({(op.kind, op.round, op.want_value) for op in run.operations}) == 1
