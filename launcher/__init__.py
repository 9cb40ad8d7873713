"""The command ``launch.py``: turns a command line into a Job and hands it to the scheduler."""

import sys
from typing import List, Optional

from baryon.ps import BaryonError, UsageError
from baryon.scheduler import run

from . import dry_run
from .clusters import CLUSTERS
from .options import parse

__all__ = ["main"]


def main(argv: Optional[List[str]] = None) -> int:
    """Run a job; returns its exit code, 2 if the command line is wrong."""
    try:
        job, options = parse(sys.argv[1:] if argv is None else argv)
        if options.dry_run:
            dry_run.show(job)
            return 0
        if options.sync_dst_dir and job.launcher == "local":
            _say("--sync-dst-dir has no effect with --launcher local: tasks run where you are")
        return run(job, CLUSTERS[job.launcher]())
    except UsageError as error:
        for line in str(error).splitlines():
            _say(f"error: {line}")
        return 2
    except BaryonError as error:
        _say(f"error: {error}")
        return 1


def _say(text: str) -> None:
    sys.stderr.write(f"launch.py: {text}\n")
