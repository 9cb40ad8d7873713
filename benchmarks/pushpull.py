"""Seconds for one push and pull of all arrays of a model, by every worker at once.

    python -m benchmarks.pushpull --model resnet152 --workers 2 4 --servers 2 \\
        --link shm tcp --torch-python ~/torch/bin/python --runs 7

The systems take turns; each turn starts a whole job, whose figure is the median of its
repetitions. A repetition takes as long as its slowest worker. Every sum that arrives is checked.

Ours runs over each `--link`: shm is launch.py's default, tcp is what hosts have between them, and
tcp-plain is that without encryption, which the peers have not either.

Gloo is PyTorch's all-reduce on CPUs (gloo_worker.py). PyTorch is no dependency of ours: give an
interpreter that has it, or leave gloo out with `--systems baryon native`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import List, Mapping, Tuple

from benchmarks.models import MODELS, trainable_arrays
from benchmarks.report import Case, Sample, run_command, take_turns
from benchmarks.systems import LINKS, Run, Setup, System, torch_version

WORKER = Path(__file__).with_name("pushpull_worker.py")
GLOO_WORKER = Path(__file__).with_name("gloo_worker.py")


def measure(options: argparse.Namespace, systems: Mapping[str, System]) -> List[Case]:
    torch = torch_version(options.torch_python) if "gloo" in systems else None
    cases = []
    for setting in itertools.product(options.model, options.workers, options.link):
        cases.append(_measure_case(options, systems, *setting))
        cases[-1].setting["torch"] = torch
    return cases


def _measure_case(
    options: argparse.Namespace,
    systems: Mapping[str, System],
    model: str,
    workers: int,
    link: str,
) -> Case:
    servers, repetitions = options.servers, options.repetitions
    setup = Setup(workers, servers, options.timeout, link, options.torch_python)
    arguments = ["--repetitions", str(repetitions)]

    with tempfile.TemporaryDirectory() as folder:
        sizes = Path(folder) / "sizes.json"
        sizes.write_text(json.dumps([array.size for array in trainable_arrays(model)]))
        script = [str(WORKER), "--model", model, *arguments]
        scripts = {"gloo": [str(GLOO_WORKER), "--sizes", str(sizes), *arguments]}

        def sampler(name: str, system: System) -> Sample:
            def sample() -> Tuple[float, Run]:
                run = system(scripts.get(name, script), setup)
                return seconds_of(run), run

            return sample

        setting = {
            "model": model,
            "workers": workers,
            "servers": servers,
            "link": link,
            "repetitions": repetitions,
        }
        case = Case(f"{model} -n {workers} -s {servers} {link}", setting)
        samplers = {name: sampler(name, system) for name, system in systems.items()}
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
        "--model", nargs="+", default=[MODELS[0]], help=f"{', '.join(MODELS)}, or others"
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--link", nargs="+", choices=LINKS, default=["shm"], help="for ours")
    parser.add_argument("--repetitions", type=int, default=5, help="within a run (default 5)")
    parser.add_argument(
        "--torch-python", metavar="PATH", default=sys.executable,
        help="an interpreter that has PyTorch, for gloo (default: this one)",
    )  # fmt: skip
    return run_command(parser, "pushpull", ["baryon", "native", "gloo"], measure)


if __name__ == "__main__":
    sys.exit(main())
