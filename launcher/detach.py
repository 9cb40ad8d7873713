"""``launch.py --detach``: the job goes on in a process of its own when the command has returned.

That is forked before anything else is started. The one in front waits until the job is in the hands
of its cluster, so what is wrong until then is told at once, with its exit code.
"""

import os
import shutil
import sys
import time
from typing import Callable

import msgspec

from baryon.ps import UsageError
from baryon.scheduler import Job

from .records import record_of, remove_old, save

__all__ = ["detach"]

_TAKEN = b"+"


OnTaken = Callable[[str], None]


def detach(job: Job, run: Callable[[Job, OnTaken], int]) -> int:
    """Have ``run(job, on_taken)`` run the job behind; it returns the exit code, and never raises.

    In front, returns 0 once ``on_taken`` was called, with the job's name on standard output, or the
    job's exit code if it ends before that. Behind, returns the exit code. Raises UsageError if the
    output cannot be kept.
    """
    remove_old()
    path = os.path.join(job.log_dir, "launch.log")
    try:
        os.makedirs(job.log_dir, exist_ok=True)
        output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; choose another --log-dir") from error
    news, tell = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        os.close(output)
        os.close(tell)
        return _wait(child, news, job.id, path)
    os.close(news)
    _go_behind(output)
    return _run(msgspec.structs.replace(job, is_terminal=False), run, tell)


def _wait(child: int, news: int, name: str, path: str) -> int:
    """Until the job is taken or has ended."""
    with open(news, "rb") as pipe:
        is_taken = pipe.read(1) == _TAKEN
    if is_taken:
        sys.stdout.write(f"{name}\n")
        sys.stderr.write(f"launch.py: detached; baryon status, logs or stop {name}\n")
        return 0
    status = os.waitpid(child, 0)[1]
    with open(path, encoding="utf-8", errors="replace") as output:
        shutil.copyfileobj(output, sys.stderr)
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _go_behind(output: int) -> None:
    os.setsid()  # the terminal's signals are for others
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(output)


def _run(job: Job, run: Callable[[Job, OnTaken], int], tell: int) -> int:
    record = record_of(job)
    save(record)

    def on_taken(name: str) -> None:
        record.manager_job = name
        save(record)
        os.write(tell, _TAKEN)

    record.exit_code = run(job, on_taken)
    record.end_time = time.time()
    save(record)
    return record.exit_code
