"""Plain data as bytes and back, for values that workers give each other.

``encode`` takes None, bool, int, float, str, bytes, list, tuple, dict, set, NumPy arrays and
scalars of numbers, MXNet's dense arrays, and all of these in one another; ``decode`` gives the same
types back. The bytes are MessagePack, and decoding them makes objects of these types only: nothing
is ever unpickled.

In the bytes None, bool, float, str and integers of up to 64 bits are themselves; everything else is
one of the messages below, so that a tuple does not come back as a list.
"""

import contextlib
from typing import Any, List, Optional, Tuple, Union

import mxnet as mx
import numpy as np

from baryon.ps import Codec, Message, ProtocolError, UsageError

__all__ = ["decode", "encode", "numpy_of", "like"]

_INT64, _UINT64 = -(1 << 63), (1 << 64) - 1
_DTYPES = {
    np.dtype(code).str: np.dtype(np.dtype(code).str)
    for code in "?" + np.typecodes["AllInteger"] + np.typecodes["AllFloat"]
}


class Bytes(Message, frozen=True, tag="bytes"):
    data: bytes


class BigInt(Message, frozen=True, tag="int"):
    """An integer of more than 64 bits, signed, little-endian."""

    data: bytes


class Items(Message, frozen=True, tag="items"):
    """A container, by the name of its type; of a dict all keys and then all values."""

    kind: str
    items: List["Value"]


class Array(Message, frozen=True, tag="array"):
    """``kind``: "numpy", "scalar" (NumPy's), "nd" or "np" (MXNet's two kinds).

    ``dtype`` is one of numbers, as in NumPy's array protocol (``<f4``); ``data`` is in C order.
    """

    kind: str
    dtype: str
    shape: Tuple[int, ...]
    data: bytes


Value = Union[None, bool, int, float, str, Bytes, BigInt, Items, Array]


class _Root(Message, frozen=True, tag="value"):
    value: Value


_CODEC = Codec((_Root,))
_CONTAINERS = {"list": list, "tuple": tuple, "set": set}


def encode(value: Any) -> bytes:
    """Raises UsageError, with where in ``value`` it is, for what is not plain data."""
    try:
        return _CODEC.encode(_Root(_pack(value, "")))
    except RecursionError:
        raise UsageError("the value is nested too deeply, or contains itself") from None
    except UnicodeEncodeError as error:
        raise UsageError(f"the value contains a text that is not Unicode: {error}") from error


def decode(data: bytes) -> Any:
    """Raises ProtocolError for what `encode` does not make. MXNet's arrays are made on the current
    context."""
    try:
        return _unpack(_CODEC.decode(data).value)
    except (TypeError, ValueError, KeyError, RecursionError, mx.MXNetError) as error:
        raise ProtocolError(f"malformed value of {len(data)} bytes: {error}") from error


def numpy_of(array: Any) -> Any:
    """A NumPy or MXNet array, or a NumPy scalar, as a NumPy array."""
    return array.asnumpy() if isinstance(array, mx.nd.NDArray) else np.asarray(array)


def like(array: Any, model: Any) -> Any:
    """A NumPy array as whatever ``model`` is: in kind and context, not in dtype or shape."""
    if isinstance(model, mx.nd.NDArray):
        return _mxnet_array(array, isinstance(model, mx.np.ndarray), model.context)
    return array[()] if isinstance(model, np.generic) else array


# -- to messages ------------------------------------------------------------------------------


def _pack(value: Any, where: str) -> Value:
    kind = type(value)
    if value is None or kind in (bool, float, str):
        return value
    if kind is bytes:
        return Bytes(value)
    if kind is int:
        return value if _INT64 <= value <= _UINT64 else BigInt(_bytes_of(value))
    if kind is dict:
        keys = [_pack(key, f"{where}, key {key!r}") for key in value]
        items = [_pack(item, f"{where}[{key!r}]") for key, item in value.items()]
        return Items("dict", keys + items)
    if kind.__name__ in _CONTAINERS and kind is _CONTAINERS[kind.__name__]:
        return Items(kind.__name__, [_pack(item, f"{where}[{i}]") for i, item in enumerate(value)])
    return _pack_array(value, where)


def _bytes_of(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


def _pack_array(value: Any, where: str) -> Array:
    if isinstance(value, mx.nd.NDArray):
        if value.stype != "default":
            raise _refused(value, where, f"it is {value.stype}; use .tostype('default')")
        kind = "np" if isinstance(value, mx.np.ndarray) else "nd"
    elif isinstance(value, np.generic):
        kind = "scalar"
    elif type(value) is np.ndarray:
        kind = "numpy"
    else:
        raise _refused(
            value, where, "make it of None, numbers, str, bytes, list, tuple, dict, set and arrays"
        )
    array = numpy_of(value)
    dtype = array.dtype.newbyteorder("=")
    if dtype.str not in _DTYPES:
        raise _refused(value, where, f"its dtype is {dtype}; use one of numbers, or a list")
    return Array(kind, dtype.str, array.shape, array.astype(dtype, copy=False).tobytes())


def _refused(value: Any, where: str, remedy: str) -> UsageError:
    at = f" (at {where})" if where else ""
    return UsageError(f"a {_name(value)}{at} cannot be given to other workers: {remedy}")


def _name(value: Any) -> str:
    kind = type(value)
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


# -- from messages ----------------------------------------------------------------------------


def _unpack(value: Value) -> Any:
    if isinstance(value, Bytes):
        return value.data
    if isinstance(value, BigInt):
        return int.from_bytes(value.data, "little", signed=True)
    if isinstance(value, Array):
        return _unpack_array(value)
    if not isinstance(value, Items):
        return value
    items = [_unpack(item) for item in value.items]
    if value.kind == "dict":
        half, odd = divmod(len(items), 2)
        if odd:
            raise ValueError("a key without a value")
        return dict(zip(items[:half], items[half:]))
    return _CONTAINERS[value.kind](items)


def _unpack_array(value: Array) -> Any:
    array = np.frombuffer(value.data, _DTYPES[value.dtype]).reshape(value.shape).copy()
    if value.kind == "scalar":
        return array[()]
    if value.kind == "numpy":
        return array
    if value.kind in ("nd", "np"):
        return _mxnet_array(array, value.kind == "np", None)
    raise ValueError(f"an array of kind {value.kind!r}")


def _mxnet_array(array: Any, is_np: bool, context: Optional[Any]) -> Any:
    """Its NumPy interface alone has arrays without dimensions or elements."""
    with mx.util.np_shape(True) if is_np else contextlib.nullcontext():
        create = mx.np.array if is_np else mx.nd.array
        return create(array, dtype=array.dtype, ctx=context)
