"""Jobs through real cluster managers, whose daemons are started once and serve all tests.

After each test no process of a job may be left, and no job in the manager's queue.
"""

from pathlib import Path
from typing import Dict, Iterator, List, Optional

import pytest

from deploy.testbed import Testbed
from tests.cluster import Cluster, JobRun

from .kube_bed import IMAGE, KubeBed
from .scripts import DIGITS
from .sge_bed import SgeBed
from .slurm_bed import SlurmBed

NODES = 4


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmBed]:
    with SlurmBed(tmp_path_factory.mktemp("slurm") / "bed", NODES) as bed:
        yield bed


class SlurmCluster(Cluster):
    """Starts jobs through the Slurm of a bed."""

    def __init__(self, cwd: Path, bed: SlurmBed) -> None:
        super().__init__(cwd)
        self.bed = bed

    def start(
        self, *args: object, env: Optional[Dict[str, str]] = None, ignore: Optional[int] = None
    ) -> JobRun:
        env = {**self.bed.env, **(env or {})}
        return super().start("--launcher", "slurm", *args, env=env, ignore=ignore)

    def secrets(self) -> List[Path]:
        """Agents' configurations that lie about."""
        return list(self.cwd.rglob(".agents-*"))

    def close(self) -> None:
        try:
            super().close()
            assert self.secrets() == []
            self.bed.wait_until_idle()
        finally:
            for job in self.bed.jobs():
                self.bed.run("scancel", job)


@pytest.fixture
def cluster(slurm: SlurmBed, tmp_path: Path) -> Iterator[SlurmCluster]:
    cluster = SlurmCluster(tmp_path, slurm)
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def sge(bed: Testbed) -> Iterator[SgeBed]:
    with SgeBed(bed) as sge:
        yield sge


@pytest.fixture(scope="session")
def local_digits(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights that `DIGITS` leads to on one machine."""
    cwd = tmp_path_factory.mktemp("local")
    cluster = Cluster(cwd)
    cluster.run("--launcher", "local", *DIGITS, cwd / "local")
    cluster.close()
    return (cwd / "local-0000.params").read_bytes()


@pytest.fixture(scope="session")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    base = tmp_path_factory.getbasetemp()
    with Testbed(4, tmp_path_factory.mktemp("hosts") / "bed", shared=[base]) as bed:
        yield bed


@pytest.fixture(scope="session")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeBed]:
    with KubeBed(tmp_path_factory.mktemp("kubernetes") / "bed", 2) as bed:
        yield bed


class KubeCluster(Cluster):
    """Starts jobs through the Kubernetes of a bed."""

    def __init__(self, cwd: Path, bed: KubeBed) -> None:
        super().__init__(cwd)
        self.bed = bed

    def start(
        self, *args: object, env: Optional[Dict[str, str]] = None, ignore: Optional[int] = None
    ) -> JobRun:
        usual = ["--launcher", "kubernetes", "--image", IMAGE, "--interface", "lo"]
        return super().start(*usual, *args, env={**self.bed.env, **(env or {})}, ignore=ignore)

    def close(self) -> None:
        try:
            super().close()
            self.bed.wait_until_empty()
            assert not any("\nTraceback" in f"\n{run.err}" for run in self._runs)
        finally:
            self.bed.reset()


@pytest.fixture
def kube(kubernetes: KubeBed, tmp_path: Path) -> Iterator[KubeCluster]:
    cluster = KubeCluster(tmp_path, kubernetes)
    yield cluster
    cluster.close()
