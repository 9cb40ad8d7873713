"""The clusters: one module for each way to start agents. Modules have the names of ``--launcher``.

Each module has a function ``prepare``. It prepares everything, and returns the job, completed with
what it found out, and the baryon.scheduler.Cluster to run it on. The `MANAGERS` choose the hosts
themselves (except that mpi accepts -H). Their modules also have ``preview`` and
``allocated_hosts``.
"""

import importlib
from types import ModuleType
from typing import Callable, Mapping, Tuple

from baryon.scheduler import Cluster
from baryon.scheduler.control import Job

from ..flags import MANAGERS, Options

__all__ = ["allocated_hosts", "finish", "prepare", "preview"]


def prepare(job: Job, options: Options, say: Callable[[str], None]) -> Tuple[Job, Cluster]:
    """Prepare what ``job.launcher`` needs. ``say`` shows the user a message.

    Raises BaryonError with one line for each problem if the job cannot start.
    """
    prepared: Tuple[Job, Cluster] = _module(job.launcher).prepare(job, options, say)
    return prepared


def finish(job: Job, options: Options, cluster: Cluster, say: Callable[[str], None]) -> bool:
    """Finish up after the job. Returns whether that succeeded; if not, ``say`` got the reason."""
    return job.launcher != "ssh" or bool(_module("ssh").finish(job, options, cluster, say))


def preview(job: Job, options: Options) -> str:
    """The submission to a cluster manager, as text for people; empty without a manager.

    Raises UsageError if an option is wrong.
    """
    return str(_module(job.launcher).preview(job, options)) if job.launcher in MANAGERS else ""


def allocated_hosts(manager: str, environ: Mapping[str, str]) -> int:
    """The number of hosts in the allocation that this process runs in; 0 outside of one."""
    return int(_module(manager).allocated_hosts(environ))


def _module(name: str) -> ModuleType:
    return importlib.import_module(f".{name}", __name__)  # the others' libraries stay out
