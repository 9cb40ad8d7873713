"""What each task of a job is started with: argv, environment, credentials. Pure."""

from pathlib import Path
from typing import Dict, List

import msgspec

import baryon
from baryon.ps import KeyPair

from .credentials import Credentials
from .job import Job, Task
from .messages import StartTasks, TaskSpec

__all__ = ["python_argv", "start_tasks"]


def start_tasks(
    job: Job, host: int, endpoint: str, scheduler_key: str, keys: Dict[str, KeyPair]
) -> StartTasks:
    """The processes of one host; ``keys`` are those of all tasks, by slug."""
    workers = {keys[task.slug].public: task.rank for task in job.of_role("worker")}
    specs = []
    for task in job.tasks:
        if task.host != host:
            continue
        is_worker = task.role == "worker"
        credentials = Credentials(
            job=job.id,
            slug=task.slug,
            rank=task.rank,
            local_rank=task.local_rank,
            num_workers=job.num_workers,
            num_servers=job.num_servers,
            address=job.hosts[host].address,
            endpoint=endpoint,
            scheduler_key=scheduler_key,
            public_key=keys[task.slug].public,
            secret_key=keys[task.slug].secret,
            timeout_s=job.timeout_s,
            silence_s=job.silence_s,
            kvstore=job.kvstore,
            workers={} if is_worker else workers,
        )
        specs.append(
            TaskSpec(
                slug=task.slug,
                argv=tuple(_worker_argv(job) if is_worker else _server_argv(job)),
                cwd=job.cwd,
                env=worker_env(job, task) if is_worker else {**job.env, **job.env_server},
                python_path="worker/hook" if is_worker else "",
                credentials=msgspec.json.encode(credentials),
            )
        )
    return StartTasks(tuple(specs))


def worker_env(job: Job, task: Task) -> Dict[str, str]:
    """What a worker finds in its environment besides what its host gives it.

    The DMLC_* variables are those of MXNet's own launcher that scripts read. Those that would
    let MXNet's own store start (DMLC_PS_ROOT_URI, ...) are left out on purpose.
    """
    env = {
        "PYTHONUNBUFFERED": "1",  # or nothing is seen of a worker until it ends
        "DMLC_ROLE": "worker",
        "DMLC_NUM_WORKER": str(job.num_workers),
        "DMLC_NUM_SERVER": str(job.num_servers),
        "DMLC_WORKER_ID": str(task.rank),
        "BARYON_LOCAL_RANK": str(task.local_rank),
        "BARYON_DEVICES": str(job.devices),
    }
    if job.is_terminal:
        env["BARYON_TERMINAL"] = "1"  # a line ended by a carriage return is shown in place
    return {**env, **job.env, **job.env_worker}


def _worker_argv(job: Job) -> List[str]:
    return list(job.command)


def _server_argv(job: Job) -> List[str]:
    return python_argv(job.python, "baryon.scheduler.server_task")


def python_argv(python: str, module: str) -> List[str]:
    """The command that runs ``main()`` of a module of ours, installed there or not.

    ``sys.path`` begins with our own folder instead of the working directory, whose files could
    hide the standard library's.
    """
    home = str(Path(baryon.__file__).parent.parent)
    run = f"from {module} import main; sys.exit(main())"
    return [python, "-c", f"import sys; sys.path[:1] = [{home!r}]; {run}"]
