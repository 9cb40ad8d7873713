"""bfloat16, which NumPy lacks: its sums, and its keys in a plan, on the wire and in stores."""

import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from baryon.ps import Rows, wire
from baryon.ps.dtypes import DTYPES, add, dtype_of, name_of, narrowed, widened
from baryon.ps.errors import UsageError
from baryon.ps.memory import Memory
from baryon.ps.plan import Plan
from baryon.ps.rows import encoded, summed, union
from baryon.ps.server.rising_store import RisingStore
from baryon.ps.server.sync_store import SyncStore

from .conversation import Conversation

BFLOAT16 = dtype_of("bfloat16")
BITS = arrays(BFLOAT16, 40, elements=st.integers(0, (1 << 16) - 1))


def bits(*numbers):
    """Of numbers that bfloat16 has exactly."""
    wide = np.array(numbers, np.float32)
    found = (wide.view(np.uint32) >> 16).astype(np.uint16)
    assert (widened(found) == wide).all()
    return found


def nearest(total):
    """The bits of the bfloat16 that is nearest to a float32; by comparison, not by rounding."""
    below = int(np.float32(total).view(np.uint32)) >> 16  # towards zero
    values = [widened(np.array([n], np.uint16))[0] for n in (below, below + 1)]
    if not np.isfinite(total) or float(total) == float(values[0]):
        return below
    if not np.isfinite(values[1]):  # as if it were the next number
        values[1] = np.copysign(2.0**128, total)
    gaps = [abs(float(total) - float(value)) for value in values]
    return below + (gaps[1] < gaps[0] or (gaps[0] == gaps[1] and below % 2))


@pytest.mark.parametrize("name", DTYPES)
def test_each_name_has_arrays_of_its_own(name):
    assert name_of(dtype_of(name)) == name
    assert dtype_of(name).itemsize == int("".join(filter(str.isdigit, name))) // 8


@given(BITS, BITS)
def test_a_sum_is_that_in_float32_rounded_to_the_nearest(one, other):
    with np.errstate(all="ignore"):
        exact = widened(one) + widened(other)
    found = add(one, other)
    for number, total in zip(found, exact):
        if np.isnan(total):
            assert np.isnan(widened(np.array([number], np.uint16)))[0]
        else:
            assert number == nearest(total)


@pytest.mark.parametrize(
    ("one", "other", "total"),
    [
        (256.0, 1.0, 256.0),  # half-way between 256 and 258: to the even one
        (258.0, 1.0, 260.0),
        (256.0, 1.5, 258.0),
        (256.0, 0.75, 256.0),
        (-256.0, -1.0, -256.0),
        (1.0, -1.0, 0.0),
        (2.0**127, 2.0**127, np.inf),
        (np.inf, 1.0, np.inf),
    ],
)
def test_sums_half_way_go_to_the_even_one(one, other, total):
    assert widened(add(bits(one), bits(other))).tolist() == [total]


def test_a_nan_stays_one_whatever_its_bits():
    every = np.array([n for n in range(1 << 16) if n & 0x7F80 == 0x7F80 and n & 0x7F], np.uint16)
    assert np.isnan(widened(add(every, bits(1.0)))).all()
    assert np.isnan(widened(narrowed(widened(every), BFLOAT16))).all()


def test_a_sum_may_lie_in_one_of_its_terms():
    one, other = bits(1.0, 2.0), bits(3.0, 4.0)
    assert add(one, other, out=one) is one
    assert widened(one).tolist() == [4.0, 6.0] and widened(other).tolist() == [3.0, 4.0]
    plain = np.ones(2, "float32")
    assert add(plain, plain, out=plain) is plain and plain.tolist() == [2.0, 2.0]


def test_rows_are_added_as_numbers():
    ids = np.array([2, 0, 2])
    rows = summed(ids, bits(1.0, 10.0, 2.0).reshape(3, 1))
    assert rows.ids.tolist() == [0, 2] and widened(rows.values).tolist() == [[10.0], [3.0]]
    both = union(rows, Rows(np.array([1, 2]), bits(7.0, 4.0).reshape(2, 1)))
    assert widened(both.values).tolist() == [[10.0], [7.0], [7.0]]


def test_a_plan_gives_it_two_bytes_and_buckets_of_its_own():
    plan = Plan(1)
    key, other = plan.add("w", (3, 5), "bfloat16"), plan.add("h", (3, 5), "float16")
    assert key.nbytes == 30 and key.dtype_name == "bfloat16" and "bfloat16" in repr(key)
    assert key.slices[0].bucket is not other.slices[0].bucket
    for name in ("uint16", "float8", "bfloat"):
        with pytest.raises(UsageError, match=f"dtype {name}; supported are .*bfloat16"):
            plan.add("v", (3,), name)


def opened(store, children, shape=(5, 2)):
    for child in range(children):
        store.declare(child, 0, [wire.KeySpec("w", shape, "bfloat16")])
    return store


def payload(value, size=10):
    return np.repeat(bits(value), size).view(np.uint8)


def test_a_store_adds_whole_slices_and_rows_in_the_order_of_ranks():
    store = opened(SyncStore(0, Plan(1), range(3)), 3)
    store.init(0, 0, 0, 1, payload(0.0))
    rows = Rows(np.array([1, 4]), bits(1.0, 1.0, 1.0, 1.0).reshape(2, 2))
    assert store.push(2, 0, 0, 1, 1, True, payload(256.0)) == []
    store.push_rows(1, 0, 0, 1, encoded(rows))
    replies = store.push(0, 0, 0, 1, 1, True, payload(1.0))
    assert sorted((r.child, r.has_value) for r in replies) == [(0, True), (1, False), (2, True)]
    values = widened(store.values(replies[0]).view(BFLOAT16)).reshape(5, 2)
    assert values[0].tolist() == [256.0] * 2  # 1 + 256
    assert values[1].tolist() == [258.0] * 2  # (1 + 1) + 256


def test_sums_rise_to_servers_above():
    store = opened(RisingStore(0, Plan(1), range(2), Memory(), Memory()), 2)
    for child in range(2):
        store.push(child, 0, 0, 1, 1, True, payload(1.5))
    (rise,) = store.rising
    assert widened(store._outgoing.slice(rise.slice)).tolist() == [3.0] * 10


def test_workers_sum_it_through_a_server_and_must_agree_on_it():
    context = zmq.Context()
    key = wire.KeySpec("w", (4,), "bfloat16")
    talk = Conversation(context, (0, 0), keys=(key,))
    talk.send(0, wire.Init(0, 0, 0, 1), payload(0.0, 4).tobytes())
    talk.send(0, wire.Push(0, 0, 0, 1, 1, True), payload(1.5, 4).tobytes())
    told = talk.send(1, wire.Push(0, 0, 0, 1, 1, True), payload(2.0, 4).tobytes())
    assert [one.payload for one in told] == [payload(3.5, 4).tobytes()] * 2
    talk.send(1, wire.Open(1, "sync"))
    talk.send(0, wire.Open(1, "sync"))
    talk.send(0, wire.Declare(1, 0, (key,)))
    talk.send(1, wire.Declare(1, 0, (wire.KeySpec("w", (4,), "float16"),)))
    (text,) = talk.faults
    assert "key 'w' is bfloat16(4,) on worker 0 and float16(4,) on worker 1" in text
    talk.close()
    context.destroy(linger=0)
