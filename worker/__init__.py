"""What runs inside the user's own process: the start-up hook, the session, and a framework's store.

Importing this package costs next to nothing: every Python below a worker does it. MXNet's part is
imported when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .mxnet import checkpoint
    from .mxnet.devices import devices

__all__ = ["checkpoint", "devices"]


def __getattr__(name: str) -> Any:  # PEP 562
    if name == "checkpoint":
        return importlib.import_module(".mxnet.checkpoint", __name__)
    if name == "devices":
        return importlib.import_module(".mxnet.devices", __name__).devices
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
