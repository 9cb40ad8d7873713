"""Values as bytes and back: the same, of the same types, and nothing else gets through."""

import math
import pickle
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from baryon.ps import ProtocolError, UsageError
from baryon.worker.values import decode, encode

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(max_size=20)
)
DTYPES = st.one_of(
    stn.boolean_dtypes(), stn.integer_dtypes(), stn.unsigned_integer_dtypes(),
    stn.floating_dtypes(), stn.complex_number_dtypes(),
)  # fmt: skip
ARRAYS = DTYPES.flatmap(lambda dtype: stn.arrays(dtype, stn.array_shapes(min_dims=0, min_side=0)))
KEYS = st.recursive(SCALARS, lambda inner: st.tuples(inner, inner), max_leaves=3)
VALUES = st.recursive(
    st.one_of(SCALARS, ARRAYS, DTYPES.flatmap(stn.from_dtype)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.sets(KEYS, max_size=4),
        st.dictionaries(KEYS, inner, max_size=4),
    ),
    max_leaves=8,
)


def same(a, b):
    """Equal also in every type, in the order of keys, and where there are NaNs."""
    if isinstance(a, (np.ndarray, np.generic)):
        return (
            type(a) is type(b)
            and a.dtype == b.dtype.newbyteorder(a.dtype.byteorder)
            and a.shape == b.shape
            and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
        )
    if type(a) is not type(b):
        return False
    if type(a) is dict:
        return same(list(a), list(b)) and same(list(a.values()), list(b.values()))
    if type(a) in (list, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if type(a) is set:
        return len(a) == len(b) and sorted(map(repr, a)) == sorted(map(repr, b))
    return a == b or (type(a) is float and math.isnan(a) and math.isnan(b))


@given(VALUES)
def test_plain_data_comes_back_as_it_was(value):
    assert same(decode(encode(value)), value)


def test_types_that_are_alike_are_not_mixed_up():
    assert not same(True, 1)
    assert not same((1, 2), [1, 2])
    value = [True, 1, 1.0, "1", b"1", (1,), [1], {1}, {1: 1}, np.int64(1), np.array(1)]
    assert same(decode(encode(value)), value)


def test_arrays_that_come_back_can_be_written_to():
    back = decode(encode(np.zeros(3)))
    back += 1
    assert back.tolist() == [1, 1, 1]


def test_an_array_of_another_byte_order_or_layout_is_the_same_array():
    array = np.arange(6, dtype=">i4").reshape(2, 3).T
    back = decode(encode(array))
    assert back.dtype == np.dtype("<i4")
    np.testing.assert_array_equal(back, array)


class Mine:
    pass


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Mine(), "Mine"),
        ([0, {"a": (Mine(),)}], r"Mine \(at \[1\]\['a'\]\[0\]\)"),
        ({("a", frozenset()): 1}, r"frozenset \(at , key"),
        (OrderedDict(), "collections.OrderedDict"),
        (1j, "complex"),
        (bytearray(), "bytearray"),
        (range(3), "range"),
        (np.array([Mine()]), "dtype is object"),
        (np.array(["text"]), "dtype is <U4"),
        (np.zeros(2, "f4,i4"), "dtype is"),
        (np.ma.zeros(2), "MaskedArray"),
        ("\ud800", "not Unicode"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_plain_data_is_named(value, words):
    with pytest.raises(UsageError, match=words):
        encode(value)


def test_a_list_in_itself_is_an_error():
    value = []
    value.append(value)
    with pytest.raises(UsageError, match="contains itself"):
        encode(value)


# -- bytes that are not ours ------------------------------------------------------------------


@given(st.binary(max_size=64))
def test_no_bytes_do_worse_than_a_protocol_error(data):
    try:
        decode(data)
    except ProtocolError:
        pass


EXAMPLE = encode([1 << 80, {"a": np.arange(3)}, (np.ones(2), {1, 2}), np.float32(1)])


@given(place=st.integers(0, len(EXAMPLE) - 1), byte=st.integers(0, 255))
def test_no_damaged_value_does_worse_either(place, byte):
    data = bytearray(EXAMPLE)
    data[place] = byte
    try:
        decode(bytes(data))
    except ProtocolError:
        pass


def test_a_pickle_is_not_read():
    with pytest.raises(ProtocolError, match="malformed"):
        decode(pickle.dumps([1, 2]))


@pytest.mark.parametrize(
    "message",
    [
        b"\x93\xa5items\xa4dict\x91\x01",  # a key without a value
        b"\x93\xa5items\xa3set\x91\x93\xa5items\xa4list\x90",  # a list in a set
        b"\x93\xa5items\xa6object\x90",
        b"\x95\xa5array\xa5numpy\xa3|O8\x91\x01\xc4\x0812345678",  # a pointer
        b"\x95\xa5array\xa5numpy\xa3<f8\x91\x02\xc4\x0812345678",  # too short
        b"\x95\xa5array\xa5torch\xa3<f8\x91\x01\xc4\x0812345678",
    ],
)
def test_messages_that_make_no_sense_are_errors(message):
    with pytest.raises(ProtocolError, match="malformed"):
        decode(b"\x92\xa5value" + message)
