"""Whole jobs through a real Grid Engine of four hosts."""

import re
import shlex
import signal
import stat
import sys
from pathlib import Path
from typing import Iterator, List

import psutil
import pytest

from tests.cluster import REPOSITORY, JobRun
from tests.waiting import wait_until

from .on_hosts import HostsCluster
from .scripts import DIGITS, SAVES, WAITS, said
from .sge_bed import SLOTS, SgeBed

pytestmark = pytest.mark.sge


class SgeCluster(HostsCluster):
    """Starts jobs through the Grid Engine of a bed."""

    def __init__(self, cwd: Path, sge: SgeBed) -> None:
        super().__init__(cwd, sge.bed, ["--launcher", "sge"], sge.env)
        self.sge = sge

    def close(self) -> None:
        try:
            super().close()
            self.sge.wait_until_idle()
        finally:
            for job in self.sge.jobs():
                self.sge.run("qdel", "-f", job)


@pytest.fixture
def cluster(sge: SgeBed, tmp_path: Path) -> Iterator[SgeCluster]:
    cluster = SgeCluster(tmp_path, sge)
    yield cluster
    cluster.close()


def job_of(run: JobRun) -> str:
    """The number of the job that runs, from launch.py's own words."""
    found = re.search(r"Grid Engine job (\d+)", run.err)
    assert found, run.err
    return found[1]


def test_digits_train_as_on_one_machine(cluster: SgeCluster, local_digits: bytes) -> None:
    run = cluster.run(*DIGITS, cluster.cwd / "sge")
    assert "Epoch 1." in run.out
    assert re.search(r"Grid Engine job \d+ runs on node\d", run.err)
    assert (cluster.cwd / "sge-0000.params").read_bytes() == local_digits
    logs = {path.name for path in next((cluster.cwd / "baryon-logs").iterdir()).iterdir()}
    assert "worker-0.log" in logs
    assert sum(bool(re.match(r"sge-.*\.(sh|out\.[12])$", name)) for name in logs) == 3


def test_a_directory_may_be_called_almost_anything(cluster: SgeCluster) -> None:
    directory = cluster.cwd / "%j 'it' \"is\" \\ *"
    directory.mkdir()
    cluster.script("print('I am fine')")
    run = cluster.run("-n", 2, "--job-name", "1 a:b\n", "--job-dir", directory, "script.py")
    assert said(run.out) == ["fine", "fine"]


def test_options_reach_grid_engine_as_they_are(cluster: SgeCluster) -> None:
    """And a parallel environment gives each agent its CPUs on one host, so one a host here."""
    cluster.script(f"import os\nprint('I am', os.uname().nodename)\n{WAITS}")
    run = cluster.start(
        *("-n", 4, "--pe", "smp", "--cpus-per-worker", SLOTS, "--queue", "main.q"),
        *("--account", "it's", "--time", "1:00:00", "--mem", "1M", "--constraint", "arch=lx-*"),
        *("--job-name", "1 a:b", "--extra", "-p -7 -ac 'x=two words'", "script.py"),
    )
    run.wait_for_output("here", 4)
    assert said(run.out) == ["node1", "node2", "node3", "node4"]
    job = cluster.sge.run("qstat", "-j", job_of(run))
    for text in (
        *("_1_a_b", "it's", "h_rt=3600", "mem_free=1M", "arch=lx-*", "main.q", "-7"),
        *("smp range: 2", "x=two words"),
    ):
        assert text in job
    run.signal(signal.SIGINT)
    assert run.end() == 130


def test_a_job_waits_for_slots_with_keys_that_nobody_else_can_read(cluster: SgeCluster) -> None:
    """Some agents wait for others for longer than a silence may last."""
    tasks = 4 * SLOTS - 1
    blocker = cluster.cwd / "blocker"
    blocker.write_text("exec sleep 1000\n")
    options = ("-terse", "-o", "/dev/null", "-j", "y", "-t", f"1-{tasks}")
    job = cluster.sge.run("qsub", *options, blocker).split(".")[0]
    wait_until(lambda: cluster.sge.run("qstat", "-s", "r").count(" r ") == tasks, "a full queue")
    cluster.script("print('I am fine')")
    run = cluster.start("-n", 2, "--heartbeat-timeout", 2, "--start-timeout", 5, "script.py")
    run.wait_for_output("1 of 2 agents have no slot: queue instance")
    (directory,) = cluster.secrets()
    wait_until(lambda: len(list(directory.iterdir())) == 1, "an agent that has begun")
    (file,) = directory.iterdir()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (script,) = directory.parent.glob("sge-*.sh")
    seen = script.read_text() + cluster.sge.run("qstat", "-j", job_of(run))
    assert file.read_text().split('"secret_key":"')[1][:20] not in seen
    cluster.sge.run("qdel", job)
    assert run.end() == 0
    assert said(run.out) == ["fine", "fine"]


def test_the_queue_has_a_limit(cluster: SgeCluster) -> None:
    cluster.script("print('never')")
    run = cluster.run("-n", 2, "--queue-timeout", 2, "--extra=-h", "script.py", code=1)
    assert re.search(r"waited \d+ s \(--queue-timeout\): Job is in hold state", run.err)


def test_a_worker_that_fails_gives_its_code(cluster: SgeCluster) -> None:
    cluster.script("import os, sys\nsys.exit(3 * (os.environ['DMLC_WORKER_ID'] == '1'))")
    run = cluster.run("-n", 2, "script.py", code=3)
    assert re.search(r"worker 1 \(node\d\) exited with code 3", run.err)


def test_an_agent_that_is_killed_is_noticed_at_once(cluster: SgeCluster) -> None:
    cluster.script(WAITS)
    run = cluster.start("-n", 2, "script.py")
    run.wait_for_output("here", 2)
    for host in cluster.bed.hosts:
        for process in cluster.processes(host, "baryon.scheduler.agent"):
            try:
                if process.environ().get("SGE_TASK_ID") == "2" and "bash" not in process.name():
                    process.kill()
            except psutil.NoSuchProcess:
                pass  # with the one before
    assert run.end(20) == 1
    assert re.search(r"the agent on node\d ended with code 137, and with it server 1", run.err)


def test_ctrl_c_leaves_nothing_on_any_host(cluster: SgeCluster) -> None:
    cluster.script(WAITS)
    run = cluster.start("-n", 4, "--workers-per-host", 2, "script.py")
    run.wait_for_output("here", 4)
    run.signal(signal.SIGINT)
    assert run.end() == 130


def test_the_death_of_launch_py_ends_everything(cluster: SgeCluster) -> None:
    cluster.script(WAITS)
    run = cluster.start("-n", 2, "--heartbeat-timeout", 3, "script.py")
    run.wait_for_output("here", 2)
    run.signal(signal.SIGKILL)
    assert run.end() == -signal.SIGKILL
    cluster.sge.wait_until_idle()
    for directory in cluster.secrets():  # nobody is left to remove it, but the keys are gone
        assert list(directory.iterdir()) == []
        directory.rmdir()


def test_a_job_deleted_from_outside_says_so(cluster: SgeCluster) -> None:
    """Also what a worker has started in a session of its own ends with it."""
    cluster.script(f"import subprocess\nsubprocess.Popen(['setsid', 'sleep', '1000'])\n{WAITS}")
    run = cluster.start("-n", 2, "script.py")
    run.wait_for_output("here", 2)
    cluster.sge.run("qdel", job_of(run))
    assert run.end() == 143
    assert "was deleted from outside, as by qdel" in run.err
    assert "SIGUSR2 received; killing" in run.err


def test_a_job_that_waits_can_be_stopped_or_deleted(cluster: SgeCluster) -> None:
    cluster.script("print('never')")
    run = cluster.start("-n", 2, "--extra=-h", "script.py")
    run.wait_for_output("waits: Job is in hold state")
    run.signal(signal.SIGINT)
    assert run.end(20) == 130
    run = cluster.start("-n", 2, "--extra=-h", "--start-timeout", 1, "script.py")
    run.wait_for_output("waits: Job is in hold state")
    cluster.sge.run("qdel", job_of(run))
    assert run.end(20) == 143


def test_workers_are_told_to_end_before_the_time_limit(cluster: SgeCluster) -> None:
    cluster.script(SAVES)
    run = cluster.start("-n", 2, "--time", "12", "script.py")
    run.wait_for_output("here", 2)
    assert run.end() == 124
    assert said(run.out) == ["saved", "saved"]
    assert re.search(r"Grid Engine job \d+ reaches its time limit in \d+ s", run.err)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--queue", "nowhere"], 'requests unknown queue "nowhere"'),
        (["--gpus-per-worker", 1], 'unknown resource "gpu"'),
    ],
)
def test_what_grid_engine_rejects_is_said_in_its_words(
    cluster: SgeCluster, options: List[object], words: str
) -> None:
    cluster.script("print('never')")
    run = cluster.run("-n", 2, *options, "script.py", code=1)
    assert "Grid Engine did not take the job: Unable to run job: " in run.err
    assert words in run.err


def test_what_keeps_a_job_from_starting_is_said_and_it_does_not_stay(cluster: SgeCluster) -> None:
    cluster.script("print('never')")
    run = cluster.run("-n", 2, "--extra=-wd /no/such/place", "script.py", code=1)
    assert re.search("could not start: .* can't chdir to /no/such/place: No such file", run.err)
    run = cluster.run("-n", 2, "--python", "/no/such/python", "script.py", code=1)
    assert "/no/such/python: No such file or directory" in run.err
    assert "ended with code 127" in run.err


@pytest.mark.mpi
def test_mpirun_starts_agents_on_all_hosts_of_a_parallel_environment(cluster: SgeCluster) -> None:
    """It finds them by itself, and needs no ssh there."""
    cluster.script("import os\nprint('I am', os.uname().nodename)")
    argv = [sys.executable, "-m", "baryon.launcher", "--launcher", "mpi", "-n", "8", "script.py"]
    script = cluster.cwd / "job.sh"
    script.write_text(
        f"export PYTHONPATH={REPOSITORY}\n"
        "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1\n"
        f"exec {shlex.join(argv)}\n"
    )
    output = cluster.cwd / "output"
    options = ("-sync", "y", "-pe", "mpi", 4, "-wd", cluster.cwd, "-S", "/bin/sh")
    cluster.sge.run("qsub", *options, "-j", "y", "-o", output, script)
    assert said(output.read_text()) == [f"node{1 + rank // 2}" for rank in range(8)]
