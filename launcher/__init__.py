"""The command ``launch.py``: turns a command line into a Job and hands it to the scheduler.

``baryon`` has the commands beside it: ``baryon doctor``.
"""

import signal
import sys
from typing import Callable, List, Optional

from baryon.ps import BaryonError, UsageError
from baryon.scheduler import run

from .clusters import prepare
from .options import parse, parse_doctor

__all__ = ["baryon", "main"]

Say = Callable[[str], None]


def main(argv: Optional[List[str]] = None) -> int:
    """Run a job; returns its exit code, 2 if the command line is wrong."""
    return _guarded("launch.py", _launch, sys.argv[1:] if argv is None else argv)


def baryon(argv: Optional[List[str]] = None) -> int:
    """``baryon doctor``; returns 1 if it finds a problem, 2 if the command line is wrong."""
    return _guarded("baryon", _command, sys.argv[1:] if argv is None else argv)


def _launch(argv: List[str], say: Say) -> int:
    job, options = parse(argv)
    if options.dry_run:
        from .dry_run import show  # its libraries take longer than all else

        show(job)
        return 0
    job, cluster = prepare(job, options, say)
    return run(job, cluster)


def _command(argv: List[str], say: Say) -> int:
    if argv[:1] != ["doctor"]:
        raise UsageError("usage: baryon doctor -H HOSTS; baryon doctor --help says more")
    from .doctor import examine  # as above

    return examine(*parse_doctor(argv[1:]))


def _guarded(program: str, command: Callable[[List[str], Say], int], argv: List[str]) -> int:
    def say(text: str) -> None:
        sys.stderr.write(f"{program}: {text}\n")

    try:
        return command(argv, say)
    except BaryonError as error:
        for line in str(error).splitlines():
            say(f"error: {line}")
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:  # while it was still preparing; a running job has its own handlers
        return 128 + signal.SIGINT
