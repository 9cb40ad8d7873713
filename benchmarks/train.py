"""Images per second and worker of whole training scripts, as a share of what they do alone.

    python -m benchmarks.train --net mlp resnet18 lenet --runs 7

One Gluon script (train_worker.py: synthetic images, SGD with momentum, hybridized) runs on each
store, and without any: as many copies of it side by side, at the same time, as there are workers,
so that they have the same share of this machine. What a store leaves of that is the figure; 1.00
would be exchanging gradients for nothing. The workers' timed parts begin together, and a run in
which they do not overlap is not counted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import List, Mapping, NamedTuple, Tuple

from benchmarks.report import Case, Figure, Sample, run_command, take_turns
from benchmarks.systems import LINKS, Run, RunFailed, Setup, System

WORKER = Path(__file__).with_name("train_worker.py")
FIGURE = Figure(unit="images/s", base="side-by-side")
MIN_OVERLAP = 0.8  # of the time from the first worker's begin to the last one's end


class Workload(NamedTuple):
    batch_size: int
    warm_up: int
    steps: int


WORKLOADS = {
    "mlp": Workload(batch_size=32, warm_up=10, steps=40),
    "resnet18": Workload(batch_size=16, warm_up=10, steps=40),
    "lenet": Workload(batch_size=64, warm_up=30, steps=200),
}


def measure(options: argparse.Namespace, systems: Mapping[str, System]) -> List[Case]:
    return [_measure_case(options, systems, net) for net in options.net]


def _measure_case(options: argparse.Namespace, systems: Mapping[str, System], net: str) -> Case:
    workers, servers = options.workers, options.servers
    setup = Setup(workers, servers, options.timeout, options.link)
    batch_size, warm_up, steps = WORKLOADS[net]
    steps = options.steps or steps

    def sampler(name: str, system: System) -> Sample:
        script = [str(WORKER), "--net", net, "--batch-size", str(batch_size)]
        script += ["--warm-up", str(warm_up), "--steps", str(steps)]
        script += ["--kvstore", "none" if name == FIGURE.base else "dist_sync"]

        def sample() -> Tuple[float, Run]:
            with tempfile.TemporaryDirectory() as folder:
                run = system([*script, "--meet", folder, "--processes", str(workers)], setup)
            return images_per_s(name, run), run

        return sample

    setting = {
        "net": net,
        "workers": workers,
        "servers": servers,
        "link": options.link,
        "batch_size": batch_size,
        "warm_up": warm_up,
        "steps": steps,
    }
    case = Case(f"{net} -n {workers} -s {servers} {options.link}", setting)
    samplers = {name: sampler(name, system) for name, system in systems.items()}
    return take_turns(case, samplers, options.runs, FIGURE)


def images_per_s(system: str, run: Run) -> float:
    """The mean over the workers. RunFailed unless they trained at the same time."""
    began_s = [report["began_at_s"] for report in run.reports]
    ended_s = [report["ended_at_s"] for report in run.reports]
    overlap = (min(ended_s) - max(began_s)) / (max(ended_s) - min(began_s))
    if overlap < MIN_OVERLAP:
        raise RunFailed(f"{system}: the workers' timed parts overlap by {overlap:.0%} only")
    rates = [
        report["images"] / (report["ended_at_s"] - report["began_at_s"]) for report in run.reports
    ]
    return statistics.mean(rates)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train",
        description="Training: images per second and worker",
    )
    parser.add_argument("--net", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("-n", "--workers", type=int, default=2)
    parser.add_argument("-s", "--servers", type=int, default=1)
    parser.add_argument("--link", choices=LINKS, default="shm", help="for ours (default shm)")
    parser.add_argument("--steps", type=int, help="that are timed (default: each net's own)")
    return run_command(parser, "train", ["side-by-side", "baryon", "native"], measure, FIGURE)


if __name__ == "__main__":
    sys.exit(main())
