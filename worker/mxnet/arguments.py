"""Keys and arrays as a script passes them to a store, checked. Pure."""

from typing import Any, Dict, Iterator, List, Tuple, Union

import mxnet as mx
import numpy as np

from baryon.ps import Key, UsageError

__all__ = ["KeyName", "first_values", "fitting", "is_sparse", "pairs"]

KeyName = Union[int, str]


def is_sparse(array: Any) -> bool:
    """Whether an array is row-sparse."""
    return isinstance(array, mx.nd.sparse.RowSparseNDArray)


def pairs(key: Any, value: Any) -> List[Tuple[KeyName, List[Any]]]:
    """(key, arrays) for a key and its array or arrays, or for lists of both.

    If a key is named twice, its arrays are merged into one entry, as in MXNet.
    """
    if isinstance(key, (tuple, list)):
        if not isinstance(value, (tuple, list)) or len(key) != len(value):
            count = len(value) if isinstance(value, (tuple, list)) else 1
            raise UsageError(f"{len(key)} keys need as many values, not {count}")
        grouped: Dict[KeyName, List[Any]] = {}
        for one, values in zip(key, value):
            for name, arrays in pairs(one, values):
                grouped.setdefault(name, []).extend(arrays)
        return list(grouped.items())
    if isinstance(key, bool) or not isinstance(key, (int, str)):
        raise UsageError(f"a key is an int or a string, not {key!r}")
    arrays = list(value) if isinstance(value, (tuple, list)) else [value]
    if not arrays:
        raise UsageError(f"key {key!r} comes with no array")
    return [(key, arrays)]


def first_values(key: Any, value: Any) -> Iterator[Tuple[KeyName, Any]]:
    """(key, array) for each key to initialise; raises UsageError for a key that is named twice."""
    names = list(key) if isinstance(key, (tuple, list)) else [key]
    twice = sorted({repr(name) for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"init names {', '.join(twice)} twice; initialise each key once")
    for name, arrays in pairs(key, value):
        yield name, arrays[0] if is_sparse(arrays[0]) else _dense(name, arrays)[0]


def fitting(key: Key, arrays: List[Any], is_cast: bool = False) -> List[Any]:
    """``arrays`` as plain NDArrays. Raises UsageError unless all are dense and have the key's shape
    and dtype; with ``is_cast``, the key's value is cast to them, and they may have any dtype."""
    arrays = _dense(key.name, arrays)
    for array in arrays:
        is_alike = is_cast or np.dtype(array.dtype) == key.dtype
        if array.shape != key.shape or not is_alike:
            raise UsageError(
                f"key {key.name!r} is {key.dtype.name}{key.shape}, "
                f"but the array given is {np.dtype(array.dtype).name}{array.shape}"
            )
    return arrays


def _dense(name: KeyName, arrays: List[Any]) -> List[Any]:
    """``arrays`` as plain NDArrays; raises UsageError unless each is a dense NDArray."""
    for array in arrays:
        if not isinstance(array, mx.nd.NDArray):
            raise UsageError(f"key {name!r} comes with a {type(array).__name__}, not an NDArray")
        if array.stype != "default":
            raise UsageError(
                f"key {name!r} comes with a {array.stype} array; its arrays are all dense or "
                "all row_sparse"
            )
    return [a.as_nd_ndarray() if isinstance(a, mx.np.ndarray) else a for a in arrays]
