"""The plan: where each key lies, as a function of the order of `add` alone."""

from typing import List, Tuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baryon.ps.dtypes import DTYPES
from baryon.ps.errors import UsageError
from baryon.ps.plan import ALIGNMENT, BUCKET_NBYTES, MAX_NDIM, Plan

SHAPES = st.lists(st.integers(0, 12), max_size=4).map(tuple)
KEYS = st.lists(st.tuples(SHAPES, st.sampled_from(DTYPES)), max_size=25)
# Real buckets are 1 MiB; small and odd ones reach the edges with small keys.
BUCKETS = st.sampled_from([8, 64, 100, 128, 1000, 4096])


def planned(keys: List[Tuple[Tuple[int, ...], str]], num_servers: int, bucket_nbytes: int) -> Plan:
    plan = Plan(num_servers, bucket_nbytes)
    for number, (shape, dtype) in enumerate(keys):
        plan.add(number, shape, dtype)
    return plan


def layout(plan: Plan) -> List[Tuple]:
    return [
        (key.name, key.shape, key.dtype, s.start, s.stop, s.bucket.index, s.bucket.server,
         s.bucket.dtype, s.bucket.capacity, s.position, s.offset, s.nbytes)
        for key in plan.keys
        for s in key.slices
    ]  # fmt: skip


def resnet(depths: Tuple[int, ...]) -> List[Tuple[int, ...]]:
    """The parameters' shapes of a bottleneck ResNet with this many units a stage."""
    shapes: List[Tuple[int, ...]] = [(64, 3, 7, 7), (64,), (64,)]
    inputs = 64
    for stage, depth in enumerate(depths):
        inner, outputs = 64 << stage, 256 << stage
        for unit in range(depth):
            pieces = [(inner, inputs, 1, 1), (inner, inner, 3, 3), (outputs, inner, 1, 1)]
            if unit == 0:
                pieces.append((outputs, inputs, 1, 1))
            for piece in pieces:
                shapes += [piece, piece[:1], piece[:1]]
            inputs = outputs
    return [*shapes, (1000, inputs), (1000,)]


@given(KEYS, st.integers(1, 5), BUCKETS)
def test_plans_fed_alike_are_alike(keys, num_servers, bucket_nbytes):
    first = planned(keys, num_servers, bucket_nbytes)
    assert layout(first) == layout(planned(keys, num_servers, bucket_nbytes))


@given(KEYS, st.integers(1, 5), BUCKETS)
def test_slices_cover_each_key_once(keys, num_servers, bucket_nbytes):
    plan = planned(keys, num_servers, bucket_nbytes)
    for key, (shape, _) in zip(plan.keys, keys):
        assert key.size == int(np.prod(shape, dtype=np.int64))
        assert key.slices, f"{key} has no slice, so nobody would ever answer it"
        covered = 0
        for slice_ in key.slices:
            assert slice_.key is key
            assert (slice_.start, slice_.end) == (covered, slice_.offset + slice_.nbytes)
            assert slice_.nbytes == (slice_.stop - slice_.start) * key.dtype.itemsize
            covered = slice_.stop
        assert covered == key.size


@given(KEYS, st.integers(1, 5), BUCKETS)
def test_slices_lie_aligned_in_their_bucket_without_overlap(keys, num_servers, bucket_nbytes):
    plan = planned(keys, num_servers, bucket_nbytes)
    assert sum(len(bucket.slices) for bucket in plan.buckets) == len(layout(plan))
    for index, bucket in enumerate(plan.buckets):
        assert bucket.index == index
        assert bucket.capacity <= bucket_nbytes
        end = 0
        for position, slice_ in enumerate(bucket.slices):
            assert slice_.bucket is bucket and slice_.position == position
            assert slice_.key.dtype == bucket.dtype
            assert slice_.offset % ALIGNMENT == 0
            assert end <= slice_.offset < end + ALIGNMENT
            end = slice_.end
        assert bucket.nbytes == end <= bucket.capacity


@given(KEYS, st.integers(1, 5), BUCKETS)
def test_every_server_is_charged_with_the_bytes_of_its_buckets(keys, num_servers, bucket_nbytes):
    plan = planned(keys, num_servers, bucket_nbytes)
    owned = [0] * num_servers
    for bucket in plan.buckets:
        owned[bucket.server] += bucket.nbytes
    assert plan.server_nbytes == owned
    # A bucket goes to the least loaded; after that each dtype's shared one may still fill up.
    slack = (1 + len({dtype for _, dtype in keys})) * bucket_nbytes
    assert max(owned) - min(owned) <= slack


@pytest.mark.parametrize("num_servers", [2, 3, 4, 8])
@pytest.mark.parametrize("depths", [(3, 4, 6, 3), (3, 8, 36, 3)], ids=["resnet50", "resnet152"])
def test_resnets_are_balanced_to_one_bucket(depths, num_servers):
    plan = planned([(shape, "float32") for shape in resnet(depths)], num_servers, BUCKET_NBYTES)
    assert max(plan.server_nbytes) - min(plan.server_nbytes) <= BUCKET_NBYTES


def test_a_big_key_is_spread_over_the_servers_one_slice_a_bucket():
    plan = Plan(3, bucket_nbytes=1000)
    key = plan.add("big", (700,), "float32")
    assert [s.nbytes for s in key.slices] == [1000, 1000, 800]
    assert sorted(s.bucket.server for s in key.slices) == [0, 1, 2]
    assert all(s.bucket.slices == [s] and s.offset == 0 for s in key.slices)


def test_a_key_of_exactly_one_bucket_is_not_cut():
    plan = Plan(2, bucket_nbytes=1024)
    assert len(plan.add("exact", (256,), "float32").slices) == 1
    assert len(plan.add("more", (257,), "float32").slices) == 2


def test_small_keys_of_a_dtype_share_a_bucket_and_dtypes_do_not_mix():
    plan = Plan(1)
    a, b, c = (plan.add(n, (5,), d) for n, d in [("a", "float32"), ("b", "int8"), ("c", "float32")])
    assert a.slices[0].bucket is c.slices[0].bucket
    assert b.slices[0].bucket is not a.slices[0].bucket
    assert (a.slices[0].offset, c.slices[0].offset) == (0, ALIGNMENT)


def test_small_keys_go_on_sharing_a_bucket_after_a_big_one():
    plan = Plan(2, bucket_nbytes=1024)
    before = plan.add("before", (1,), "float32")
    plan.add("big", (1000,), "float32")
    after = plan.add("after", (1,), "float32")
    assert after.slices[0].bucket is before.slices[0].bucket


@given(KEYS, KEYS, st.integers(1, 5), BUCKETS)
def test_growth_moves_nothing_that_is_placed(keys, more, num_servers, bucket_nbytes):
    plan = planned(keys, num_servers, bucket_nbytes)
    before = layout(plan)
    for number, (shape, dtype) in enumerate(more, len(keys)):
        plan.add(number, shape, dtype)
    assert layout(plan)[: len(before)] == before


@pytest.mark.parametrize(("shape", "size"), [((0,), 0), ((3, 0, 2), 0), ((), 1)])
def test_empty_and_0d_keys_have_one_slice(shape, size):
    plan = Plan(2)
    plan.add("other", (3,), "float32")
    key = plan.add("it", shape, "float32")
    assert (key.shape, key.size, len(key.slices)) == (shape, size, 1)
    assert (key.slices[0].start, key.slices[0].stop) == (0, size)


@pytest.mark.parametrize(
    ("shape", "dtype", "says"),
    [
        ((2,), "float32", "initialised already"),
        ((2,), "complex64", "complex64"),
        ((2,), "float", "supported are float32"),
        ((2, -1), "float32", "(2, -1)"),
        ((1,) * (MAX_NDIM + 1), "float32", "impossible shape"),
        ((1 << 20, 1 << 20), "float32", "beyond"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name_and_leaves_the_plan_alone(shape, dtype, says):
    plan = Plan(2)
    plan.add("taken", (2,), "float32")
    before = layout(plan)
    name = "taken" if says == "initialised already" else "conv0_weight"
    with pytest.raises(UsageError) as caught:
        plan.add(name, shape, dtype)
    assert repr(name) in str(caught.value) and says in str(caught.value)
    assert layout(plan) == before and "conv0_weight" not in plan


def test_as_many_dimensions_as_numpy_has_are_served():
    assert Plan(1).add("deep", (1,) * MAX_NDIM, "float32").size == 1


def test_keys_are_found_by_name_and_an_int_is_not_its_text():
    plan = Plan(1)
    number, text = plan.add(1, (2,), "float32"), plan.add("1", (3,), "float32")
    assert plan[1] is number and plan["1"] is text and 1 in plan and 2 not in plan
    assert [key.number for key in plan.keys] == [0, 1]


def test_run_gives_neighbouring_slices():
    plan = planned([((2,), "float32")] * 4, 1, BUCKET_NBYTES)
    assert [s.key.name for s in plan.run(0, 1, 2)] == [1, 2]
    assert [s.key.name for s in plan.run(0, 0, 4)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "where", [(1, 0, 1), (-1, 0, 1), (0, -1, 1), (0, 0, 0), (0, 0, -1), (0, 4, 1), (0, 3, 2)]
)
def test_run_refuses_what_is_not_there(where):
    plan = planned([((2,), "float32")] * 4, 1, BUCKET_NBYTES)
    with pytest.raises(IndexError):
        plan.run(*where)


@given(KEYS, st.integers(1, 5), BUCKETS)
def test_slices_hold_whole_rows_unless_a_row_is_bigger_than_a_bucket(
    keys, num_servers, bucket_nbytes
):
    for key in planned(keys, num_servers, bucket_nbytes).keys:
        is_cut = len(key.slices) > 1
        row_nbytes = key.row_size * key.dtype.itemsize
        assert key.has_rows == (bool(key.shape) and not (is_cut and row_nbytes > bucket_nbytes))
        if not key.has_rows:
            continue
        first_row = 0
        for slice_ in key.slices:
            assert slice_.first_row == first_row
            assert slice_.shape == (slice_.num_rows, *key.shape[1:])
            assert slice_.num_rows * key.row_size == slice_.stop - slice_.start
            first_row += slice_.num_rows
        assert first_row == key.shape[0]
