"""MXNet's arrays as values.py has to know them: those of its two interfaces."""

from typing import Any, Optional

import mxnet as mx
import numpy as np

from ..values import Arrays, register_arrays

__all__ = ["register"]


def register() -> None:
    """Let workers give each other MXNet's dense arrays; calling it again does nothing."""
    register_arrays(Arrays("np", mx.np.ndarray, _to_numpy, _from_numpy_as_np))
    register_arrays(Arrays("nd", mx.nd.NDArray, _to_numpy, _from_numpy))


def _to_numpy(array: Any) -> np.ndarray:
    if array.stype != "default":
        raise ValueError(f"it is {array.stype}; use .tostype('default')")
    found: np.ndarray = array.asnumpy()
    return found


def _from_numpy_as_np(array: np.ndarray, model: Optional[Any]) -> Any:
    with mx.util.np_shape(True):  # only this interface has arrays without dimensions or elements
        return _made(mx.np.array, array, model)


def _from_numpy(array: np.ndarray, model: Optional[Any]) -> Any:
    return _made(mx.nd.array, array, model)


def _made(create: Any, array: np.ndarray, model: Optional[Any]) -> Any:
    try:
        return create(array, dtype=array.dtype, ctx=None if model is None else model.context)
    except mx.MXNetError as error:
        raise ValueError(str(error)) from error
