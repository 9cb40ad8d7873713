"""Whole jobs over SSH on four real hosts."""

import pytest

from tests.cluster import REPOSITORY

from .conftest import SshCluster

pytestmark = pytest.mark.hosts

DIGITS = REPOSITORY / "examples" / "train_digits.py"


def weights_of(cluster: SshCluster, name: str) -> bytes:
    return (cluster.cwd / f"{name}-0000.params").read_bytes()


@pytest.mark.parametrize("workers_per_host", [1, 2])
def test_digits_train_as_on_one_machine(cluster: SshCluster, workers_per_host: int) -> None:
    """The same layout of workers, servers and hosts, simulated here: the same bits."""
    count = 4 * workers_per_host
    layout = ["-n", count, "--workers-per-host", workers_per_host]
    script = [DIGITS, "--epochs", 2, "--batch-size", 32, "--export"]
    run = cluster.run(*layout, *script, cluster.cwd / "ssh")
    assert "Epoch 2." in run.out
    cluster.run("--launcher", "local", *layout, *script, cluster.cwd / "local")
    assert weights_of(cluster, "ssh") == weights_of(cluster, "local")


def test_ranks_fill_the_hosts_in_order(cluster: SshCluster) -> None:
    cluster.script(
        "import os, socket\n"
        "names = ['DMLC_WORKER_ID', 'BARYON_LOCAL_RANK', 'OMP_NUM_THREADS']\n"
        "print('I am', socket.gethostname(), *map(os.environ.get, names))\n"
    )
    run = cluster.run("-n", 8, "--workers-per-host", 2, "script.py")
    said = sorted(line.split("I am ")[1] for line in run.out.splitlines())
    assert said == [f"node{1 + rank // 2} {rank} {rank % 2} 1" for rank in range(8)]
    logs = {path.name for path in next((cluster.cwd / "baryon-logs").iterdir()).iterdir()}
    assert logs == {f"worker-{rank}.log" for rank in range(8)}, "all of them here"
