"""Seconds from the command to the first finished training step, on hosts reached over SSH.

    sudo python -m benchmarks.hosts -n 4 --native ~/mxnet/tools/launch.py
    sudo python -m benchmarks.hosts --start-only 1 4 16 64

The first compares `launch.py -n 4 -H hosts` with MXNet's own launcher (its tools/launch.py, from a
checkout with its submodules) on the same hosts, network namespaces with an sshd each. The second
starts a trivial command on so many hosts: all that is timed is getting there and back.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Sequence, Tuple

from rich.table import Table

from benchmarks import native
from benchmarks.on_hosts import LAUNCH, OnHosts, hosts_up
from benchmarks.processes import exit_on_sigterm
from benchmarks.report import (
    RESULTS,
    Case,
    Stats,
    console,
    machine_facts,
    table,
    take_turns,
    write,
)
from benchmarks.systems import ENVIRONMENT, Run, System, run_command
from deploy.testbed import Testbed

WORKER = Path(__file__).with_name("startup_worker.py")
NEIGHBOURS = Path("/proc/sys/net/ipv4/neigh/default/gc_thresh3")


class NativeLauncher:
    """MXNet's own launcher, and what it needs to find the hosts of a bed."""

    def __init__(self, launcher: str, hosts: OnHosts) -> None:
        self._launcher = os.path.abspath(launcher)
        self._hosts = hosts
        # It calls the ssh on PATH, knows hosts by address, and its scheduler listens at this
        # machine's main address, which the hosts need a route to.
        bed, folder = hosts.bed, hosts.folder
        (folder / "ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {folder}/config "$@"\n')
        (folder / "ssh").chmod(0o755)
        lines = bed.ssh_config.read_text()
        for host in bed.hosts:
            lines = lines.replace(f"Host {host.name}\n", f"Host {host.name} {host.address}\n")
            route = ["ip", "route", "add", "default", "via", bed.driver_address]
            bed.run(host, route).wait()
        (folder / "config").write_text(lines)
        (folder / "addresses").write_text("".join(f"{h.address}\n" for h in bed.hosts))

    def run(self, script_argv: Sequence[str], workers: int, servers: int, timeout_s: float) -> Run:
        folder = self._hosts.folder
        flags = ["-n", str(workers), "-s", str(servers), "-H", str(folder / "addresses")]
        flags += ["--launcher", "ssh", "--env", "OMP_NUM_THREADS", "--env", "PYTHONUNBUFFERED"]
        # Outside the virtual environment, where MXNet has put an old tracker of its own.
        python = os.path.join(sys.base_prefix, "bin", "python3")
        command = [python, self._launcher, *flags, sys.executable, *script_argv]
        env = native.clean_environment(ENVIRONMENT)
        env["PATH"] = f"{folder}:{env['PATH']}"
        with self._hosts.nothing_left():
            return run_command("native", command, workers, timeout_s, env)


def compare(options: argparse.Namespace, hosts: OnHosts) -> None:
    """Both launchers in turns."""
    workers = options.workers
    systems: Dict[str, System] = {"baryon": hosts.baryon}
    if options.native:
        systems["native"] = NativeLauncher(options.native, hosts).run

    def last_step(system: System) -> Tuple[float, Run]:
        run = system([str(WORKER)], workers, workers, options.timeout)
        return max(report["first_step_at_s"] for report in run.reports) - run.started_at_s, run

    samples = {name: functools.partial(last_step, system) for name, system in systems.items()}
    facts = machine_facts()
    case = take_turns(Case(f"-n {workers} over ssh", {"hosts": workers}), samples, options.runs)
    console.print(table("From the command to the first step, over SSH", [case]))
    write(options.output, "hosts", facts, [case])


@contextlib.contextmanager
def many_neighbours() -> Iterator[None]:
    """Let the kernel know more than the 1024 addresses of the default, for all hosts together."""
    before = NEIGHBOURS.read_text()
    NEIGHBOURS.write_text(str(max(int(before), 16384)))
    try:
        yield
    finally:
        NEIGHBOURS.write_text(before)


def start_only(options: argparse.Namespace, counts: Sequence[int]) -> None:
    """`true` on so many hosts, several times."""
    cases: List[Dict[str, Any]] = []
    shown = Table("hosts", "median s", "min s", "max s", "launch.py: CPU s", "memory MiB")
    for count in counts:
        with tempfile.TemporaryDirectory() as folder, Testbed(count, Path(folder) / "bed") as bed:
            seconds, cpu_s, rss = [], [], []
            for _ in range(options.runs + 1):
                start = time.monotonic()
                flags = ["-n", str(count), "-s", str(count), "-H", str(bed.hostfile)]
                flags += ["--ssh-config", str(bed.ssh_config), "--log-dir", f"{folder}/logs"]
                used = _usage([*LAUNCH, *flags, "true"])
                seconds.append(time.monotonic() - start)
                cpu_s.append(used["cpu_s"])
                rss.append(used["rss_mib"])
            stats, cpu = Stats.of(seconds[1:]), Stats.of(cpu_s[1:])
        cases.append({"hosts": count, "seconds": stats.values, "cpu_s": cpu.values, "rss_mib": rss})
        shown.add_row(
            str(count), *(f"{v:.2f}" for v in (stats.median, stats.minimum, stats.maximum)),
            f"{cpu.median:.2f}", f"{max(rss):.0f}",
        )  # fmt: skip
    console.print(shown)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine_facts(), "cases": cases}, indent=2)
    options.output.with_name("hosts-start.json").write_text(text + "\n")


def _usage(argv: Sequence[str]) -> Mapping[str, float]:
    """What a command used itself: not the hosts, which are processes of the bed."""
    env = native.clean_environment(ENVIRONMENT)
    child = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert child.stderr is not None
    said = child.stderr.read().decode()
    child.stderr.close()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
    if child.returncode:
        raise RuntimeError(f"exit code {child.returncode}: {said}")
    return {"cpu_s": used.ru_utime + used.ru_stime, "rss_mib": used.ru_maxrss / 1024}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hosts", description=__doc__)
    parser.add_argument("-n", "--workers", type=int, default=4)
    parser.add_argument("--native", metavar="FILE", help="MXNet's tools/launch.py")
    parser.add_argument("--start-only", type=int, nargs="+", metavar="HOSTS")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds a run may take")
    parser.add_argument("--output", type=Path, default=RESULTS / "hosts.json")
    options = parser.parse_args()
    exit_on_sigterm()
    if options.start_only:
        with many_neighbours():
            start_only(options, options.start_only)
        return 0
    with hosts_up(options.workers) as hosts:
        compare(options, hosts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
