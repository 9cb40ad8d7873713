"""What a task's process is started with on this host: its argv and its environment. Pure."""

import os
import sys
from pathlib import Path
from typing import Dict, List, Mapping

import baryon

from ..control.messages import TaskSpec
from .command import python_argv

__all__ = ["argv_of", "environment_of", "role_of"]

_PACKAGE = Path(baryon.__file__).parent
_HOOK = _PACKAGE / "worker" / "hook"
# glibc's malloc gives big blocks back to the kernel when they are freed, and takes them anew, page
# by page, with the next message (mallopt(3)). With these it keeps them: TCP is twice as fast.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}


def role_of(slug: str) -> str:
    return slug.split("-")[0]


def argv_of(spec: TaskSpec) -> List[str]:
    if spec.runner == "server":
        return python_argv(sys.executable, "baryon.scheduler.server_task", str(_PACKAGE.parent))
    return [sys.executable, *spec.argv] if spec.runner == "python" else list(spec.argv)


def environment_of(
    spec: TaskSpec, inherited: Mapping[str, str], num_workers: int, num_cores: int
) -> Dict[str, str]:
    """The agent's own environment with the task's laid over it.

    ``num_workers`` share the ``num_cores`` of this host.
    """
    env = {**_MALLOC, **inherited, **spec.env}
    if role_of(spec.slug) == "worker":
        if num_workers > 1:
            # Each would otherwise use every core, and they would compete for them.
            env.setdefault("OMP_NUM_THREADS", str(max(1, num_cores // num_workers)))
        python_path = [str(_HOOK), env.get("PYTHONPATH", "")]
        env["PYTHONPATH"] = os.pathsep.join(filter(None, python_path))
    return env
