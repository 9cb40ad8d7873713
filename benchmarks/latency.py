"""Milliseconds for the round trip of one small key: push, pull, and wait for the answer.

    python -m benchmarks.latency --link shm tcp --runs 7

Two workers and a server on this host. A run's figure is the median of the repetitions (500 after
100 to warm up) of all its workers. There is no barrier between repetitions: a key's answer to one
worker needs the other's push, so they go in step by themselves.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import List, Mapping, Tuple

from benchmarks.report import Case, Figure, Sample, run_command, take_turns
from benchmarks.systems import LINKS, Run, Setup, System

WORKER = Path(__file__).with_name("latency_worker.py")
FIGURE = Figure(unit="ms")


def measure(options: argparse.Namespace, systems: Mapping[str, System]) -> List[Case]:
    return [_measure_case(options, systems, link) for link in options.link]


def _measure_case(options: argparse.Namespace, systems: Mapping[str, System], link: str) -> Case:
    workers, servers = options.workers, options.servers
    setup = Setup(workers, servers, options.timeout, link)
    arguments = {
        "elements": options.elements,
        "repetitions": options.repetitions,
        "warm_up": options.warm_up,
    }
    script = [str(WORKER)]
    for name, value in arguments.items():
        script += [f"--{name.replace('_', '-')}", str(value)]

    def sampler(system: System) -> Sample:
        def sample() -> Tuple[float, Run]:
            run = system(script, setup)
            times_s = [time_s for report in run.reports for time_s in report["times_s"]]
            return 1e3 * statistics.median(times_s), run

        return sample

    setting = {"workers": workers, "servers": servers, "link": link, **arguments}
    case = Case(f"-n {workers} -s {servers} {link}", setting)
    samplers = {name: sampler(system) for name, system in systems.items()}
    return take_turns(case, samplers, options.runs, FIGURE)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency", description="Round trip of one small key"
    )
    parser.add_argument("-n", "--workers", type=int, default=2)
    parser.add_argument("-s", "--servers", type=int, default=1)
    parser.add_argument("--link", nargs="+", choices=LINKS, default=["shm", "tcp"], help="for ours")
    parser.add_argument("--elements", type=int, default=4, help="of the key, fp32 (default 4)")
    parser.add_argument("--repetitions", type=int, default=500, help="within a run (default 500)")
    parser.add_argument("--warm-up", type=int, default=100, help="before them (default 100)")
    return run_command(parser, "latency", ["baryon", "native"], measure, FIGURE)


if __name__ == "__main__":
    sys.exit(main())
