"""The script that both stores run: ``cases.py --workers N --results FOLDER --cases NAME...``.

launch.py runs it on ours, native_job.py on MXNet's own.

Each worker appends to a file of its own in FOLDER: a JSON line when a case starts and one when it
has ended, so that a case that hangs or ends the process is known. The same is on standard output.
"""

import argparse
import faulthandler
import json
import os
import sys
from typing import Any, Callable, Dict, List, Optional

import mxnet as mx

from tests.differential.case import CASES, Case, Job, plain
from tests.differential.themes import load

START_LIMIT_S = 20.0


def record_of(case: Case, job: Job) -> Dict[str, Any]:
    """What became of a case on this worker: ``got`` and ``right``, or ``raised``."""
    mx.random.seed(7)
    try:
        answer = case.run(job)
        mx.nd.waitall()  # what only the engine knows of yet
        return {"got": plain(answer.got), "right": plain(answer.right)}
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        return {"raised": type(error).__name__, "text": lines[-1 if ":" in lines[-1] else 0][:300]}


def run(
    names: List[str], job: Job, limit_s: float, write: Callable[[Dict[str, Any]], None]
) -> None:
    for name in names:
        write({"case": name, "started": True})
        # A thread of its own ends the process, also one that waits inside MXNet.
        faulthandler.dump_traceback_later(limit_s, exit=True)
        found = record_of(CASES[name], job)
        faulthandler.cancel_dump_traceback_later()
        write({"case": name, "rank": job.rank, **found})


def arguments(words: Optional[List[str]] = None) -> argparse.Namespace:
    """From the command line, if no ``words`` are given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--results", required=True, metavar="FOLDER")
    parser.add_argument("--cases", nargs="+", required=True, metavar="NAME")
    parser.add_argument("--limit", type=float, default=10.0, metavar="SECONDS", help="for a case")
    parser.add_argument("--servers", type=int, default=0, help="of a job on MXNet's own store")
    return parser.parse_args(words)


def work(options: argparse.Namespace) -> None:
    """Run the cases as one worker of a job."""
    faulthandler.dump_traceback_later(START_LIMIT_S, exit=True)
    job = Job(options.workers, bool(options.servers), options.results)
    with open(os.path.join(options.results, f"worker-{os.getpid()}.jsonl"), "w") as file:

        def write(record: Dict[str, Any]) -> None:
            line = json.dumps(record) + "\n"
            for stream in (file, sys.stdout):
                stream.write(line)
                stream.flush()

        run(options.cases, job, options.limit, write)


if __name__ == "__main__":
    load()
    work(arguments())
