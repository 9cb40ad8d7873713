"""``baryon doctor``: checks all hosts, or this machine, and prints each problem with its remedy."""

import sys
from typing import List, Tuple

from rich.console import Console

from baryon.scheduler.control import Job

from .flags import Options
from .hosts import probe
from .hosts.expectations import expectations
from .hosts.findings import Finding, HostReport, lines, table, to_json
from .hosts.preflight import judge
from .hosts.survey import HOME, Survey
from .installation import faults

__all__ = ["examine"]

_WIDTH = 132  # of a table that goes into a file
_HERE = "this machine"


def examine(job: Job, options: Options) -> int:
    """Print a table, or JSON; returns 1 if there is any problem, else 0."""
    reports, findings = _look_here(job, options) if job.launcher == "local" else _ask(job, options)
    if options.json:
        sys.stdout.buffer.write(to_json(reports, findings))
    else:
        console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
        console.print(table(reports, findings))
        for word, is_error in (("error", True), ("warning", False)):
            for line in lines([f for f in findings if f.is_error == is_error]):
                console.print(f"{word}: {line}", markup=False, soft_wrap=True)
        count = len(findings)
        console.print(f"{count} problem{'s' * (count > 1)}" if count else "no problem was found")
    return 1 if findings else 0


def _ask(job: Job, options: Options) -> Tuple[List[HostReport], List[Finding]]:
    """All hosts, over ssh."""
    survey = Survey(job, options, is_thorough=True)
    try:
        survey.run()
    finally:
        survey.close()
    reports = [host.report for host in survey.hosts]
    return reports, judge(reports, survey.expectations())


def _look_here(job: Job, options: Options) -> Tuple[List[HostReport], List[Finding]]:
    """This machine, whose simulated hosts are all the same."""
    question = {
        "program": "",
        "is_script": False,
        "cwd": job.cwd,  # options.py has looked for the command
        "env": {**job.env, **job.env_worker},
        "toward": "127.0.0.1",
        "interfaces": (),
        "homes": [HOME],
        "fingerprint": probe.fingerprint_of(HOME),
        "import_mxnet": True,
    }
    report = HostReport(_HERE, found=probe.report(question))
    report.found["address"] = "127.0.0.1"
    wanted = expectations(job, options, [0])
    workers = len(job.of_role("worker"))
    findings = judge([report], wanted._replace(workers=[workers], gpus=[0]))
    return [report], [Finding(_HERE, True, *fault) for fault in faults()] + findings
