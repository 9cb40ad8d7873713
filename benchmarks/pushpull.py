"""Seconds for one push and pull of all arrays of a model, by every worker at once.

    python -m benchmarks.pushpull --model resnet152 --workers 2 4 --servers 2 --runs 7
    python -m benchmarks.pushpull --link tcp tcp-plain --workers 2
    python -m benchmarks.pushpull --torch-python TORCH_VENV/bin/python       # and gloo

The systems take turns; each turn starts a whole job, whose figure is the median of its
repetitions. A repetition takes as long as its slowest worker. Every sum that arrives is checked.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
from pathlib import Path
from typing import Dict, List, Mapping, Tuple

from benchmarks.models import MODELS, trainable_arrays
from benchmarks.report import Case, Sample, run_command, take_turns
from benchmarks.systems import LINKS, Run, System, over, run_torch, torch_interpreter

WORKER = Path(__file__).with_name("pushpull_worker.py")
ALLREDUCE = Path(__file__).with_name("allreduce_worker.py")


def measure(options: argparse.Namespace, systems: Mapping[str, System]) -> List[Case]:
    return [
        _measure_case(options, systems, model, workers, link)
        for model in options.model
        for link in options.link
        for workers in options.workers
    ]


def _measure_case(
    options: argparse.Namespace, systems: Mapping[str, System], model: str, workers: int, link: str
) -> Case:
    repetitions = ["--repetitions", str(options.repetitions)]

    def sample(system: System, script: List[str]) -> Tuple[float, Run]:
        run = system(script, workers, options.servers, options.timeout)
        return seconds_of(run), run

    script = [str(WORKER), "--model", model, *repetitions]
    samplers: Dict[str, Sample] = {
        name: functools.partial(sample, system, script)
        for name, system in over(link, systems).items()
    }
    if options.torch_python:
        sizes = ",".join(str(array.size) for array in trainable_arrays(model))
        torch_script = [str(ALLREDUCE), "--sizes", sizes, *repetitions]
        gloo = functools.partial(run_torch, options.torch_python)
        samplers["gloo"] = functools.partial(sample, gloo, torch_script)
    setting = {
        "model": model,
        "link": link,
        "workers": workers,
        "servers": options.servers,
        "repetitions": options.repetitions,
    }
    case = Case(f"{model} -n {workers} -s {options.servers}, {link}", setting)
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
    parser.add_argument(
        "--model", nargs="+", default=[MODELS[0]], help=f"{', '.join(MODELS)}, or another"
    )
    parser.add_argument("--link", nargs="+", choices=list(LINKS), default=["shm"])
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=5, help="within a run (default 5)")
    parser.add_argument(
        "--torch-python", type=torch_interpreter, help="an interpreter with torch, for gloo"
    )
    return run_command(parser, "pushpull", ["baryon", "native"], measure)


if __name__ == "__main__":
    sys.exit(main())
