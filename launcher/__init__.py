"""The command ``launch.py``: turns a command line into a Job and hands it to the scheduler.

``baryon`` has the commands beside it: ``baryon doctor``.
"""

import signal
import sys
from typing import Callable, List, Optional

from baryon import __version__
from baryon.ps import BaryonError, UsageError
from baryon.scheduler import run

from .clusters import prepare, preview
from .options import parse, parse_doctor

__all__ = ["baryon", "main"]

Say = Callable[[str], None]

_USAGE = """\
usage: baryon doctor -H HOSTS [options of launch.py] [command]
Looks at the hosts of a job and names what is wrong with them. launch.py runs jobs.
"""


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

        show(job, preview(job, options))
        return 0
    job, cluster = prepare(job, options, say)
    return run(job, cluster)


def _command(argv: List[str], say: Say) -> int:
    if argv[:1] in (["-h"], ["--help"]):
        sys.stdout.write(_USAGE)
        return 0
    if argv[:1] == ["--version"]:
        sys.stdout.write(f"baryon {__version__}\n")
        return 0
    if argv[:1] != ["doctor"]:
        word = f"there is no command {argv[0]!r}" if argv else "a command is missing"
        raise UsageError(f"{word}; there is: baryon doctor -H HOSTS")
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
        say("interrupted; nothing was started")
        return 128 + signal.SIGINT
