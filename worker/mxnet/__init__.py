"""MXNet's side of a worker, and MXNet's optimizers on a server. Only this folder imports MXNet.

Importing the package makes NumPy fit for MXNet, so that the modules in it can import MXNet. It does
not import MXNet itself: the start-up hook needs the package before that.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .compat import install

if TYPE_CHECKING:
    from .kvstore import create

__all__ = ["create"]

install()  # outside a job, nothing else does


def __getattr__(name: str) -> Any:  # PEP 562
    if name != "create":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(".kvstore", __name__).create
