"""One value of many: right, of the same kind, and the same to the bit on all workers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baryon.ps import UsageError
from baryon.worker.reduction import OPS, reduce


def over(op, *values):
    """What each worker gets, which must be the same for all."""
    by_rank = dict(enumerate(values))
    first, *others = [reduce(by_rank, op, rank) for rank in by_rank]
    for other in others:
        np.testing.assert_equal(other, first)
    return first


@pytest.mark.parametrize(
    ("op", "expected"), [("sum", 10), ("mean", 10 / 3), ("max", 7), ("min", 1)]
)
@pytest.mark.parametrize("kind", [int, float, np.int64, np.float64, np.array])
def test_each_operation_on_each_kind(op, expected, kind):
    values = [1, 2, 7] if kind in (int, float, np.int64, np.float64) else [[1], [2], [7]]
    result = reduce({rank: kind(value) for rank, value in enumerate(values)}, op, 1)
    number = np.asarray(result).item()
    assert number == pytest.approx(expected, rel=1e-6)
    of_means = {int: float, np.int64: np.float64}
    assert type(result) is (
        of_means.get(kind) if op == "mean" and kind in of_means else type(kind(values[0]))
    )


def test_integers_are_exact_and_a_number_of_true_is_one():
    assert over("sum", 1 << 80, 1, -(1 << 80)) == 1
    assert over("sum", True, False, True) == 2
    assert over("max", True, False) is True


def test_python_and_numpy_numbers_may_meet():
    """A worker without data still has the 0 that it began with."""
    result = over("sum", 0, np.float32(0.5), 1.25)
    assert (type(result), result) == (float, 1.75)


@pytest.mark.parametrize("op", ["max", "min", "sum", "mean"])
def test_what_is_not_a_number_is_not_lost(op):
    for values in ([1.0, float("nan")], [float("nan"), 1.0]):
        assert np.isnan(over(op, *values))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=5))
def test_floats_are_added_in_rank_order_in_float64(values):
    expected = np.float64(values[0])
    for value in values[1:]:
        expected = expected + np.float64(value)
    assert over("sum", *values) == expected
    arrays = [np.array([value], np.float32) for value in values]
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(over("sum", *arrays), np.float32([expected]))


def test_small_parts_of_float16_are_not_lost():
    parts = [np.full(3, 1024, "float16"), *[np.full(3, 0.25, "float16")] * 8]
    assert over("sum", *parts).tolist() == [1026] * 3
    assert over("sum", *parts).dtype == np.float16


def test_dtypes_and_shapes_stay():
    assert over("sum", np.uint8([1]), np.uint8([2])).dtype == np.uint8
    assert over("mean", np.uint8([1]), np.uint8([2])).tolist() == [1.5]
    assert over("sum", np.array([True, False]), np.array([True, True])).tolist() == [2, 1]
    assert over("sum", np.zeros((0, 2)), np.zeros((0, 2))).shape == (0, 2)
    assert over("sum", np.array(1.5), np.array(2.0)).shape == ()


def test_structures_are_gone_through():
    values = [{"loss": [r, (r * 0.5, np.array([r]))], "n": 10 * r} for r in (1, 2)]
    assert over("sum", *values) == {"loss": [3, (1.5, np.array([3]))], "n": 30}
    assert over("max", {"a": 1, "b": 2}, {"b": 3, "a": 0}) == {"a": 1, "b": 3}
    assert over("sum", [], []) == []


@pytest.mark.parametrize("op", OPS)
def test_the_values_given_stay_as_they_were(op):
    for own in (np.ones(2), np.float64([3])):
        result = reduce({0: own}, op, 0)
        result += 5
        assert np.unique(own) < 5


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (1, "1", "allreduce takes numbers, .*; value is a str"),
        ([1, None], [1, 2], r"value\[1\] is a NoneType"),
        ({1}, {1}, "is a set"),
        ([1], [1, 2], "at value, worker 1 has a list of 2, but worker 0 has a list of 1"),
        ([1], (1,), "a tuple of 1, but worker 0 has a list of 1"),
        ({"a": [1]}, {"b": [1]}, "worker 1 has a dict of 'b', but worker 0 has a dict of 'a'"),
        ({"a": [np.ones(2)]}, {"a": [np.ones(3)]}, r"at value\['a'\]\[0\], .* float64\(3,\)"),
        (np.ones(2, "f4"), np.ones(2), r"float64\(2,\), but .* float32\(2,\)"),
        (np.ones(1), 1.0, "a number, but worker 0 has a numpy.ndarray"),
    ],
)
def test_values_that_do_not_fit_are_named_with_their_workers(one, other, words):
    with pytest.raises(UsageError, match=words):
        reduce({0: one, 1: other}, "sum", 0)
