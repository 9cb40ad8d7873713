"""``--dry-run``: what would run where, as a table for people and as JSON for programs."""

import shlex
import sys

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from baryon.scheduler.control import Job, Task

__all__ = ["show"]


_WIDTH = 132  # of a table that goes into a file


def show(job: Job, preview: str = "", as_json: bool = False) -> None:
    """Print a table and ``preview``, or the job ``as_json``, to standard output."""
    if as_json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(job), indent=2) + b"\n")
        sys.stdout.flush()
        return
    table = Table(title=f"{job.launcher}: {job.num_workers} workers, {job.num_servers} servers")
    for column in ("host", "task", "devices", "command"):
        table.add_column(column, overflow="fold")
    argv = [job.python, *job.command] if job.is_script else job.command
    command = " ".join(shlex.quote(word) for word in argv)
    for index, host in enumerate(job.hosts):
        for task in (task for task in job.tasks if task.host == index):
            is_worker = task.role == "worker"
            devices = _devices(job, task) if is_worker else "-"
            what = "baryon's server"
            if task.parents:
                what += f" below {', '.join(map(str, task.parents))}"
            row = (host.name, task.name, devices, command if is_worker else what)
            table.add_row(*map(Text, row))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    console.print(table)
    sys.stdout.write(preview)
    sys.stdout.flush()


def _devices(job: Job, task: Task) -> str:
    first, gpus = task.local_rank * job.devices, job.hosts[task.host].gpus
    mine = ",".join(gpus[first : first + job.devices])
    return f"{job.devices} (GPU {mine})" if mine else str(job.devices)
