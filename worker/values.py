"""Plain data as bytes and back, for values that workers give each other. Pure.

``encode`` takes None, bool, int, float, str, bytes, list, tuple, dict, set, NumPy's numeric arrays
and scalars, dense arrays of a framework that has registered them (`register_arrays`), and any
nesting of these. ``decode`` gives the same types back. The bytes are MessagePack. Decoding makes
objects of these types only: nothing is ever unpickled.

In the bytes None, bool, float, str and integers of up to 64 bits are themselves. Everything else is
one of the messages below, so that a tuple does not come back as a list. msgspec's own hooks cannot
do that: they see only types that msgspec does not know, and it writes a tuple or a set as a list.
"""

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple, Union

import numpy as np

from baryon.ps import Codec, Message, ProtocolError, UsageError

__all__ = ["Arrays", "decode", "encode", "is_array", "like", "numpy_of", "register_arrays"]

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
    """``kind``: "numpy", "scalar" (NumPy's), or the name of registered `Arrays`.

    ``dtype`` is a numeric one, as in NumPy's array protocol (``<f4``); ``data`` is in C order.
    """

    kind: str
    dtype: str
    shape: Tuple[int, ...]
    data: bytes


Value = Union[None, bool, int, float, str, Bytes, BigInt, Items, Array]


class _Root(Message, frozen=True, tag="value"):
    value: Value


class Arrays(NamedTuple):
    """A framework's arrays; ``name`` stands for them in the bytes.

    ``to_numpy(array)`` raises ValueError, with the remedy, for an array that is not dense.
    ``from_numpy(array, model)`` makes an array where ``model`` is, or on the framework's current
    device if that is None; it raises ValueError for what the framework does not have.
    """

    name: str
    kind: type
    to_numpy: Callable[[Any], np.ndarray]
    from_numpy: Callable[[np.ndarray, Optional[Any]], Any]


_CODEC = Codec((_Root,))
_registered: Dict[str, Arrays] = {}
_CONTAINERS = {"list": list, "tuple": tuple, "set": set}


def register_arrays(arrays: Arrays) -> None:
    """Have a framework's arrays encoded; a subclass's come before those of its base."""
    _registered[arrays.name] = arrays


def encode(value: Any) -> bytes:
    """Raises UsageError for what is not plain data, with its place in ``value``."""
    try:
        return _CODEC.encode(_Root(_pack(value, "")))
    except RecursionError:
        raise UsageError("the value is nested too deeply, or contains itself") from None
    except UnicodeEncodeError as error:
        raise UsageError(f"the value contains a text that is not Unicode: {error}") from error


def decode(data: bytes) -> Any:
    """Raises ProtocolError for what `encode` does not make."""
    try:
        return _unpack(_CODEC.decode(data).value)
    except (TypeError, ValueError, KeyError, RecursionError) as error:
        raise ProtocolError(f"malformed value of {len(data)} bytes: {error}") from error


def is_array(value: Any) -> bool:
    """Whether ``value`` is an array of NumPy or of a framework, or a NumPy scalar."""
    return isinstance(value, (np.ndarray, np.generic)) or _arrays_of(value) is not None


def numpy_of(array: Any) -> np.ndarray:
    """What `is_array` as a NumPy array."""
    arrays = _arrays_of(array)
    return np.asarray(array) if arrays is None else arrays.to_numpy(array)


def like(array: np.ndarray, model: Any) -> Any:
    """A NumPy array as the kind of array that ``model`` is, and on its device."""
    arrays = _arrays_of(model)
    if arrays is not None:
        return arrays.from_numpy(array, model)
    return array[()] if isinstance(model, np.generic) else array


def _arrays_of(value: Any) -> Optional[Arrays]:
    return next((a for a in _registered.values() if isinstance(value, a.kind)), None)


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
    arrays = _arrays_of(value)
    if arrays is not None:
        kind = arrays.name
    elif isinstance(value, np.generic):
        kind = "scalar"
    elif type(value) is np.ndarray:
        kind = "numpy"
    else:
        raise _refused(
            value, where, "make it of None, numbers, str, bytes, list, tuple, dict, set and arrays"
        )
    try:
        array = numpy_of(value)
    except ValueError as error:
        raise _refused(value, where, str(error)) from None
    dtype = array.dtype.newbyteorder("=")
    if dtype.str not in _DTYPES:
        raise _refused(value, where, f"its dtype is {dtype}; use a numeric dtype, or a list")
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
    return _registered[value.kind].from_numpy(array, None)
