"""What MXNet 1.9.1 needs from us: names that newer NumPys lack, and arrays over our own memory.

NumPy 1.24 removed its aliases of Python's own types, and later versions removed more; no older
NumPy works on Python 3.12. `install` puts the missing names back before MXNet is imported. NumPy 2
removed too much for this to be enough.
"""

import importlib
import warnings
from typing import Any

import numpy as np

from baryon.ps import UsageError

__all__ = ["array_over", "import_mxnet", "install"]

_TYPES = {
    "bool": bool,
    "int": int,
    "float": float,
    "object": object,
    "str": str,
    "complex": complex,
}
_RENAMED = {
    "bool8": "bool_",
    "NaN": "nan",
    "NAN": "nan",
    "Inf": "inf",
    "Infinity": "inf",
    "infty": "inf",
    "PINF": "inf",
    "float_": "float64",
    "row_stack": "vstack",
    "in1d": "isin",
    "trapz": "trapezoid",
    "product": "prod",
    "cumproduct": "cumprod",
    "alltrue": "all",
    "sometrue": "any",
}
_VALUES = {"PZERO": 0.0, "NZERO": -0.0, "NINF": float("-inf")}


def install() -> None:
    """Put the missing names back; raises UsageError on NumPy 2."""
    if int(np.__version__.split(".")[0]) >= 2:
        raise UsageError(
            f"MXNet 1.9 does not work with NumPy {np.__version__}; run: pip install 'numpy<2'"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an alias that is only deprecated is there, and warns
        for name, value in {**_TYPES, **_VALUES}.items():
            if not hasattr(np, name):
                setattr(np, name, value)
        for name, target in _RENAMED.items():
            if not hasattr(np, name) and hasattr(np, target):
                setattr(np, name, getattr(np, target))
        if not hasattr(np, "msort"):
            setattr(np, "msort", lambda a: np.sort(a, axis=0))  # noqa: B010 - mypy: no such name


def import_mxnet() -> Any:
    """The mxnet module; works with every NumPy 1.x."""
    install()
    return importlib.import_module("mxnet")


def array_over(memory: np.ndarray) -> Any:
    """An NDArray on the CPU whose elements are ``memory``, a C-contiguous array, not copied.

    The NDArray keeps the memory alive. ``memory`` itself becomes read-only to NumPy; other views
    of the same bytes do not.
    """
    mx = import_mxnet()
    # MXNet reads and writes int8 like any other dtype, but its table of DLPack types lacks it:
    # (kDLInt, 8 bits, 1 lane) in dlpack.h.
    mx.nd.ndarray.DLDataType.TYPE_MAP.setdefault("int8", (0, 8, 1))
    return mx.nd.from_numpy(memory, zero_copy=True)
