"""Images a second of each worker in training, against the same script without a store.

    python -m benchmarks.train --net mlp resnet18 lenet --runs 5

What two workers could reach is what two copies of the script reach that run side by side on this
machine and know nothing of each other: `copies`. The figure is the share of that: their seconds a
step divided by a store's, so *ours / copies* is the inverse of our share. Data is made up and
already in memory; MXNet has one thread a process.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Tuple

from benchmarks.report import Case, console, run_command, take_turns
from benchmarks.systems import Run, System

WORKER = Path(__file__).with_name("train_worker.py")
NETS = ("mlp", "resnet18", "lenet")
WORKERS, SERVERS = 2, 1


def measure(options: argparse.Namespace, systems: Mapping[str, System]) -> List[Case]:
    return [_measure_case(options, systems, net) for net in options.net]


def _measure_case(options: argparse.Namespace, systems: Mapping[str, System], net: str) -> Case:
    def sampler(name: str, system: System) -> Callable[[], Tuple[float, Run]]:
        def sample() -> Tuple[float, Run]:
            with tempfile.TemporaryDirectory() as folder:
                script = [str(WORKER), "--net", net, "--kvstore", "none"]
                if name == "copies":
                    script += ["--meet", folder, "--copies", str(WORKERS)]
                else:
                    script[-1] = "dist_sync"
                run = system(script, WORKERS, SERVERS, options.timeout)
            return max(report["step_s"] for report in run.reports), run

        return sample

    samplers: Dict[str, Callable[[], Tuple[float, Run]]] = {
        name: sampler(name, system) for name, system in systems.items()
    }
    case = take_turns(Case(net, {"net": net, "workers": WORKERS}), samplers, options.runs)
    if "copies" in case.seconds:
        for name, stats in case.seconds.items():
            share = case.seconds["copies"].median / stats.median
            console.print(f"{net}: {name} reaches {share:.0%} of the copies' images a second")
    return case


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__)
    parser.add_argument("--net", nargs="+", choices=NETS, default=list(NETS))
    return run_command(parser, "train", ["baryon", "native", "copies"], measure)


if __name__ == "__main__":
    sys.exit(main())
