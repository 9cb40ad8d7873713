"""The systems that a benchmark compares: each runs one script and hands back its reports.

A script reports by printing one line, REPORT_MARK and a flat JSON object, in every worker. What
counts is the report and not the exit code, for the native store may abort or hang at exit.

A new peer is one more function of the type `System`.
"""

from __future__ import annotations

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
# What our bytes travel by between the tasks of one host, and the flags that make them.
LINKS = {
    "shm": [],  # launch.py's default
    "tcp": ["--no-shared-memory"],
    "tcp-plain": ["--no-shared-memory", "--no-encryption"],
}

Report = Dict[str, Any]


class Setup(NamedTuple):
    """How a system is to run a script."""

    workers: int
    servers: int
    timeout_s: float
    link: str = "shm"  # ours only
    torch_python: str = sys.executable  # gloo only: an interpreter that has PyTorch


class Run(NamedTuple):
    """One start of one system. `started_at_s` is on the clock of `time.time`."""

    reports: List[Report]
    started_at_s: float
    exit_codes: List[Optional[int]]  # None: ended by us, for it did not leave


class Command(NamedTuple):
    """A command, its whole environment, and how many workers report in its output."""

    argv: Sequence[str]
    env: Mapping[str, str]
    workers: int = 1


System = Callable[[Sequence[str], Setup], Run]  # a script with its arguments


class RunFailed(Exception):
    """A system did not deliver one right report from each worker. Holds the end of its output."""


class CannotRun(Exception):
    """A system lacks what it needs here. Says what, and how to get it or do without."""


def run_baryon(script_argv: Sequence[str], setup: Setup) -> Run:
    flags = ["-n", str(setup.workers), "-s", str(setup.servers), "--launcher", "local"]
    launch = [sys.executable, "-m", "baryon.launcher", *flags, *LINKS[setup.link]]
    return run_command("baryon", [*launch, *script_argv], setup.workers, setup.timeout_s)


def run_native(script_argv: Sequence[str], setup: Setup) -> Run:
    started_at_s = time.time()
    results = native.run(
        script_argv, setup.workers, setup.servers, ENVIRONMENT, setup.timeout_s, EXIT_GRACE_S,
        REPORT_MARK,
    )  # fmt: skip
    output = "\n".join(result.stdout + result.stderr for result in results)
    reports = _checked_reports("native", output, setup.workers)
    return Run(reports, started_at_s, [result.returncode for result in results])


def run_alone(script_argv: Sequence[str], setup: Setup) -> Run:
    """One plain process of the script, whatever the number of workers and servers."""
    return run_command("alone", native.python_command(script_argv), 1, setup.timeout_s)


def run_side_by_side(script_argv: Sequence[str], setup: Setup) -> Run:
    """As many plain processes of the script as there are workers, which know nothing of another."""
    command = Command(native.python_command(script_argv), native.clean_environment(ENVIRONMENT))
    return run_commands("side-by-side", [command] * setup.workers, setup.timeout_s)


def run_gloo(script_argv: Sequence[str], setup: Setup) -> Run:
    """The processes of a PyTorch script, told of each other as torchrun does it."""
    env = native.clean_environment(ENVIRONMENT)
    env.update(
        MASTER_ADDR=native.LOOPBACK,
        MASTER_PORT=str(native.free_port()),
        WORLD_SIZE=str(setup.workers),
    )
    argv = [setup.torch_python, *script_argv]
    commands = [Command(argv, {**env, "RANK": str(rank)}) for rank in range(setup.workers)]
    return run_commands("gloo", commands, setup.timeout_s)


def torch_version(python: str) -> str:
    """The version of the PyTorch of the interpreter `python`; CannotRun unless it has gloo."""
    check = "import torch; print(torch.__version__); assert torch.distributed.is_gloo_available()"
    try:
        found = subprocess.run([python, "-c", check], stdin=subprocess.DEVNULL, capture_output=True)
        if found.returncode == 0:
            return found.stdout.decode().strip()
        fault = found.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    except OSError as error:
        fault = str(error)
    raise CannotRun(
        f"gloo needs PyTorch, which {python} has not ({fault}): name an interpreter that has "
        "it with --torch-python PATH, or leave gloo out with --systems baryon native"
    )


SYSTEMS: Dict[str, System] = {
    "baryon": run_baryon,
    "native": run_native,
    "alone": run_alone,
    "side-by-side": run_side_by_side,
    "gloo": run_gloo,
}


def report_line(**fields: Any) -> str:
    """What a script writes to its stdout, in one call, to report."""
    return f"{REPORT_MARK}{json.dumps(fields)}\n"


def run_command(
    system: str,
    argv: Sequence[str],
    workers: int,
    timeout_s: float,
    env: Optional[Mapping[str, str]] = None,
) -> Run:
    """Run a command until `workers` workers have reported; `env` is its whole environment."""
    command = Command(argv, env or native.clean_environment(ENVIRONMENT), workers)
    return run_commands(system, [command], timeout_s)


def run_commands(system: str, commands: Sequence[Command], timeout_s: float) -> Run:
    """Run commands side by side until all their workers have reported."""
    with Processes() as processes:
        started_at_s = time.time()
        expected = {processes.start(one.argv, one.env): one.workers for one in commands}
        processes.wait(
            list(expected),
            timeout_s,
            EXIT_GRACE_S,
            is_done=lambda child: (
                (child.stdout + child.stderr).count(REPORT_MARK) >= expected[child]
            ),
        )
        exit_codes = [child.exit_code() for child in expected]
        processes.end()
        output = "\n".join(child.stdout + child.stderr for child in expected)
    workers = sum(one.workers for one in commands)
    return Run(_checked_reports(system, output, workers), started_at_s, exit_codes)


def _checked_reports(system: str, output: str, workers: int) -> List[Report]:
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
