"""Seconds for the push and pull of one small key, from the call to the value that has arrived.

    python -m benchmarks.latency --link shm tcp --runs 7

Two workers and one server on this machine. Every worker does the same at the same time, so a round
trip includes the other worker's. A run's figure is the slower worker's median.
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path
from typing import List, Mapping, Tuple

from benchmarks.report import Case, run_command, take_turns
from benchmarks.systems import LINKS, Run, System, over

WORKER = Path(__file__).with_name("latency_worker.py")
WORKERS, SERVERS = 2, 1


def measure(options: argparse.Namespace, systems: Mapping[str, System]) -> List[Case]:
    script = [str(WORKER), "--repetitions", str(options.repetitions)]

    def sample(system: System) -> Tuple[float, Run]:
        run = system(script, WORKERS, SERVERS, options.timeout)
        return max(report["round_trip_s"] for report in run.reports), run

    cases = []
    for link in options.link:
        setting = {"link": link, "workers": WORKERS, "servers": SERVERS}
        samples = {
            name: functools.partial(sample, system) for name, system in over(link, systems).items()
        }
        cases.append(take_turns(Case(f"one key, {link}", setting), samples, options.runs))
    return cases


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("--link", nargs="+", choices=list(LINKS), default=["shm", "tcp"])
    parser.add_argument("--repetitions", type=int, default=500, help="within a run (default 500)")
    return run_command(parser, "latency", ["baryon", "native"], measure)


if __name__ == "__main__":
    sys.exit(main())
