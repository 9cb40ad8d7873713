"""The notices of a job that goes well: its begin, what it waits for, and its end. Pure."""

import shlex
from typing import List

from .control import Job

__all__ = ["begun", "ended", "listed", "waiting"]

_MAX_NAMES = 4
_MAX_COMMAND = 60  # characters


def begun(job: Job) -> str:
    """What runs, where, and where the logs are."""
    command = shlex.join(job.command)
    if len(command) > _MAX_COMMAND:
        command = f"{command[: _MAX_COMMAND - 3]}..."
    used = sorted({task.host for task in job.tasks})
    hosts = [job.hosts[host] for host in used]
    if any(host.is_allotted for host in hosts):
        where = f"{len(hosts)} host{'s' * (len(hosts) > 1)} of {job.launcher}"
    else:
        where = listed([host.name for host in hosts])
    tasks = ", ".join(
        f"{count} {role}{'s' * (count > 1)}"
        for role in ("worker", "server")
        for count in [len(job.of_role(role))]
        if count
    )
    return f"job {job.id}: {command} as {tasks} on {where}; logs are in {job.log_dir}"


def waiting(starters: List[str], workers: List[str]) -> str:
    """``starters`` are agents and servers that are late; ``workers`` have not made a store yet."""
    parts = [f"for {listed(starters)} to start"] if starters else []
    if workers:
        parts.append(f"for {listed(workers)} to create a dist kvstore")
    return f"waiting {' and '.join(parts)}"


def ended(job: Job, exit_code: int, seconds: float) -> str:
    """How the job ended; ``exit_code`` is 0 or the user's signal."""
    workers = job.num_workers
    how = "stopped" if exit_code else f"{workers} worker{'s' * (workers > 1)} ended well"
    return f"{how} after {seconds:.1f} s; logs are in {job.log_dir}"


def listed(names: List[str]) -> str:
    """The names, or the first few of them and how many more there are."""
    if len(names) <= _MAX_NAMES:
        return ", ".join(names)
    return f"{', '.join(names[: _MAX_NAMES - 1])} and {len(names) - _MAX_NAMES + 1} more"
