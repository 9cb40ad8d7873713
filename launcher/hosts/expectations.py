"""What a job expects of its hosts."""

import os
import platform
import sys
from typing import List, NamedTuple, Sequence

from baryon.scheduler.control import Job

from ..flags import Options
from . import probe

__all__ = ["Expectations", "expectations", "program_of"]


class Expectations(NamedTuple):
    """What this machine has and the job needs: ``gpus`` and ``workers`` are per host.

    ``is_script``: the program is a Python file; ``is_here``: this machine has it where it is
    looked for there; ``is_synced``: the working directory is going to be copied; ``program`` is
    then what it has not got.
    """

    python_version: str
    platform: List[str]
    workers: Sequence[int]
    gpus: Sequence[int]
    devices: int
    program: str
    cwd: str
    is_script: bool
    is_here: bool
    is_synced: bool


def expectations(job: Job, options: Options, hosts: Sequence[int]) -> Expectations:
    """What reports of these hosts of a job, by number, are to be judged by."""
    workers, program = job.of_role("worker"), program_of(job, options)
    return Expectations(
        python_version=".".join(map(str, sys.version_info[:2])),
        platform=[str(sys.implementation.cache_tag), platform.machine(), *platform.libc_ver()],
        workers=[sum(task.host == host for task in workers) for host in hosts],
        gpus=[len(job.hosts[host].gpus) for host in hosts],
        devices=job.devices,
        program=program,
        cwd=job.cwd,
        is_script=job.is_script,
        is_here=os.path.exists(program),
        is_synced=options.sync_dst_dir is not None,
    )


def program_of(job: Job, options: Options) -> str:
    """What hosts must have to run the command; empty if that is brought along, or a module.

    Of a program that is copied, it is the interpreter that its first line names.
    """
    program = job.command[0] if job.command and job.command[0] != "-m" else ""
    is_outside = os.path.isabs(program) or os.path.normpath(program).startswith("../")
    is_file = job.is_script or "/" in program
    if options.sync_dst_dir is None or is_outside or not is_file:
        return program
    return "" if job.is_script else (probe.interpreter_of(program) or [""])[-1]
