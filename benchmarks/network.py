"""Seconds for one push and pull of all arrays of a model, between hosts on links of a known rate.

    sudo python -m benchmarks.network --hosts 2 4 --rate 1gbit --torch-python TORCH_VENV/bin/python
    sudo python -m benchmarks.network --hosts 2 --workers-per-host 4

Each host is a network namespace with one server; its link is shaped each way. Beside the seconds
stands what nobody can go below: the wire's limit at the nominal rate, and the same at the rate that
one raw TCP stream had of payload on these links, which shows that they are as fast as they claim.
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path
from typing import Dict, List, Tuple

from benchmarks.models import FP32_NBYTES, MODELS, trainable_arrays
from benchmarks.on_hosts import OnHosts, bytes_per_s, hosts_up, wire_seconds
from benchmarks.processes import exit_on_sigterm
from benchmarks.pushpull import ALLREDUCE, WORKER, seconds_of
from benchmarks.report import RESULTS, Case, console, machine_facts, table, take_turns, write
from benchmarks.systems import Run, RunFailed, System


def measure_case(options: argparse.Namespace, sizes: List[int], count: int) -> Case:
    """All systems on `count` hosts."""
    workers = count * options.workers_per_host
    nbytes = FP32_NBYTES * sum(sizes)
    flags = ["--no-encryption"] if options.no_encryption else []
    with hosts_up(count, options.rate, flags, options.torch_python) as hosts:
        payload_per_s = hosts.tcp_bytes_per_s()
        console.print(f"one raw TCP stream each way: {payload_per_s / 1e6:.1f} MB/s of payload")
        setting = {
            "model": options.model,
            "nbytes": nbytes,
            "hosts": count,
            "workers": workers,
            "servers": count,
            "rate": options.rate,
            "raw_tcp_bytes_per_s": payload_per_s,
            "launch_flags": flags,
        }
        name = f"{count}x{options.workers_per_host} {options.rate}"
        case = Case(name, setting)
        case.limits = {
            "wire": wire_seconds(nbytes, count, bytes_per_s(options.rate)),
            "raw TCP stream": wire_seconds(nbytes, count, payload_per_s),
        }
        return take_turns(case, _samples(options, sizes, hosts, workers), options.runs)


def _samples(
    options: argparse.Namespace, sizes: List[int], hosts: OnHosts, workers: int
) -> Dict[str, functools.partial[Tuple[float, Run]]]:
    repetitions = ["--repetitions", str(options.repetitions)]
    store_script = [str(WORKER), "--model", options.model, *repetitions]
    torch_script = [str(ALLREDUCE), "--sizes", ",".join(map(str, sizes)), *repetitions]

    def sample(system: System, script: List[str]) -> Tuple[float, Run]:
        run = system(script, workers, len(hosts.bed.hosts), options.timeout)
        return seconds_of(run), run

    systems = {
        "baryon": (hosts.baryon, store_script),
        "native": (hosts.native, store_script),
        "gloo": (hosts.torch, torch_script),
    }
    return {name: functools.partial(sample, *systems[name]) for name in options.systems}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.network", description=__doc__)
    parser.add_argument("--model", default=MODELS[0], help=f"{', '.join(MODELS)}, or another")
    parser.add_argument("--hosts", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--workers-per-host", type=int, default=1)
    parser.add_argument("--rate", default="1gbit", help="of each link, each way (default 1gbit)")
    parser.add_argument("--runs", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--repetitions", type=int, default=5, help="within a run (default 5)")
    parser.add_argument("--systems", nargs="+", choices=["baryon", "native", "gloo"])
    parser.add_argument("--torch-python", default="", help="an interpreter with torch, for gloo")
    parser.add_argument("--no-encryption", action="store_true", help="launch.py's own flag")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds a run may take")
    parser.add_argument("--output", type=Path, default=RESULTS / "network.json")
    options = parser.parse_args()
    if options.systems is None:
        options.systems = ["baryon", "native"] + ["gloo"] * bool(options.torch_python)
    if "gloo" in options.systems and not options.torch_python:
        parser.error("gloo: --torch-python is missing")
    if min(options.hosts) < 2:
        parser.error("--hosts: one host has no wire")

    exit_on_sigterm()
    facts = machine_facts()
    sizes = [array.size for array in trainable_arrays(options.model)]
    try:
        cases = [measure_case(options, sizes, count) for count in options.hosts]
    except RunFailed as failure:
        console.print(f"given up: {failure}", markup=False)
        return 1
    console.print(table("Push and pull between hosts", cases))
    write(options.output, "network", facts, cases)
    return 0


if __name__ == "__main__":
    sys.exit(main())
