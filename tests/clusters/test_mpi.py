"""Whole jobs that Open MPI's mpirun starts on hosts of a test bed, over ssh."""

import os
import re
import signal
from pathlib import Path
from typing import Iterator, List

import pytest

from deploy.testbed import Testbed

from .on_hosts import HostsCluster
from .scripts import DIGITS, WAITS, said

pytestmark = pytest.mark.mpi


@pytest.fixture
def cluster(bed: Testbed, tmp_path: Path) -> Iterator[HostsCluster]:
    ssh = f"--mca plm_rsh_agent 'ssh -F {bed.ssh_config}'"
    arguments = ["--launcher", "mpi", "--extra=--allow-run-as-root", f"--extra={ssh}"]
    cluster = HostsCluster(tmp_path, bed, arguments, {})
    yield cluster
    cluster.close()


def test_digits_train_as_on_one_machine(cluster: HostsCluster, local_digits: bytes) -> None:
    run = cluster.run("-H", "node2,node3", *DIGITS, cluster.cwd / "mpi")
    assert "Epoch 1." in run.out
    assert "mpirun runs on node2, node3" in run.err
    assert (cluster.cwd / "mpi-0000.params").read_bytes() == local_digits


def test_ranks_follow_the_host_file_whichever_host_starts_them(cluster: HostsCluster) -> None:
    (cluster.cwd / "hosts").write_text("node3 gpus=0,1\nnode1 gpus=2\nnode2 slots=2\nnode4\n")
    cluster.script(
        "import os, sys\n"
        "names = ['DMLC_WORKER_ID', 'CUDA_VISIBLE_DEVICES']\n"
        "cores = len(os.sched_getaffinity(0))\n"
        "print('I am', os.uname().nodename, *map(os.environ.get, names), cores)\n"
    )
    run = cluster.run("-n", 5, "-H", "hosts", "script.py")
    cores = len(os.sched_getaffinity(0))  # all of them: mpirun must not bind agents
    places = ["node1 2 2", "node2 3 None", "node2 4 None", "node3 0 0", "node3 1 1"]
    assert said(run.out) == [f"{place} {cores}" for place in places]


def test_a_worker_that_fails_gives_its_code(cluster: HostsCluster) -> None:
    cluster.script("import os, sys\nsys.exit(3 * (os.environ['DMLC_WORKER_ID'] == '1'))")
    run = cluster.run("-n", 2, "-H", "node2,node3", "script.py", code=3)
    assert "worker 1 (node3) exited with code 3" in run.err
    assert "mpirun exited" not in run.err


def test_ctrl_c_leaves_nothing_on_any_host(cluster: HostsCluster) -> None:
    cluster.script(WAITS)
    run = cluster.start("-n", 4, "--workers-per-host", 2, "-H", "node1,node2", "script.py")
    run.wait_for_output("here", 4)
    run.signal(signal.SIGINT)
    assert run.end() == 130


def test_an_mpirun_that_is_ended_from_outside(cluster: HostsCluster) -> None:
    """Also what a worker has started in a session of its own ends with it."""
    cluster.script(f"import subprocess\nsubprocess.Popen(['setsid', 'sleep', '1000'])\n{WAITS}")
    run = cluster.start("-n", 2, "-H", "node2,node3", "script.py")
    run.wait_for_output("here", 2)
    cluster.processes(cluster.login, "mpirun --host")[-1].terminate()
    assert run.end() == 143, run.err
    assert "mpirun was ended from outside, as by kill" in run.err


def test_the_death_of_launch_py_ends_everything(cluster: HostsCluster) -> None:
    cluster.script(WAITS)
    run = cluster.start("-n", 2, "-H", "node2,node3", "--heartbeat-timeout", 3, "script.py")
    run.wait_for_output("here", 2)
    run.signal(signal.SIGKILL)
    assert run.end() == -signal.SIGKILL
    cluster.wait_until_hosts_are_empty()
    for directory in cluster.secrets():  # nobody is left to remove it, but the keys are gone
        assert list(directory.iterdir()) == []
        directory.rmdir()


def test_an_agent_that_is_killed_is_noticed_at_once(cluster: HostsCluster) -> None:
    cluster.script(WAITS)
    run = cluster.start("-n", 2, "-H", "node2,node3", "script.py")
    run.wait_for_output("here", 2)
    for process in cluster.processes(cluster.others[1], "baryon.scheduler.agent"):
        process.kill()
    assert run.end(20) == 1
    assert re.search(r"mpirun exited with code \d+: .* on signal 9 \(Killed\)", run.err)


def test_a_host_that_dies(cluster: HostsCluster) -> None:
    cluster.script(WAITS)
    run = cluster.start("-n", 2, "-H", "node2,node3", "--heartbeat-timeout", 4, "script.py")
    run.wait_for_output("here", 2)
    dead = cluster.others[1]
    cluster.bed.crash(dead)
    try:
        assert run.end(30) == 1
    finally:
        cluster.bed.boot(dead)
    assert "the agent on node3 has been silent for 4 s" in run.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-H", "node2,node9"), "ssh: Could not resolve hostname node9"),
        (("-H", "node2,node3", "--python", "/no/python"), "exec: /no/python: not found"),
        (("-H", "node2,node3", "--extra=--no-such"), "no-such"),
    ],
)
def test_what_mpirun_says_is_one_message(
    cluster: HostsCluster, arguments: List[str], words: str
) -> None:
    cluster.script("print('never')")
    run = cluster.run("-n", 2, *arguments, "script.py", code=1)
    assert words in run.err
    (line,) = [line for line in run.err.splitlines() if "mpirun exited with code" in line]
    assert "---" not in line
