"""Seconds to push the gradient of an embedding's few rows and to pull those of the next batch.

    python -m benchmarks.sparse --rows 4096 --runs 7

A table of 1,000,000 x 64 (256 MB) whose weight and gradients are row_sparse, lazy SGD on the
servers; two workers and two servers on this machine. A run's figure is the slower worker's median.
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path
from typing import List, Mapping, Tuple

from benchmarks.report import Case, run_command, take_turns
from benchmarks.systems import LINKS, Run, System, over

WORKER = Path(__file__).with_name("sparse_worker.py")
WORKERS, SERVERS = 2, 2


def measure(options: argparse.Namespace, systems: Mapping[str, System]) -> List[Case]:
    def sample(system: System, rows: int) -> Tuple[float, Run]:
        script = [str(WORKER), "--rows", str(rows), "--repetitions", str(options.repetitions)]
        run = system(script, WORKERS, SERVERS, options.timeout)
        return max(report["round_s"] for report in run.reports), run

    cases = []
    for rows in options.rows:
        for link in options.link:
            setting = {"link": link, "rows": rows, "workers": WORKERS, "servers": SERVERS}
            samples = {
                name: functools.partial(sample, system, rows)
                for name, system in over(link, systems).items()
            }
            cases.append(take_turns(Case(f"{rows} rows, {link}", setting), samples, options.runs))
    return cases


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sparse", description=__doc__)
    parser.add_argument("--link", nargs="+", choices=list(LINKS), default=["shm", "tcp"])
    parser.add_argument("--rows", nargs="+", type=int, default=[4096], help="of a batch")
    parser.add_argument("--repetitions", type=int, default=20, help="within a run (default 20)")
    return run_command(parser, "sparse", ["baryon", "native"], measure)


if __name__ == "__main__":
    sys.exit(main())
