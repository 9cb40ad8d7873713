"""What scheduler, agents and tasks share: their messages, how these travel, and what a job is.

launch.py and the agents need no NumPy, so names that need it are imported at their first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from . import messages
from .addresses import own_address
from .client import ControlClient
from .credentials import (
    MEMORY_VARIABLE,
    TASK_VARIABLE,
    AgentConfig,
    Credentials,
    Parent,
    read_credentials,
)
from .delivery import Conversations, decode_envelope
from .job import KVSTORE_TYPES, Group, Host, Job, Task, place
from .labels import LABEL_BORDER, label_width
from .limits import raise_descriptor_limit
from .messages import MAX_VALUE_NBYTES, Position
from .uplink import Uplink

if TYPE_CHECKING:
    from .data_plane import client_of, host_memory_of, keys_of

__all__ = [
    "KVSTORE_TYPES",
    "LABEL_BORDER",
    "MAX_VALUE_NBYTES",
    "MEMORY_VARIABLE",
    "TASK_VARIABLE",
    "AgentConfig",
    "ControlClient",
    "Conversations",
    "Credentials",
    "Group",
    "Host",
    "Job",
    "Parent",
    "Position",
    "Task",
    "Uplink",
    "client_of",
    "decode_envelope",
    "host_memory_of",
    "keys_of",
    "label_width",
    "messages",
    "own_address",
    "place",
    "raise_descriptor_limit",
    "read_credentials",
]


def __getattr__(name: str) -> Any:  # PEP 562
    if name not in ("client_of", "host_memory_of", "keys_of"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(".data_plane", __name__), name)
