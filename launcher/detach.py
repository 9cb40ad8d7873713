"""``launch.py --detach``: the job goes on in a process of its own when the command has returned.

That is forked before anything else is started. The one in front waits until the job is in the hands
of its cluster, so what is wrong until then is told at once, with its exit code, and Ctrl-C ends it.
If the one in front ends in another way, as with its terminal, the job goes on all the same.
"""

import os
import shutil
import signal
import socket
import sys
import time
from typing import Callable, Optional

import msgspec

from baryon.ps import UsageError
from baryon.scheduler import listen
from baryon.scheduler.control import Job

from .records import Record, record_of, remove_old, save

__all__ = ["detach"]

_TAKEN = b"+"
OnTaken = Callable[[Job, str], None]
Run = Callable[[Job, OnTaken, Optional[socket.socket]], int]


def detach(job: Job, run: Run) -> int:
    """Have ``run(job, on_taken, asked_at)`` run the job behind; it returns the exit code, and never
    raises. ``asked_at`` is where the job is to be asked how it is.

    In front, returns 0 once ``on_taken`` was called, with the job's name on standard output, or the
    job's exit code if it ends before that. Behind, returns the exit code. The log directory exists.
    Raises UsageError if the output cannot be kept there.
    """
    record = record_of(job)
    remove_old()
    try:
        output = os.open(record.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
    except OSError as error:
        raise UsageError(f"{record.output}: {error.strerror}; choose another --log-dir") from error
    save(record)
    news, tell = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        os.close(output)
        os.close(tell)
        return _wait(child, news, record)
    os.close(news)
    _go_behind(output)
    job = msgspec.structs.replace(job, is_terminal=False, columns=0, rows=0)
    return _run(job, run, tell)


def _wait(child: int, news: int, record: Record) -> int:
    """Until the job is taken or has ended."""
    is_taken = is_interrupted = False
    try:
        with open(news, "rb") as pipe:
            is_taken = pipe.read(1) == _TAKEN
    except KeyboardInterrupt:
        is_interrupted = True
        os.kill(child, signal.SIGTERM)
    if is_taken:
        sys.stdout.write(f"{record.job}\n")
        sys.stderr.write(f"launch.py: detached; baryon status, logs or stop {record.job}\n")
        return 0
    status = os.waitpid(child, 0)[1]
    with open(record.output, encoding="utf-8", errors="replace") as output:
        shutil.copyfileobj(output, sys.stderr)
    if is_interrupted:
        return 128 + signal.SIGINT
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _go_behind(output: int) -> None:
    os.setsid()  # the terminal's signals are for others
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(output)


def _run(job: Job, run: Run, tell: int) -> int:
    record = record_of(job)
    _keep(record)

    def on_taken(current: Job, name: str) -> None:
        record.run, record.log_dir, record.manager_job = current.id, current.log_dir, name
        _keep(record)
        try:
            os.write(tell, _TAKEN)
        except OSError:
            pass  # who was in front has gone

    record.exit_code = run(job, on_taken, listen(job.id))
    record.end_time = time.time()
    _keep(record)
    return record.exit_code


def _keep(record: Record) -> None:
    """The job is more important than that others know of it."""
    try:
        save(record)
    except UsageError as error:
        sys.stderr.write(f"launch.py: {error}\n")
