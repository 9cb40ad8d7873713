"""``baryon status``, ``logs`` and ``stop``: commands for detached jobs, from any shell."""

import os
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Optional

from rich.console import Console
from rich.table import Table
from rich.text import Text

from baryon.ps import PeerError, UsageError
from baryon.scheduler import ask

from .records import find, load_all

__all__ = ["logs", "status", "stop"]

_POLL_S = 0.1
_STOP_LIMIT_S = 60.0
_NUM_LISTED = 20


def status(job: Optional[str]) -> int:
    """Print the state of the job, or without a name a list of jobs. Raises UsageError."""
    if job is None:
        _list()
        return 0
    record = find(job)
    lines = [
        f"job      {record.job}",
        f"state    {record.state()}",
        f"command  {shlex.join(record.command)}",
        f"with     {record.launcher}" + (f", {record.manager_job}" if record.manager_job else ""),
        f"logs     {record.log_dir}",
    ]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    process = record.process()
    if process is not None:
        sys.stdout.write(f"{ask(record.job) or _why_silent(process.pid)}\n")
    return 0


def logs(job: Optional[str], task: Optional[str], follow: bool) -> int:
    """Print the output of the job, or of one task as ``worker-0``; ``follow`` it to the end.

    Raises UsageError if there is no such job or task.
    """
    record = find(job)
    path = os.path.join(record.log_dir, f"{task}.log") if task else record.output
    try:
        with open(path, "rb") as file:
            while True:
                # Asked before copying, so that the last copy is complete.
                is_over = not follow or record.process() is None
                shutil.copyfileobj(file, sys.stdout.buffer)
                sys.stdout.flush()
                if is_over:
                    return 0
                time.sleep(_POLL_S)
    except FileNotFoundError as error:
        names = ", ".join(sorted(file.stem for file in Path(record.log_dir).glob("*-*.log")))
        raise UsageError(f"there is no {path}; there are {names or 'no logs yet'}") from error


def stop(job: Optional[str]) -> int:
    """End the job and wait for its end. Raises UsageError, or PeerError if it does not end."""
    record = find(job)
    process = record.process()
    if record.exit_code is not None:
        sys.stdout.write(f"{record.job} {record.state()}\n")
        return 0
    if process is None and not record.is_here:
        raise UsageError(f"{record.job} was started on {record.machine}; baryon stop it there")
    if process is None:
        left = f"; {record.manager_job} may be left" if record.manager_job else ""
        raise PeerError(f"the launch.py of {record.job} was killed, and its tasks with it{left}")
    process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + _STOP_LIMIT_S
    while record.process() is not None:  # psutil's wait would hang if nothing reaps the process
        if time.monotonic() > deadline:
            raise PeerError(f"{record.job} has not ended in {_STOP_LIMIT_S:.0f} s")
        time.sleep(_POLL_S)
    sys.stdout.write(f"{record.job} {find(record.job).state()}\n")
    return 0


def _why_silent(pid: int) -> str:
    try:
        networks = {os.readlink(f"/proc/{each}/ns/net") for each in ("self", pid)}
    except OSError:  # it has just ended, or belongs to another user
        return "it has not answered yet; it may be starting, or run in another container"
    if len(networks) > 1:  # abstract sockets belong to one network namespace
        return "it answers only in its own container (network namespace)"
    return "it has not answered yet; it may be starting"


def _list() -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("job", "state", "with", "command"):
        table.add_column(column, overflow="fold")
    for record in load_all()[-_NUM_LISTED:]:
        row = (record.job, record.state(), record.launcher, shlex.join(record.command))
        table.add_row(*map(Text, row))
    Console().print(table)
