"""One scheduler per job, one agent per host, and the control plane between them and the tasks.

The scheduler runs in the process of launch.py. Scheduler, agents and tasks share
`baryon.scheduler.control`. Tasks import only that, so the names here are imported at their first
use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cluster import Cluster, Trouble
    from .loop import Outcome, run
    from .observers import terminal_sizes
    from .questions import ask, listen

__all__ = ["Cluster", "Outcome", "Trouble", "ask", "listen", "run", "terminal_sizes"]

_LATER = {
    "Cluster": "cluster",
    "Outcome": "loop",
    "Trouble": "cluster",
    "ask": "questions",
    "listen": "questions",
    "run": "loop",
    "terminal_sizes": "observers",
}


def __getattr__(name: str) -> Any:  # PEP 562
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
