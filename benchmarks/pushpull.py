"""Seconds for one push and pull of all arrays of a model, by every worker at once.

    python -m benchmarks.pushpull --model resnet152 --workers 2 4 --servers 2 --runs 7

The systems take turns; each turn starts a whole job, whose figure is the median of its
repetitions. A repetition takes as long as its slowest worker. Every sum that arrives is checked.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import List, Mapping, Tuple

from benchmarks.models import MODELS
from benchmarks.report import Case, Sample, run_command, take_turns
from benchmarks.systems import Run, System

WORKER = Path(__file__).with_name("pushpull_worker.py")


def measure(options: argparse.Namespace, systems: Mapping[str, System]) -> List[Case]:
    return [_measure_case(options, systems, workers) for workers in options.workers]


def _measure_case(options: argparse.Namespace, systems: Mapping[str, System], workers: int) -> Case:
    script = [str(WORKER), "--model", options.model, "--repetitions", str(options.repetitions)]

    def sampler(system: System) -> Sample:
        def sample() -> Tuple[float, Run]:
            run = system(script, workers, options.servers, options.timeout)
            return seconds_of(run), run

        return sample

    setting = {
        "model": options.model,
        "workers": workers,
        "servers": options.servers,
        "repetitions": options.repetitions,
    }
    case = Case(f"{options.model} -n {workers} -s {options.servers}", setting)
    samplers = {name: sampler(system) for name, system in systems.items()}
    return take_turns(case, samplers, options.runs)


def seconds_of(run: Run) -> float:
    """The median over the repetitions of the slowest worker's time."""
    by_repetition = zip(*(report["times_s"] for report in run.reports))
    return float(statistics.median(max(times) for times in by_repetition))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pushpull",
        description="Push and pull of a model's arrays by every worker",
    )
    parser.add_argument("--model", default=MODELS[0], help=f"{', '.join(MODELS)}, or another")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=5, help="within a run (default 5)")
    return run_command(parser, "pushpull", ["baryon", "native"], measure)


if __name__ == "__main__":
    sys.exit(main())
