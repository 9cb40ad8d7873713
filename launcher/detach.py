"""``launch.py --detach``: the job continues in a background process after the command returns.

The background process is forked before anything else starts. The foreground process waits until the
cluster has taken the job. Until then it reports errors with their exit code, and Ctrl-C ends the
job. If the foreground process ends in another way, as with its terminal, the job continues.
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
    """Call ``run(job, on_taken, asked_at)`` in the background. It returns the exit code, and never
    raises. ``asked_at`` is the socket on which the job answers questions about its state.

    In the foreground, prints the job's name and returns 0 once ``on_taken`` was called, or returns
    the job's exit code if the job ends earlier. In the background, returns the exit code. The log
    directory must exist. Raises UsageError if the output cannot be written there.
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
    """Wait until the job is taken or has ended."""
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
    os.setsid()  # the terminal's signals are not for this process
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
            pass  # the foreground process has ended

    record.exit_code = run(job, on_taken, listen(job.id))
    record.end_time = time.time()
    _keep(record)
    return record.exit_code


def _keep(record: Record) -> None:
    """Save the record. If that fails, the job runs without it."""
    try:
        save(record)
    except UsageError as error:
        sys.stderr.write(f"launch.py: {error}\n")
