"""Seconds from the command to the first finished training step of the last worker.

    python -m benchmarks.startup -n 2 -s 1 --runs 7

Against MXNet's own roles started by hand, and against the same script alone in one process.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import List, Mapping, Tuple

from benchmarks.report import Case, Sample, run_command, take_turns
from benchmarks.systems import Run, System

WORKER = Path(__file__).with_name("startup_worker.py")
KVSTORES = {"alone": "device"}  # all others: dist_sync


def measure(options: argparse.Namespace, systems: Mapping[str, System]) -> List[Case]:
    def sampler(name: str, system: System) -> Sample:
        script = [str(WORKER), "--kvstore", KVSTORES.get(name, "dist_sync")]

        def sample() -> Tuple[float, Run]:
            run = system(script, options.workers, options.servers, options.timeout)
            last_s = max(report["first_step_at_s"] for report in run.reports)
            return last_s - run.started_at_s, run

        return sample

    setting = {"workers": options.workers, "servers": options.servers}
    case = Case(f"-n {options.workers} -s {options.servers}", setting)
    samplers = {name: sampler(name, system) for name, system in systems.items()}
    return [take_turns(case, samplers, options.runs)]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.startup",
        description="From the command to the first finished training step",
    )
    parser.add_argument("-n", "--workers", type=int, default=2)
    parser.add_argument("-s", "--servers", type=int, default=1)
    return run_command(parser, "startup", ["baryon", "native", "alone"], measure)


if __name__ == "__main__":
    sys.exit(main())
