"""What many hosts cost the scheduler: seconds until all have joined, then its share of a core.

    python -m benchmarks.scale --hosts 64 1000 --watch 30

The hosts are simulated (simulated_hosts.py): an agent, a server and a worker each, which are
sockets and no processes, since a thousand real ones would measure this machine. The scheduler is
the real one, in a process of its own, with its real timeouts.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import AbstractSet, Any, Deque, Dict, List, Tuple

import psutil
from rich.console import Console
from rich.table import Table

from baryon.scheduler import Cluster, run
from baryon.scheduler.control import AgentConfig, Host, Job, place
from benchmarks.processes import exit_on_sigterm
from benchmarks.report import RESULTS, machine_facts

console = Console()


class SimulatedCluster(Cluster):
    """A Cluster of hosts that one other process plays."""

    def __init__(self, hosts: int) -> None:
        command = [sys.executable, "-m", "benchmarks.simulated_hosts", str(hosts)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.has_begun = threading.Event()  # every task has got the roster
        self._ended: Deque[Tuple[int, str]] = deque()
        threading.Thread(target=self._read, daemon=True).start()

    def scheduler_address(self, job: Job, host: int) -> str:
        return "127.0.0.1"

    def start(self, job: Job, host: int, config: AgentConfig) -> None:
        self._write(config.line())

    def ended(self) -> List[Tuple[int, str]]:
        return [self._ended.popleft() for _ in range(len(self._ended))]

    def release(self, host: int) -> None:
        self._write(f"release {host}\n".encode())

    def kill(self, lost: AbstractSet[int] = frozenset()) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)

    def _write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line == b"begun\n":
                self.has_begun.set()
                continue
            self._ended.append((int(line.split()[1]), "exited with code 0"))


def measure(hosts: int, watch_s: float) -> Dict[str, Any]:
    """One job of ``hosts`` hosts, in this process: started, watched for a while, stopped."""
    with tempfile.TemporaryDirectory() as folder:
        all_hosts = tuple(Host(f"host{number}") for number in range(hosts))
        job = Job(
            id="scale", command=("true",), cwd="/", hosts=all_hosts,
            tasks=place(all_hosts, hosts, hosts), python=sys.executable, log_dir=folder,
            launcher="simulated",
        )  # fmt: skip
        figures: Dict[str, Any] = {"hosts": hosts, "peers": 3 * hosts}
        cluster = SimulatedCluster(hosts)
        watcher = threading.Thread(target=_watch, args=(cluster, watch_s, figures))
        watcher.start()
        figures["exit_code"] = run(job, cluster).exit_code
        watcher.join()
        return figures


def _watch(cluster: SimulatedCluster, watch_s: float, figures: Dict[str, Any]) -> None:
    """Reads this process's own clock in a thread beside the scheduler, and ends it by a signal."""
    process, start, before = psutil.Process(), time.monotonic(), _cpu_s()
    cluster.has_begun.wait()
    figures["begun_s"] = time.monotonic() - start
    figures["cpu_to_begin_s"] = _cpu_s() - before
    start, before = time.monotonic(), _cpu_s()
    time.sleep(watch_s)
    figures["cpu_share"] = (_cpu_s() - before) / (time.monotonic() - start)
    figures["rss_mib"] = process.memory_info().rss / 2**20
    os.kill(os.getpid(), signal.SIGTERM)


def _cpu_s() -> float:
    return sum(psutil.Process().cpu_times()[:2])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--hosts", type=int, nargs="+", default=[64, 1000])
    parser.add_argument("--watch", type=float, default=30.0, metavar="S", help="seconds of quiet")
    parser.add_argument("--output", type=Path, default=RESULTS / "scale.json")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    exit_on_sigterm()
    if options.one:
        json.dump(measure(options.hosts[0], options.watch), sys.stdout)
        return 0
    facts, cases = machine_facts(), []
    table = Table("hosts", "peers", "begun after s", "its CPU s", "CPU then", "memory MiB")
    for hosts in options.hosts:  # a process each: memory is never given back
        command = [sys.executable, "-m", "benchmarks.scale", "--one", "--hosts", str(hosts)]
        ended = subprocess.run(
            [*command, "--watch", str(options.watch)], stdout=subprocess.PIPE, check=True
        )
        case = json.loads(ended.stdout)
        cases.append(case)
        table.add_row(
            str(hosts), str(case["peers"]), f"{case['begun_s']:.2f}",
            f"{case['cpu_to_begin_s']:.2f}", f"{case['cpu_share']:.1%}", f"{case['rss_mib']:.0f}",
        )  # fmt: skip
    console.print(table)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"machine": facts, "cases": cases}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
