"""One scheduler per job, one agent per host, and the control plane between them and the tasks.

Imports `baryon.ps` and no other sibling. What needs NumPy is imported when it is first asked for:
launch.py and the agents do not.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .addresses import own_address
from .agent import agent_argv, config_name
from .client import ControlClient
from .cluster import Cluster, Trouble
from .console import terminal_sizes
from .credentials import TASK_VARIABLE, AgentConfig, Credentials, read_credentials
from .job import KVSTORE_TYPES, Group, Host, Job, Task, place
from .loop import Outcome, run
from .messages import MAX_VALUE_NBYTES, Position
from .questions import ask, listen

if TYPE_CHECKING:
    from .data_plane import client_of

__all__ = [
    "KVSTORE_TYPES",
    "MAX_VALUE_NBYTES",
    "TASK_VARIABLE",
    "AgentConfig",
    "Cluster",
    "ControlClient",
    "Credentials",
    "Group",
    "Host",
    "Job",
    "Outcome",
    "Position",
    "Task",
    "Trouble",
    "agent_argv",
    "ask",
    "client_of",
    "config_name",
    "listen",
    "own_address",
    "place",
    "read_credentials",
    "run",
    "terminal_sizes",
]


def __getattr__(name: str) -> Any:  # PEP 562
    if name != "client_of":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(".data_plane", __name__).client_of
