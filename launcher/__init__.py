"""The command ``launch.py``: turns a command line into a Job and hands it to the scheduler.

``baryon`` has the commands beside it: ``baryon doctor``.
"""

import os
import signal
import sys
from typing import Callable, List, Optional

from baryon.ps import BaryonError, UsageError
from baryon.scheduler import run

from . import dry_run
from .clusters import CLUSTERS
from .doctor import examine
from .options import parse, parse_doctor

__all__ = ["baryon", "main"]


def main(argv: Optional[List[str]] = None) -> int:
    """Run a job; returns its exit code, 2 if the command line is wrong."""
    return _guarded(lambda: _launch(sys.argv[1:] if argv is None else argv))


def baryon(argv: Optional[List[str]] = None) -> int:
    """``baryon doctor``; returns 1 if it finds a problem, 2 if the command line is wrong."""
    return _guarded(lambda: _command(sys.argv[1:] if argv is None else argv))


def _launch(argv: List[str]) -> int:
    job, options = parse(argv)
    if options.dry_run:
        dry_run.show(job)
        return 0
    job, cluster = CLUSTERS[job.launcher](job, options, _say)
    return run(job, cluster)


def _command(argv: List[str]) -> int:
    if argv[:1] != ["doctor"]:
        raise UsageError("usage: baryon doctor -H HOSTS; baryon doctor --help says more")
    return examine(*parse_doctor(argv[1:]))


def _guarded(command: Callable[[], int]) -> int:
    try:
        return command()
    except BaryonError as error:
        for line in str(error).splitlines():
            _say(f"error: {line}")
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:  # while it was still preparing; a running job has its own handlers
        return 128 + signal.SIGINT


def _say(text: str) -> None:
    sys.stderr.write(f"{os.path.basename(sys.argv[0])}: {text}\n")
