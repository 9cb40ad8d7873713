"""MXNet's arrays as values that workers give each other: they come back as they were."""

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baryon.ps import ProtocolError, UsageError
from baryon.worker.mxnet import arrays
from baryon.worker.reduction import OPS, reduce
from baryon.worker.values import decode, encode

arrays.register()


def same(a, b):
    return type(a) is type(b) and a.dtype == b.dtype and np.array_equal(a.asnumpy(), b.asnumpy())


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", "int32", "int64"])
def test_mxnet_arrays_come_back_as_such(dtype):
    array = mx.nd.array([[1, 2, 3], [4, 5, 6]], dtype=dtype)
    back = decode(encode({"w": array.T}))["w"]
    assert type(back) is mx.nd.NDArray
    assert same(back, array.T)


@pytest.mark.parametrize("shape", [(2, 3), (0, 2), ()])
def test_so_do_those_of_its_numpy_interface(shape):
    with mx.util.np_shape(True):
        array = mx.np.full(shape, 7.5, dtype="float64")
        back = decode(encode(array))
        assert type(back) is mx.np.ndarray
        assert same(back, array)


def test_a_sparse_array_is_refused_with_the_remedy():
    with pytest.raises(UsageError, match=r"tostype\('default'\)"):
        encode(mx.nd.zeros((2, 2)).tostype("row_sparse"))


EXAMPLE = encode([1 << 80, {"a": mx.np.ones(3)}, (mx.nd.ones(2), {1, 2}), np.float32(1)])


@given(place=st.integers(0, len(EXAMPLE) - 1), byte=st.integers(0, 255))
def test_no_damaged_value_does_worse_than_a_protocol_error(place, byte):
    data = bytearray(EXAMPLE)
    data[place] = byte
    try:
        decode(bytes(data))
    except ProtocolError:
        pass


# -- reductions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "expected"), [("sum", 10), ("mean", 10 / 3), ("max", 7), ("min", 1)]
)
def test_each_operation(op, expected):
    result = reduce({rank: mx.nd.array([value]) for rank, value in enumerate((1, 2, 7))}, op, 1)
    assert type(result) is mx.nd.NDArray
    assert result.asscalar() == pytest.approx(expected, rel=1e-6)


def test_dtypes_shapes_and_contexts_stay():
    given = [mx.nd.full((2, 3), rank, ctx=mx.cpu(1), dtype="float64") for rank in range(3)]
    result = over_nd = reduce(dict(enumerate(given)), "sum", 2)
    assert type(over_nd) is mx.nd.NDArray
    assert (result.context, result.dtype, result.shape) == (mx.cpu(1), np.float64, (2, 3))
    assert (result.asnumpy() == 3).all()


def test_arrays_of_mxnets_numpy_interface_stay_such():
    result = reduce({0: mx.np.ones((2,)), 1: mx.np.ones((2,))}, "sum", 0)
    assert type(result) is mx.np.ndarray
    assert result.asnumpy().tolist() == [2, 2]


@pytest.mark.parametrize("op", OPS)
def test_the_values_given_stay_as_they_were(op):
    own = mx.nd.ones(2)
    result = reduce({0: own}, op, 0)
    result += 5
    assert np.unique(own.asnumpy()) < 5


def test_an_array_of_another_library_is_named():
    with pytest.raises(UsageError, match="NDArray float32"):
        reduce({0: np.ones(2, "f4"), 1: mx.nd.ones(2)}, "sum", 0)
