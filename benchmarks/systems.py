"""The systems that a benchmark compares: each runs one script and hands back its reports.

A script reports by printing one line, REPORT_MARK and a flat JSON object, in every worker. What
counts is the report and not the exit code, for the native store may abort or hang at exit.

A new peer is one more function of the type `System`.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence

from benchmarks import native
from benchmarks.processes import Processes

REPORT_MARK = "BENCHMARK-REPORT "
EXIT_GRACE_S = 10.0
TAIL_CHARS = 3000
# One thread for each process's operators: the processes share the cores anyway.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}

Report = Dict[str, Any]


class Run(NamedTuple):
    """One start of one system. `started_at_s` is on the clock of `time.time`."""

    reports: List[Report]
    started_at_s: float
    exit_codes: List[Optional[int]]  # None: ended by us, for it did not leave


System = Callable[[Sequence[str], int, int, float], Run]  # script and arguments, -n, -s, limit in s
LINKS: Dict[str, List[str]] = {
    "shm": [],
    "tcp": ["--no-shared-memory"],
    "tcp-plain": ["--no-shared-memory", "--no-encryption"],
}


class RunFailed(Exception):
    """A system did not deliver one right report from each worker. Holds the end of its output."""


def run_baryon(
    script_argv: Sequence[str],
    workers: int,
    servers: int,
    timeout_s: float,
    flags: Sequence[str] = (),
) -> Run:
    counts = ["-n", str(workers), "-s", str(servers)]
    launch = [sys.executable, "-m", "baryon.launcher", *counts, "--launcher", "local", *flags]
    return run_command("baryon", [*launch, *script_argv], workers, timeout_s)


def run_native(
    script_argv: Sequence[str],
    workers: int,
    servers: int,
    timeout_s: float,
    root: native.Place = native.HERE,
    places: Sequence[native.Place] = (native.HERE,),
) -> Run:
    started_at_s = time.time()
    results = native.run(
        script_argv, workers, servers, ENVIRONMENT, timeout_s, EXIT_GRACE_S, REPORT_MARK,
        root, places,
    )  # fmt: skip
    output = "\n".join(result.stdout + result.stderr for result in results)
    reports = checked_reports("native", output, workers)
    return Run(reports, started_at_s, [result.returncode for result in results])


def run_alone(
    script_argv: Sequence[str],
    workers: int,
    servers: int,
    timeout_s: float,
) -> Run:
    """One plain process of the script, whatever the number of workers and servers."""
    return run_copies(script_argv, 1, servers, timeout_s)


def run_copies(
    script_argv: Sequence[str],
    workers: int,
    servers: int,
    timeout_s: float,
) -> Run:
    """As many plain processes of the script as there would be workers, side by side."""
    command, environment = native.python_command(script_argv), native.clean_environment(ENVIRONMENT)
    return run_side_by_side("script", [command] * workers, [environment] * workers, timeout_s)


def run_torch(
    torch_python: str,
    script_argv: Sequence[str],
    workers: int,
    servers: int,
    timeout_s: float,
) -> Run:
    """`workers` processes of a script that uses torch.distributed, in an interpreter with torch."""
    base = native.clean_environment(ENVIRONMENT)
    base.update(MASTER_ADDR=native.LOOPBACK, MASTER_PORT=str(native.free_port(native.LOOPBACK)))
    base.update(WORLD_SIZE=str(workers), GLOO_SOCKET_IFNAME="lo")
    environments = [{**base, "RANK": str(rank)} for rank in range(workers)]
    command = [torch_python, *script_argv]
    return run_side_by_side("torch", [command] * workers, environments, timeout_s)


def torch_interpreter(path: str) -> str:
    """The type of a `--torch-python`: an interpreter whose PyTorch has gloo."""
    check = "import torch.distributed as d; assert d.is_gloo_available(), 'built without gloo'"
    try:
        found = subprocess.run([path, "-c", check], stdin=subprocess.DEVNULL, capture_output=True)
        if found.returncode == 0:
            return path
        fault = found.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    except OSError as error:
        fault = str(error)
    raise argparse.ArgumentTypeError(
        f"{path} has no PyTorch with gloo ({fault}): `{path} -m pip install torch numpy`, or leave "
        "gloo out and this flag away"
    )


SYSTEMS: Dict[str, System] = {
    "baryon": run_baryon,
    "native": run_native,
    "alone": run_alone,
    "copies": run_copies,
}


def over(link: str, systems: Mapping[str, System]) -> Dict[str, System]:
    """The systems, ours by one of the `LINKS`; the others have no choice."""
    ours = functools.partial(run_baryon, flags=LINKS[link])
    return {name: ours if name == "baryon" else system for name, system in systems.items()}


def report_line(**fields: Any) -> str:
    """What a script writes to its stdout, in one call, to report."""
    return f"{REPORT_MARK}{json.dumps(fields)}\n"


def run_side_by_side(
    system: str,
    commands: Sequence[Sequence[str]],
    environments: Sequence[Mapping[str, str]],
    timeout_s: float,
) -> Run:
    """Run commands at the same time, each of which reports once."""
    with Processes() as processes:
        started_at_s = time.time()
        pairs = zip(commands, environments)
        children = [processes.start(command, environment) for command, environment in pairs]
        processes.wait(children, timeout_s, EXIT_GRACE_S, lambda child: REPORT_MARK in child.stdout)
        codes = [child.exit_code() for child in children]
        processes.end()
        output = "\n".join(child.stdout + child.stderr for child in children)
    return Run(checked_reports(system, output, len(children)), started_at_s, codes)


def run_command(
    system: str,
    argv: Sequence[str],
    workers: int,
    timeout_s: float,
    env: Optional[Mapping[str, str]] = None,
) -> Run:
    """Run a command until `workers` workers have reported; `env` is its whole environment."""
    with Processes() as processes:
        started_at_s = time.time()
        child = processes.start(argv, env or native.clean_environment(ENVIRONMENT))
        processes.wait(
            [child],
            timeout_s,
            EXIT_GRACE_S,
            is_done=lambda child: (child.stdout + child.stderr).count(REPORT_MARK) >= workers,
        )
        exit_code = child.exit_code()
        processes.end()
        output = child.stdout + child.stderr
    return Run(checked_reports(system, output, workers), started_at_s, [exit_code])


def checked_reports(system: str, output: str, workers: int) -> List[Report]:
    """One right report from each worker; raises RunFailed."""
    decoder = json.JSONDecoder()
    reports = [decoder.raw_decode(part)[0] for part in output.split(REPORT_MARK)[1:]]
    if len(reports) != workers:
        raise RunFailed(
            f"{system}: {len(reports)} of {workers} workers reported; the end of the output:\n"
            + output[-TAIL_CHARS:]
        )
    for report in reports:
        if report["store"].startswith("baryon.") != (system == "baryon"):
            raise RunFailed(f"{system}: the script was served by {report['store']}")
        if report["omp_num_threads"] != ENVIRONMENT["OMP_NUM_THREADS"]:
            raise RunFailed(f"{system}: OMP_NUM_THREADS was {report['omp_num_threads']}")
    return reports
