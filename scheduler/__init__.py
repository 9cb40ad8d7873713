"""One scheduler per job, one agent per host, and the control plane between them and the tasks.

Imports `baryon.ps` and no other sibling.
"""

from .addresses import own_address
from .agent import agent_argv
from .client import ControlClient
from .cluster import Cluster
from .credentials import TASK_VARIABLE, AgentConfig, Credentials, read_credentials
from .job import KVSTORE_TYPES, Host, Job, Task, place
from .loop import run

__all__ = [
    "KVSTORE_TYPES",
    "TASK_VARIABLE",
    "AgentConfig",
    "Cluster",
    "ControlClient",
    "Credentials",
    "Host",
    "Job",
    "Task",
    "agent_argv",
    "own_address",
    "place",
    "read_credentials",
    "run",
]
