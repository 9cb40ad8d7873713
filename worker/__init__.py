"""The code in the user's own process: start-up hook, session, and a framework's store.

Every Python below a worker imports this package, so importing it must cost next to nothing. MXNet's
part is imported on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import checkpoint
    from .mxnet.devices import devices

__all__ = ["checkpoint", "devices"]


def __getattr__(name: str) -> Any:  # PEP 562
    if name == "checkpoint":
        return importlib.import_module(".checkpoint", __name__)
    if name == "devices":
        return importlib.import_module(".mxnet.devices", __name__).devices
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
