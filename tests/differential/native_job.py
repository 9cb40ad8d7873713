"""Jobs on MXNet's own store that run cases; all of their roles are forked from this process.

``python -m tests.differential.native_job`` reads one job a line from its standard input, as JSON:
the arguments of cases.py. It has run when there is a file FOLDER/codes, with the exit codes of its
workers (see `run_job`).
"""

import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import List

from baryon.worker.mxnet.compat import import_mxnet
from tests.native_roles import run_job


def main() -> None:
    import_mxnet()
    from . import cases  # imports MXNet

    cases.load()
    for line in sys.stdin:
        _run(cases, json.loads(line))


def _run(cases: ModuleType, words: List[str]) -> None:
    options = cases.arguments(words)
    os.chdir(options.results)  # where a server writes its profile
    codes = run_job(options.workers, options.servers, lambda: cases.work(options))
    Path("codes.new").write_text(json.dumps(codes), encoding="utf-8")
    os.replace("codes.new", "codes")
    os.chdir("/")


if __name__ == "__main__":
    main()
