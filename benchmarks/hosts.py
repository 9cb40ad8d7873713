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
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Sequence

from benchmarks import native
from benchmarks.processes import exit_on_sigterm
from benchmarks.report import (
    RESULTS,
    Case,
    Grid,
    Stats,
    machine_facts,
    take_turns,
    write,
    write_cases,
)
from benchmarks.systems import ENVIRONMENT, Run, run_command
from deploy.testbed import Testbed

WORKER = Path(__file__).with_name("startup_worker.py")
NEIGHBOURS = Path("/proc/sys/net/ipv4/neigh/default/gc_thresh3")
LAUNCH = [sys.executable, "-m", "baryon.launcher"]


class Hosts:
    """The hosts of a bed, and how either launcher is told of them."""

    def __init__(self, bed: Testbed, folder: Path) -> None:
        self.bed = bed
        # MXNet's launcher calls the ssh on PATH, knows hosts by address, and its scheduler listens
        # at this machine's main address, which the hosts need a route to.
        (folder / "ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {folder}/config "$@"\n')
        (folder / "ssh").chmod(0o755)
        lines = bed.ssh_config.read_text()
        for host in bed.hosts:
            lines = lines.replace(f"Host {host.name}\n", f"Host {host.name} {host.address}\n")
            route = ["ip", "route", "add", "default", "via", bed.driver_address]
            bed.run(host, route).wait()
        (folder / "config").write_text(lines)
        (folder / "addresses").write_text("".join(f"{h.address}\n" for h in bed.hosts))
        self._folder = folder

    def baryon(self, workers: int, timeout_s: float) -> Run:
        flags = ["-n", str(workers), "-s", str(workers), "-H", str(self.bed.hostfile)]
        flags += ["--ssh-config", str(self.bed.ssh_config)]
        return self._run("baryon", [*LAUNCH, *flags, str(WORKER)], workers, timeout_s)

    def native(self, launcher: str, workers: int, timeout_s: float) -> Run:
        flags = ["-n", str(workers), "-s", str(workers), "-H", str(self._folder / "addresses")]
        flags += ["--launcher", "ssh", "--env", "OMP_NUM_THREADS", "--env", "PYTHONUNBUFFERED"]
        worker = [sys.executable, str(WORKER)]
        # Outside the virtual environment, where MXNet has put an old tracker of its own.
        python = os.path.join(sys.base_prefix, "bin", "python3")
        command = [python, launcher, *flags, *worker]
        return self._run("native", command, workers, timeout_s)

    def _run(self, system: str, argv: Sequence[str], workers: int, timeout_s: float) -> Run:
        env = native.clean_environment(ENVIRONMENT)
        env["PATH"] = f"{self._folder}:{env['PATH']}"
        try:
            return run_command(system, argv, workers, timeout_s, env)
        finally:
            for host in self.bed.hosts:  # what a launcher has left behind must not slow the next
                for process in self.bed.processes(host):
                    process.kill()


def compare(options: argparse.Namespace, hosts: Hosts) -> None:
    """Both launchers in turns."""

    def last_step(run: Run) -> Any:
        return max(report["first_step_at_s"] for report in run.reports) - run.started_at_s, run

    workers, limit_s = options.workers, options.timeout
    samples = {"baryon": lambda: last_step(hosts.baryon(workers, limit_s))}
    if options.native:
        launcher = os.path.abspath(options.native)
        samples["native"] = lambda: last_step(hosts.native(launcher, workers, limit_s))
    facts = machine_facts()
    case = take_turns(Case(f"-n {workers} over ssh", {"hosts": workers}), samples, options.runs)
    write_cases(options.output, "From the command to the first step, over SSH", facts, [case])


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
    headings = ("hosts", "median s", "min s", "max s", "launch.py: CPU s", "memory MiB")
    rows = []
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
        rows.append((
            str(count), *(f"{v:.2f}" for v in (stats.median, stats.minimum, stats.maximum)),
            f"{cpu.median:.2f}", f"{max(rss):.0f}",
        ))  # fmt: skip
    content = {"machine": machine_facts(), "cases": cases}
    shown = Grid("A trivial command on many hosts", headings, rows)
    write(options.output.with_name("hosts-start.json"), content, shown)


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
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bed = Testbed(options.workers, folder / "bed", shared=[folder])
        with bed:
            compare(options, Hosts(bed, folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
