"""How agents are started, one module each, named as ``--launcher`` names them.

Each has a function ``prepare``, which makes everything ready and returns the job, as it is then
known, with a baryon.scheduler.Cluster to run it on. Those of `MANAGERS` choose the hosts
themselves (mpi may be told them), and have two more: ``preview`` and ``allocated_hosts``.
"""

import importlib
from types import ModuleType
from typing import Callable, Mapping, Tuple

from baryon.scheduler import Cluster
from baryon.scheduler.control import Job

from ..flags import MANAGERS, Options

__all__ = ["allocated_hosts", "finish", "prepare", "preview"]


def prepare(job: Job, options: Options, say: Callable[[str], None]) -> Tuple[Job, Cluster]:
    """Make ready what ``job.launcher`` needs; ``say`` tells the user something.

    Raises BaryonError, in a line for each thing that is wrong, if the job cannot begin.
    """
    prepared: Tuple[Job, Cluster] = _module(job.launcher).prepare(job, options, say)
    return prepared


def finish(job: Job, options: Options, cluster: Cluster, say: Callable[[str], None]) -> bool:
    """Do what is left when the job is over; whether that went well, and if not, it is said."""
    return job.launcher != "ssh" or bool(_module("ssh").finish(job, options, cluster, say))


def preview(job: Job, options: Options) -> str:
    """What would be given to a cluster manager, for people; empty if there is none.

    Raises UsageError if that cannot be made.
    """
    return str(_module(job.launcher).preview(job, options)) if job.launcher in MANAGERS else ""


def allocated_hosts(manager: str, environ: Mapping[str, str]) -> int:
    """How many hosts this process has from a manager already; 0 outside an allocation."""
    return int(_module(manager).allocated_hosts(environ))


def _module(name: str) -> ModuleType:
    return importlib.import_module(f".{name}", __name__)  # and no other's libraries
