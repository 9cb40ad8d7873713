"""Rows of arrays: sums, cuts, and what travels, all against dense arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from baryon.ps.errors import ProtocolError, UsageError
from baryon.ps.plan import Plan
from baryon.ps.rows import (
    Rows,
    add_rows,
    as_bytes,
    encoded,
    ids_in,
    ids_of,
    join,
    put,
    rows_in,
    rows_of,
    select,
    summed,
    union,
)

HEIGHT, WIDTH = 9, 3
NUMBERS = st.integers(-1000, 1000).map(float)


@st.composite
def some_rows(draw):
    ids = sorted(draw(st.sets(st.integers(0, HEIGHT - 1))))
    values = draw(arrays("float32", (len(ids), WIDTH), elements=NUMBERS))
    return Rows(np.array(ids, np.int64), values)


def dense(rows):
    whole = np.zeros((HEIGHT, WIDTH), "float32")
    whole[rows.ids] = rows.values
    return whole


def is_normal(rows):
    return rows.ids.dtype == np.int64 and (rows.ids[1:] > rows.ids[:-1]).all()


def key_of(shape, bucket_nbytes=40, dtype="float32"):
    return Plan(2, bucket_nbytes).add("w", shape, dtype)


@given(some_rows(), some_rows())
def test_a_union_is_the_sum(one, other):
    both = union(one, other)
    assert is_normal(both) and set(both.ids) == {*one.ids, *other.ids}
    np.testing.assert_array_equal(dense(both), dense(one) + dense(other))


@given(some_rows(), arrays("float32", (HEIGHT, WIDTH), elements=NUMBERS))
def test_rows_are_added_to_and_put_into_and_selected_from_arrays(rows, whole):
    target = whole.copy().reshape(-1)
    add_rows(target, rows)
    np.testing.assert_array_equal(target.reshape(HEIGHT, WIDTH), whole + dense(rows))
    put(rows, target)
    np.testing.assert_array_equal(target.reshape(HEIGHT, WIDTH), dense(rows))
    np.testing.assert_array_equal(select(whole.reshape(-1), rows.ids, WIDTH), whole[rows.ids])


@given(st.lists(st.tuples(st.integers(0, HEIGHT - 1), NUMBERS)))
def test_rows_given_in_any_order_and_more_than_once_are_added_up(given):
    expected = np.zeros((HEIGHT, WIDTH), "float32")
    for row, value in given:
        expected[row] += value
    values = np.array([[value] * WIDTH for _, value in given], "float32").reshape(-1, WIDTH)
    rows = summed(np.array([row for row, _ in given]), values)
    assert is_normal(rows)
    np.testing.assert_array_equal(dense(rows), expected)


@given(some_rows(), st.sampled_from([12, 30, 40, 1000]))
def test_a_key_is_cut_and_joined_again(rows, bucket_nbytes):
    key = key_of((HEIGHT, WIDTH), bucket_nbytes)
    sent = rows_in(key, rows)
    assert list(sent) == key.slices, "every slice takes part in every round"
    parts = [rows_of(slice_, payload) for slice_, payload in sent.items()]
    joined = join(parts, key.slices)
    np.testing.assert_array_equal(joined.ids, rows.ids)
    np.testing.assert_array_equal(joined.values, rows.values)
    # As dense as its densest part.
    parts[-1] = dense(rows).reshape(-1)[key.slices[-1].start :]
    if len(parts) > 1:
        whole = join(parts, key.slices)
        np.testing.assert_array_equal(whole.reshape(HEIGHT, WIDTH), dense(rows))


@given(st.sets(st.integers(0, HEIGHT - 1)).map(sorted))
def test_only_slices_with_rows_are_asked_for_them(ids):
    key = key_of((HEIGHT, WIDTH))
    asked = ids_in(key, np.array(ids, np.int64))
    found = [int(i) + s.first_row for s, payload in asked.items() for i in ids_of(s, payload)]
    assert found == ids
    assert all(payload.size for payload in asked.values())


@pytest.mark.parametrize("shape", [(5,), (5, 0), (0, 3), (2, 2, 2)])
@pytest.mark.parametrize("dtype", ["float16", "int8", "float64"])
def test_rows_of_all_shapes_travel(shape, dtype):
    key = key_of(shape, 1000, dtype)
    ids = np.arange(min(2, shape[0]))
    values = np.ones((ids.size, int(np.prod(shape[1:]))), dtype)
    (slice_,) = key.slices
    rows = rows_of(slice_, rows_in(key, Rows(ids, values))[slice_])
    assert rows.values.dtype == key.dtype and rows.values.tolist() == values.tolist()
    whole = np.zeros(key.size, dtype)
    put(rows, whole)
    assert select(whole, ids, key.row_size).tolist() == values.tolist()


def test_a_key_without_rows_of_a_buckets_size_is_refused():
    for shape in ((), (3, 11)):  # a row of 44 bytes
        with pytest.raises(UsageError, match="use dense gradients"):
            rows_in(key_of(shape), Rows(np.arange(0), np.empty((0, 11), "float32")))
    slice_ = key_of((3, 11)).slices[0]
    with pytest.raises(ProtocolError, match="cut through its rows"):
        ids_of(slice_, np.empty(0, np.uint8))


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([3], "for 3 rows"),
        ([-1], "from -1"),
        ([1, 1], "do not ascend"),
        ([2, 0], "do not ascend"),
        ([0, 2**62], "for 3 rows"),
        ([-(2**63), 2], "for 3 rows"),
    ],
)
def test_ids_that_are_not_the_slices_are_refused(ids, text):
    slice_ = key_of((HEIGHT, WIDTH)).slices[0]
    ids = np.array(ids, np.int64)
    with pytest.raises(ProtocolError, match=text):
        ids_of(slice_, as_bytes(ids))
    with pytest.raises(ProtocolError, match=text):
        rows_of(slice_, encoded(Rows(ids, np.zeros((ids.size, WIDTH), "float32"))))


@pytest.mark.parametrize("nbytes", [1, 12, 19, 21])
def test_payloads_of_a_wrong_size_are_refused(nbytes):
    slice_ = key_of((HEIGHT, WIDTH)).slices[0]
    with pytest.raises(ProtocolError, match=f"{nbytes} bytes"):
        rows_of(slice_, np.zeros(nbytes, np.uint8))
    with pytest.raises(ProtocolError, match=f"{nbytes} bytes"):
        ids_of(slice_, np.zeros(nbytes, np.uint8))
