"""The element types of keys, and how elements are added. Pure.

NumPy has no bfloat16. Arrays of such keys hold the elements' bits as uint16, which is the type of
no other key. A sum of two elements is computed in float32 and rounded to the nearest bfloat16, ties
to even; so a sum over several workers is rounded at each addition, as float16 is.

Rejected: ml_dtypes, which gives NumPy a real bfloat16. It is compiled for some versions of NumPy
(0.6 needs NumPy 2, and MXNet 1.9 does not work with that), while servers run on hosts with a NumPy
of their own. It adds 1 MiB in 0.8 ms, the code here in 1.0 to 1.4 ms.
"""

from typing import Optional

import numpy as np

__all__ = ["DTYPES", "add", "dtype_of", "name_of", "narrowed", "widened"]

DTYPES = ("float32", "float64", "float16", "bfloat16", "uint8", "int8", "int32", "int64")
_BFLOAT16 = np.dtype(np.uint16)  # its bits


def dtype_of(name: str) -> np.dtype:
    """The type of the arrays that hold elements of one of `DTYPES`."""
    return _BFLOAT16 if name == "bfloat16" else np.dtype(name)


def name_of(dtype: np.dtype) -> str:
    """The name that `dtype_of` takes."""
    return "bfloat16" if dtype == _BFLOAT16 else dtype.name


def add(one: np.ndarray, other: np.ndarray, out: Optional[np.ndarray] = None) -> np.ndarray:
    """The sum of two arrays of one dtype, written to ``out`` if given; ``out`` may be a term."""
    if one.dtype != _BFLOAT16:
        return np.add(one, other, out=out)
    with np.errstate(all="ignore"):  # as for float16: an overflow is an infinity
        total = narrowed(np.add(widened(one), widened(other)), one.dtype)
    if out is None:
        return total
    out[...] = total
    return out


def widened(array: np.ndarray) -> np.ndarray:
    """The elements of a bfloat16 array as float32, exactly; any other array as it is."""
    if array.dtype != _BFLOAT16:
        return array
    bits = array.astype(np.uint32)
    bits <<= 16
    return bits.view(np.float32)


def narrowed(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The inverse of `widened` for a result of type ``dtype``; rounds to nearest, ties to even.

    For bfloat16 ``array`` is overwritten, and a NaN in it must come from widened elements: its
    lower half is zero then, so that rounding does not carry.
    """
    if dtype != _BFLOAT16:
        return array
    bits = array.view(np.uint32)
    is_odd = (bits >> 16) & 1
    np.add(bits, is_odd + 0x7FFF, out=bits)
    return (bits >> 16).astype(np.uint16)
