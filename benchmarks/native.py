"""Run a script on MXNet's own distributed store, its roles by hand, on this machine.

    python -m benchmarks.native -n 2 -s 2 script.py --its arguments

The native store may abort or hang at exit, after the work is done, and hangs when a worker fails.
So the workers are waited for with a limit, and then every role is ended, whatever happened.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import socket
import sys
from importlib import metadata
from pathlib import Path
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence

from benchmarks.processes import Child, Processes, exit_on_sigterm

ROOT = Path(__file__).resolve().parents[1]
LOOPBACK = "127.0.0.1"

_SHIM = "import baryon.worker.mxnet; "
_RUN_SCRIPT = (
    "import os, runpy, sys; sys.argv = sys.argv[1:]; "
    "sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0])); "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


class WorkerResult(NamedTuple):
    """What became of one worker. The order of workers is that of starting, not of `kv.rank`."""

    returncode: Optional[int]  # None: it still ran at the limit and was ended
    stdout: str
    stderr: str


class Place(NamedTuple):
    """Where a role runs: its address there, and what makes a command one that runs there."""

    address: str = LOOPBACK
    command: Callable[[Sequence[str]], List[str]] = list


HERE = Place()


def run(
    script_argv: Sequence[str],
    workers: int,
    servers: int,
    env: Optional[Mapping[str, str]] = None,
    timeout_s: float = 600.0,
    grace_s: float = 20.0,
    done_mark: Optional[str] = None,
    root: Place = HERE,
    places: Sequence[Place] = (HERE,),
) -> List[WorkerResult]:
    """Run `script_argv` (a Python script and its arguments) as every worker of a native job.

    `env` is added to this process's environment. A process that fails leaves the others `grace_s`
    to end by themselves, as do workers that have all written `done_mark` to their stdout. The
    scheduler runs at `root`; servers and workers are dealt out to `places`.
    """
    base = clean_environment(env)
    base.update(
        DMLC_PS_ROOT_URI=root.address,
        DMLC_PS_ROOT_PORT=str(free_port(root.address)),
        DMLC_NUM_WORKER=str(workers),
        DMLC_NUM_SERVER=str(servers),
    )

    def is_done(child: Child) -> bool:
        return done_mark is not None and done_mark in child.stdout

    with Processes() as processes:

        def start(role: str, command: Sequence[str], place: Place) -> Child:
            environment = {**base, "DMLC_ROLE": role, "DMLC_NODE_HOST": place.address}
            return processes.start(place.command(command), environment)

        start("scheduler", role_command(), root)
        for _, place in zip(range(servers), itertools.cycle(places)):
            start("server", role_command(), place)
        command = python_command(script_argv)
        dealt = zip(range(workers), itertools.cycle(places))
        started = [start("worker", command, place) for _, place in dealt]
        processes.wait(started, timeout_s, grace_s, is_done)
        codes = [child.exit_code() for child in started]
        processes.end()
        return [
            WorkerResult(code, child.stdout, child.stderr) for code, child in zip(codes, started)
        ]


def python_command(script_argv: Sequence[str]) -> List[str]:
    """The command that runs a script in this interpreter, with what MXNet needs there."""
    if not needs_numpy_shim():
        return [sys.executable, *script_argv]
    return [sys.executable, "-c", _SHIM + _RUN_SCRIPT, *script_argv]


def role_command() -> List[str]:
    """`import mxnet` under a native DMLC_ROLE of server or scheduler *is* that role."""
    shim = _SHIM if needs_numpy_shim() else ""
    return [sys.executable, "-c", shim + "import mxnet"]


def needs_numpy_shim() -> bool:
    """MXNet 1.9.1 uses aliases that NumPy 1.24 removed."""
    found = re.match(r"(\d+)\.(\d+)", metadata.version("numpy"))
    return found is not None and tuple(map(int, found.groups())) >= (1, 24)


def clean_environment(extra: Optional[Mapping[str, str]] = None) -> Dict[str, str]:
    """This environment without any job's variables, with the repository importable."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("DMLC_", "BARYON_"))}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")]))
    env.update(extra or {})
    return env


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.native", description=__doc__)
    parser.add_argument("-n", "--workers", type=int, default=2)
    parser.add_argument("-s", "--servers", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS")
    parser.add_argument("script", help="a Python script")
    parser.add_argument("args", nargs=argparse.REMAINDER, help="its arguments")
    options = parser.parse_args(argv)

    exit_on_sigterm()
    results = run(
        [options.script, *options.args], options.workers, options.servers, timeout_s=options.timeout
    )
    for number, result in enumerate(results):
        sys.stdout.write(result.stdout)
        sys.stderr.write(result.stderr)
        if result.returncode is None:
            sys.stderr.write(f"worker {number} had not ended after {options.timeout:g} s\n")
        elif result.returncode != 0:
            sys.stderr.write(f"worker {number} exited with {result.returncode}\n")
    return 0 if all(result.returncode == 0 for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
