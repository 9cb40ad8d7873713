"""Jobs over SSH on real hosts: network namespaces, each with its own sshd (deploy/testbed).

The hosts are made once and serve all tests. After each test no process of a job may be left on any
of them, and what was broken is mended. How long each failure took is printed at the end of the run.
"""

import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import pytest

from deploy.testbed import Host, Testbed
from tests.cluster import Cluster, JobRun
from tests.waiting import wait_until

SILENCE_S = 3  # --heartbeat-timeout in tests; 20 by default
TOOK = "failure on hosts"  # a property of tests: its name, seconds to the first word and to the end


@pytest.fixture(scope="session")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    base = tmp_path_factory.getbasetemp()
    with Testbed(4, tmp_path_factory.mktemp("hosts") / "bed", shared=[base]) as bed:
        yield bed


class SshCluster(Cluster):
    """Starts jobs on the hosts of a bed."""

    def __init__(self, cwd: Path, bed: Testbed) -> None:
        super().__init__(cwd)
        self.bed = bed

    def start(
        self, *args: object, env: Optional[Dict[str, str]] = None, ignore: Optional[int] = None
    ) -> JobRun:
        given: List[object] = []
        if "-H" not in args:
            given += ["-H", self.bed.hostfile]
        if "--ssh-config" not in args:
            given += ["--ssh-config", self.bed.ssh_config]
        return super().start(*given, *args, env=env, ignore=ignore)

    def processes(self) -> List[Any]:
        """What runs on the hosts now."""
        return [p for host in self.bed.hosts if host.is_up for p in self.bed.processes(host)]

    def task(self, host: Host, word: str) -> Any:
        """The process on ``host`` whose command line has ``word`` in it: the oldest, if several."""
        found = [p for p in self.bed.processes(host) if word in " ".join(p.cmdline())]
        return min(found, key=lambda process: process.create_time())

    def wait_until_hosts_are_empty(self, limit_s: float = 30.0) -> None:
        wait_until(lambda: not self.processes(), "the end of all on the hosts", limit_s)

    def close(self) -> None:
        try:
            super().close()
            self.wait_until_hosts_are_empty()
        finally:
            for process in self.processes():
                process.kill()


@pytest.fixture
def cluster(bed: Testbed, tmp_path: Path) -> Iterator[SshCluster]:
    cluster = SshCluster(tmp_path, bed)
    yield cluster
    try:
        cluster.close()
    finally:
        mend(bed)


def mend(bed: Testbed) -> None:
    bed.unblock_all()
    for host in bed.hosts:
        if not host.is_up:
            bed.boot(host)
        bed.mend(host)
        if not host.sshd_pidfile.exists():
            bed.start_sshd(host)


class Clock:
    """Times a failure: from the moment it is made to the first word about it, and to the end."""

    def __init__(self, name: str, properties: List[Tuple[str, object]]) -> None:
        self._name = name
        self._properties = properties
        self._start = time.monotonic()

    def start(self) -> None:
        self._start = time.monotonic()

    def watch(self, run: JobRun, word: str, cluster: SshCluster) -> int:
        """Wait for ``word``, for the job's exit code, and for nothing to be left on the hosts."""
        run.wait_for_output(word)
        detected_s = time.monotonic() - self._start
        code = run.end()
        ended_s = time.monotonic() - self._start
        cluster.wait_until_hosts_are_empty()
        self._properties.append((TOOK, (self._name, detected_s, ended_s)))
        return code


@pytest.fixture
def clock(request: pytest.FixtureRequest) -> Clock:
    name = request.node.name[len("test_") :].split("@")[0].replace("_", " ")
    return Clock(name, request.node.user_properties)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    properties = [
        p for report in terminalreporter.getreports("passed") for p in report.user_properties
    ]
    times = [value for name, value in properties if name == TOOK]
    if times:
        terminalreporter.section(f"failures on hosts, --heartbeat-timeout {SILENCE_S}")
        for name, detected_s, ended_s in times:
            terminalreporter.write_line(f"{detected_s:6.1f} s {ended_s:6.1f} s  {name}")
