"""The command ``launch.py``: turns a command line into a Job and hands it to the scheduler.

``baryon`` has the other commands: ``doctor``, ``completion``, and ``status``, ``logs`` and ``stop``
for detached jobs.
"""

import contextlib
import errno
import functools
import os
import signal
import socket
import sys
from typing import Callable, Iterator, List, Optional

import msgspec

from baryon.ps import BaryonError, UsageError
from baryon.scheduler import Cluster, run
from baryon.scheduler.control import Job

from . import installation
from .clusters import finish, prepare, preview
from .flags import Options, parse_command
from .log_directory import LogDirectory
from .options import parse, parse_doctor
from .streams import open_streams

__all__ = ["baryon", "main"]

Say = Callable[[str], None]

_CANNOT_WRITE = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO)


def main(argv: Optional[List[str]] = None) -> int:
    """Run a job. Returns its exit code, or 2 if the command line is wrong."""
    words = sys.argv[1:] if argv is None else argv
    return _guarded("launch.py", lambda say: _launch(words, say))


def baryon(argv: Optional[List[str]] = None) -> int:
    """Returns 0, 1 if ``doctor`` finds a problem or ``stop`` fails, 2 if the command is wrong."""
    words = sys.argv[1:] if argv is None else argv
    return _guarded("baryon", lambda say: _command(words))


def _launch(argv: List[str], say: Say) -> int:
    job, options = parse(argv)
    for note in options.notes:
        say(f"note: {note}")
    if options.dry_run:
        from .dry_run import show  # imported late: its libraries take longer than everything else

        show(job, preview(job, options), options.json)
        return 0
    if not options.detach:
        return _run(job, options, say)
    from .detach import detach

    with LogDirectory(job.log_dir, say):
        return detach(
            job,
            lambda job, on_taken, asked_at: _guarded(
                "launch.py", lambda say: _run(job, options, say, on_taken, asked_at, True)
            ),
        )


def _run(
    job: Job,
    options: Options,
    say: Say,
    on_taken: Callable[[Job, str], None] = lambda job, name: None,
    asked_at: Optional[socket.socket] = None,
    has_directory: bool = False,
) -> int:
    """Run the job, and submit it again if need be. ``has_directory``: the first log directory
    exists."""
    again, attempt = job, 0
    while True:
        prepared, cluster = prepare(again, options, say)
        with contextlib.ExitStack() as stack:
            if attempt or not has_directory:
                stack.enter_context(LogDirectory(again.log_dir, say))
            outcome = run(prepared, cluster, functools.partial(on_taken, again), asked_at)
            left_code = _finish(prepared, options, cluster, say)
        if not outcome.exit_code and left_code:
            return left_code
        if attempt == options.resubmit or not outcome.was_interrupted:
            return outcome.exit_code
        attempt += 1
        say(f"the job is submitted again ({attempt} of {options.resubmit}, --resubmit)")
        again = msgspec.structs.replace(
            job, id=f"{job.id}.{attempt}", log_dir=f"{job.log_dir}.{attempt}"
        )


def _finish(job: Job, options: Options, cluster: Cluster, say: Say) -> int:
    """Finish up after the job. Returns 0, or another exit code if that fails."""
    try:
        return 0 if finish(job, options, cluster, say) else 1
    except (BaryonError, OSError) as error:  # the job's own exit code takes precedence
        for line in str(error).splitlines():
            say(f"error: {line}")
        return 1
    except KeyboardInterrupt:
        say("error: interrupted; results were not all fetched")
        return 128 + signal.SIGINT


def _command(argv: List[str]) -> int:
    if argv[:1] == ["doctor"]:
        with _explained_imports():
            from .doctor import examine  # as above
        return examine(*parse_doctor(argv[1:]))
    options = parse_command(argv)
    if options.verb == "completion":
        with _explained_imports():
            from .completion import script
        sys.stdout.write(script(options.shell))
        return 0
    from . import jobs

    if options.verb == "status":
        return jobs.status(options.job)
    if options.verb == "logs":
        return jobs.logs(options.job, options.task, options.follow)
    return jobs.stop(options.job)


@contextlib.contextmanager
def _explained_imports() -> Iterator[None]:
    """A library that is missing becomes a UsageError that says how to install it."""
    try:
        yield
    except ImportError as error:
        lines = [f"{fault}; {remedy}" for fault, remedy in installation.faults()]
        raise UsageError("\n".join(lines) or str(error)) from error


def _guarded(program: str, command: Callable[[Say], int]) -> int:
    """Call ``command``. Returns its exit code, or prints its error and returns that one's code."""

    def say(text: str) -> None:
        try:
            sys.stderr.write(f"{program}: {text}\n")
            sys.stderr.flush()
        except OSError:
            pass  # the reader has gone or the disk is full, but the training must go on

    open_streams()
    try:
        code = command(say)
        sys.stdout.flush()
        return code
    except BaryonError as error:
        for line in str(error).splitlines():
            say(f"error: {line}")
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:  # a running job has its own handlers
        say("interrupted")
        return 128 + signal.SIGINT
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        # Python flushes standard output when it ends, and would fail there again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:  # as with `| head`
            return 128 + signal.SIGPIPE
        say(f"error: cannot write to standard output: {error.strerror}")
        return 1
