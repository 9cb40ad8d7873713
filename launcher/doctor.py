"""``baryon doctor -H HOSTS``: every problem of every host, with its remedy, before a job runs."""

import sys

from rich.console import Console

from baryon.scheduler import Job

from .flags import Options
from .hosts.preflight import judge, lines, table, to_json
from .hosts.survey import Survey

__all__ = ["examine"]

_WIDTH = 132  # of a table that goes into a file


def examine(job: Job, options: Options) -> int:
    """Print a table, or JSON; returns 1 if there is any problem, else 0."""
    survey = Survey(job, options, is_thorough=True)
    try:
        survey.run()
    finally:
        survey.close()
    reports = [host.report for host in survey.hosts]
    findings = judge(reports, survey.expectations())
    if options.json:
        sys.stdout.buffer.write(to_json(reports, findings))
    else:
        console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
        console.print(table(reports, findings))
        for word, is_error in (("error", True), ("warning", False)):
            for line in lines([f for f in findings if f.is_error == is_error]):
                console.print(f"{word}: {line}", markup=False, soft_wrap=True)
        console.print(f"{len(findings)} problems" if findings else "no problem was found")
    return 1 if findings else 0
