"""Systems on the hosts of a test bed, links of a given rate between them.

What `systems` is for this machine: functions that run one script as every worker of a job and
hand back its reports. Each host has its own network namespace; servers and workers are dealt out to
all hosts alike, and the scheduler of either store runs here. It takes root; see deploy/README.md.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import tempfile
from pathlib import Path
from typing import Iterator, List, Optional, Sequence, Tuple

from benchmarks import native
from benchmarks.native import ROOT, Place
from benchmarks.processes import Processes
from benchmarks.systems import (
    ENVIRONMENT,
    EXIT_GRACE_S,
    Run,
    run_command,
    run_native,
    run_side_by_side,
)
from deploy.testbed import Host, Testbed

STREAM = Path(__file__).with_name("tcp_stream.py")
LAUNCH = [sys.executable, "-m", "baryon.launcher"]
START_TIMEOUT_S = 180.0  # many hosts on few cores all import MXNet at once
_RATES = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}


class OnHosts:
    """The hosts of one bed. `baryon`, `native` and `torch` are of the type `System`."""

    def __init__(self, bed: Testbed, flags: Sequence[str] = (), torch_python: str = "") -> None:
        self.bed = bed
        self._flags = list(flags)  # of launch.py
        self._torch_python = torch_python

    def baryon(
        self, script_argv: Sequence[str], workers: int, servers: int, timeout_s: float
    ) -> Run:
        flags = ["-n", str(workers), "-s", str(servers), "-H", str(self.bed.hostfile)]
        flags += ["--workers-per-host", str(workers // len(self.bed.hosts))]
        flags += ["--ssh-config", str(self.bed.ssh_config), "--log-dir", f"{self.folder}/logs"]
        flags += ["--start-timeout", str(START_TIMEOUT_S), *self._flags]
        with self.nothing_left():
            return run_command("baryon", [*LAUNCH, *flags, *script_argv], workers, timeout_s)

    def native(
        self, script_argv: Sequence[str], workers: int, servers: int, timeout_s: float
    ) -> Run:
        root = Place(self.bed.driver_address)
        places = [self.place(host) for host in self.bed.hosts]
        with self.nothing_left():
            return run_native(script_argv, workers, servers, timeout_s, root, places)

    def torch(
        self, script_argv: Sequence[str], workers: int, servers: int, timeout_s: float
    ) -> Run:
        """`workers` processes of a script that uses torch.distributed; there are no servers."""
        per_host = workers // len(self.bed.hosts)
        base = native.clean_environment(ENVIRONMENT)
        base.update(MASTER_ADDR=self.bed.hosts[0].address, MASTER_PORT="29500")
        base.update(WORLD_SIZE=str(workers), GLOO_SOCKET_IFNAME="eth0")
        commands, environments = [], []
        for rank in range(workers):
            place = self.place(self.bed.hosts[rank // per_host])
            commands.append(place.command([self._torch_python, *script_argv]))
            environments.append({**base, "RANK": str(rank)})
        with self.nothing_left():
            return run_side_by_side("torch", commands, environments, timeout_s)

    def tcp_bytes_per_s(self, seconds: float = 3.0) -> float:
        """What one TCP connection carries each way at once, of payload; the slower way counts."""
        first, second = self.bed.hosts[:2]
        stream = [sys.executable, str(STREAM), "--seconds", str(seconds)]
        ends: List[Tuple[Host, List[str]]] = [(first, stream), (second, [*stream, first.address])]
        with self.nothing_left(), Processes() as processes:
            environment = native.clean_environment()
            children = [
                processes.start(self.place(host).command(argv), environment) for host, argv in ends
            ]
            processes.wait(children, 20.0 + seconds, EXIT_GRACE_S, lambda child: False)
            return min(json.loads(child.stdout)["bytes_per_s"] for child in children)

    def place(self, host: Host) -> Place:
        return Place(host.address, functools.partial(self.bed.command, host, cwd=ROOT))

    @property
    def folder(self) -> Path:
        """Seen by the hosts too, and gone with the bed."""
        return self.bed.directory.parent

    @contextlib.contextmanager
    def nothing_left(self) -> Iterator[None]:
        """What a system leaves behind must not slow the next."""
        try:
            yield
        finally:
            for host in self.bed.hosts:
                for process in self.bed.processes(host):
                    process.kill()


@contextlib.contextmanager
def hosts_up(
    count: int, rate: Optional[str] = None, flags: Sequence[str] = (), torch_python: str = ""
) -> Iterator[OnHosts]:
    """A bed of `count` hosts, each link shaped to `rate` each way, gone at the end."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Whatever else is installed, this repository is what the hosts import.
        bashrc = f"export PYTHONPATH='{ROOT}'"
        bed = Testbed(count, folder / "bed", rate, shared=[folder], bashrc=bashrc)
        with bed:
            yield OnHosts(bed, flags, torch_python)


def bytes_per_s(rate: str) -> float:
    """Of a rate in tc's notation: 1gbit, 500mbit."""
    for unit, factor in _RATES.items():
        if rate.endswith(unit):
            return float(rate[: -len(unit)]) * factor / 8
    raise ValueError(f"{rate}: not a rate such as 1gbit or 500mbit")


def wire_seconds(nbytes: int, hosts: int, link_bytes_per_s: float) -> float:
    """The least that a sum of `nbytes` over so many hosts takes, answers included.

    Each host owns its share of the sum. It sends the other hosts' shares of its own bytes, and then
    its share of the sum to each of them: (hosts - 1) / hosts of all bytes, twice. An all-reduce
    cannot send less either (Patarasuk and Yuan, 2009). Workers of one host count as one.
    """
    return 2 * (hosts - 1) / hosts * nbytes / link_bytes_per_s
