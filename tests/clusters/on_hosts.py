"""Jobs that are started on the first host of a test bed, as on a cluster's login node."""

import shutil
from pathlib import Path
from typing import Any, Dict, List, Optional

from deploy import testbed
from deploy.testbed import Host, Testbed
from tests.cluster import Cluster, JobRun
from tests.waiting import wait_until

_DAEMONS = ("sge_qmaster", "sge_execd")


def mpi_problems() -> List[str]:
    """Why Open MPI cannot run on hosts here."""
    found = ["no mpirun (Debian: openmpi-bin)"] * (shutil.which("mpirun") is None)
    return testbed.problems() + found


class HostsCluster(Cluster):
    """Starts jobs with ``arguments`` before all others; ``env`` is added to their environment."""

    def __init__(self, cwd: Path, bed: Testbed, arguments: List[str], env: Dict[str, str]) -> None:
        super().__init__(cwd)
        self.bed = bed
        self.login, *self.others = bed.hosts
        self._arguments = arguments
        self._env = env

    def start(
        self, *args: object, env: Optional[Dict[str, str]] = None, ignore: Optional[int] = None
    ) -> JobRun:
        run = JobRun(
            [*self._arguments, *map(str, args)],
            self.cwd,
            {**self._env, **(env or {})},
            ignore,
            lambda argv: self.bed.command(self.login, argv, self.cwd),
        )
        self._runs.append(run)
        return run

    def processes(self, host: Host, *words: str) -> List[Any]:
        """What runs of jobs on a host, with ``words`` in the command line; the oldest first."""
        found = [
            process
            for process in (self.bed.processes(host) if host.is_up else ())
            if process.name() not in _DAEMONS
            and all(word in " ".join(process.cmdline()) for word in words)
        ]
        return sorted(found, key=lambda process: process.create_time())

    def wait_until_hosts_are_empty(self) -> None:
        hosts = self.bed.hosts
        wait_until(lambda: not any(map(self.processes, hosts)), "the end of all on the hosts", 30.0)

    def secrets(self) -> List[Path]:
        """Agents' configurations that lie about."""
        return list(self.cwd.rglob(".agents-*"))

    def close(self) -> None:
        try:
            super().close()
            self.wait_until_hosts_are_empty()
            assert self.secrets() == []
        finally:
            for host in self.bed.hosts:
                for process in self.processes(host):
                    process.kill()
