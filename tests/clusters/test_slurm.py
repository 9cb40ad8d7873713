"""Whole jobs through a real Slurm of four nodes."""

import os
import re
import signal
import stat
import sys
from typing import Tuple

import pytest

from tests.cluster import REPOSITORY, JobRun, Shell
from tests.waiting import wait_until

from .conftest import SlurmCluster
from .scripts import SAVES, WAITS, said

pytestmark = pytest.mark.slurm

DIGITS = REPOSITORY / "examples" / "train_digits.py"


def job_of(run: JobRun) -> str:
    """The number of the job that runs, from launch.py's own words, which may come late."""
    run.wait_for_output("runs on")
    found = re.search(r"Slurm job (\d+) runs on", run.err)
    assert found, run.err
    return found[1]


def test_digits_train_as_on_one_machine(cluster: SlurmCluster) -> None:
    """The same layout of workers, servers and hosts, simulated here: the same bits."""
    layout = ["-n", 4, "--workers-per-host", 2]
    script = [DIGITS, "--epochs", 2, "--batch-size", 32, "--export"]
    run = cluster.run(*layout, *script, cluster.cwd / "slurm")
    assert "Epoch 2." in run.out
    assert "runs on node[1-2]" in run.err
    cluster.run("--launcher", "local", *layout, *script, cluster.cwd / "local")
    weights = [(cluster.cwd / f"{name}-0000.params").read_bytes() for name in ("slurm", "local")]
    assert weights[0] == weights[1]


def test_ranks_fill_the_nodes_in_order_and_gpus_are_shared_out(cluster: SlurmCluster) -> None:
    cluster.script(
        "import os\n"
        "names = ['SLURMD_NODENAME', 'DMLC_WORKER_ID', 'CUDA_VISIBLE_DEVICES', 'BARYON_DEVICES']\n"
        "print('I am', *map(os.environ.get, names))\n"
    )
    run = cluster.run("-n", 4, "--workers-per-host", 2, "--gpus-per-worker", 1, "script.py")
    assert said(run.out) == ["node1 0 0 1", "node1 1 1 1", "node2 2 0 1", "node2 3 1 1"]
    logs = {path.name for path in next((cluster.cwd / "baryon-logs").iterdir()).iterdir()}
    assert logs >= {f"worker-{rank}.log" for rank in range(4)}
    run = cluster.run("-n", 2, "--gpus-per-worker", 2, "script.py")
    assert said(run.out) == ["node1 0 0,1 2", "node2 1 0,1 2"]


def test_options_reach_slurm_as_they_are(cluster: SlurmCluster) -> None:
    cluster.script(WAITS)
    run = cluster.start(
        *("-n", 1, "--queue", "short", "--time", "3", "--mem", "100M", "--cpus-per-worker", 3),
        *("--job-name", 'it\'s "mine"', "--extra", "--nice=7 --comment 'two words'", "script.py"),
    )
    run.wait_for_output("here")
    job = cluster.bed.run("scontrol", "show", "job", "-o", job_of(run))
    for text in (
        *("Partition=short", "TimeLimit=00:03:00", "MinMemoryNode=100M", "CPUs/Task=3"),
        *('JobName=it\'s "mine"', "Nice=7", "Comment=two words"),
    ):
        assert text in job
    run.signal(signal.SIGINT)
    assert run.end() == 130


def test_a_directory_may_be_called_anything(cluster: SlurmCluster) -> None:
    directory = cluster.cwd / "%j 'it' \"is\" $HOME"
    directory.mkdir()
    cluster.script("print('I am fine')")
    run = cluster.run("-n", 2, "--job-dir", directory, "script.py")
    assert said(run.out) == ["fine", "fine"]
    assert sorted(path.suffix for path in directory.glob("slurm-*")) == [".out", ".sh"]


def test_keys_lie_in_private_files_until_they_are_read(cluster: SlurmCluster) -> None:
    """Two agents wait for nodes that a job before theirs has: both files are there till then."""
    blocker = cluster.bed.run(
        "sbatch", "--parsable", "-N4", "--exclusive", "--output=/dev/null", "--wrap=sleep 1000"
    )
    cluster.script("print('I am fine')")
    run = cluster.start("-n", 2, "script.py")
    run.wait_for_output("waits: Resources")
    (directory,) = cluster.secrets()
    files = sorted(directory.iterdir())
    assert [path.name for path in files] == ["agent-0.json", "agent-1.json"]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    (script,) = directory.parent.glob("slurm-*.sh")
    seen = script.read_text() + cluster.bed.run("scontrol", "show", "job")
    told = [path.read_text().split('"secret_key":"')[1][:20] in seen for path in files]
    assert told == [False, False]
    cluster.bed.run("scancel", blocker.strip())
    assert run.end() == 0


def test_a_worker_that_fails_gives_its_code(cluster: SlurmCluster) -> None:
    cluster.script("import os, sys\nsys.exit(3 * (os.environ['DMLC_WORKER_ID'] == '1'))")
    run = cluster.run("-n", 2, "script.py", code=3)
    assert re.search(r"worker 1 \(\S+\) exited with code 3", run.err)


def test_a_worker_that_is_killed(cluster: SlurmCluster) -> None:
    cluster.script(WAITS)
    run = cluster.start("-n", 4, "--workers-per-host", 2, "script.py")
    run.wait_for_output("here", 4)
    run.task("worker-2").kill()
    assert run.end() == 137
    assert "was killed by signal 9 (SIGKILL)" in run.err


def test_an_agent_that_is_killed_is_noticed_at_once(cluster: SlurmCluster) -> None:
    cluster.script(WAITS)
    run = cluster.start("-n", 2, "script.py")
    run.wait_for_output("here", 2)
    for process in run.processes("baryon.scheduler.agent", "SLURM_PROCID"):
        if process.environ().get("SLURM_PROCID") == "1" and "srun" not in process.name():
            process.kill()
    assert run.end(20) == 1
    assert "and with it server 1, worker 1" in run.err


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_task_on_any_node(cluster: SlurmCluster, signum: int) -> None:
    cluster.script(WAITS)
    run = cluster.start("-n", 4, "--workers-per-host", 2, "script.py")
    run.wait_for_output("here", 4)
    run.signal(signum)
    assert run.end() == 128 + signum
    run.wait_until_gone()


def test_the_death_of_launch_py_ends_everything(cluster: SlurmCluster) -> None:
    cluster.script(WAITS)
    run = cluster.start("-n", 2, "--heartbeat-timeout", 3, "script.py")
    run.wait_for_output("here", 2)
    run.signal(signal.SIGKILL)
    assert run.end() == -signal.SIGKILL
    run.wait_until_gone()
    for directory in cluster.secrets():  # nobody is left to remove it, but the keys are gone
        assert list(directory.iterdir()) == []
        directory.rmdir()


def test_a_job_cancelled_from_outside_says_so(cluster: SlurmCluster) -> None:
    cluster.script(WAITS)
    run = cluster.start("-n", 2, "script.py")
    run.wait_for_output("here", 2)
    cluster.bed.run("scancel", job_of(run))
    assert run.end() == 143
    assert "was cancelled from outside, as by scancel (CANCELLED)" in run.err


def test_a_detached_job_is_looked_at_and_stopped_from_elsewhere(cluster: SlurmCluster) -> None:
    shell = Shell(cluster)
    cluster.script(WAITS)
    name, _ = shell.detach("-n", 2, "script.py")
    wait_until(lambda: shell.baryon("logs", name).count("| here") == 2, "the output of two workers")
    (job,) = cluster.bed.jobs()
    assert f"with     slurm, Slurm job {job}\n" in shell.baryon("status", name)
    assert shell.baryon("stop", name) == f"{name} ended with code 143\n"


def test_a_job_that_is_refused_is_not_detached(cluster: SlurmCluster) -> None:
    cluster.script(WAITS)
    shell = Shell(cluster)
    run = cluster.run("--detach", "-n", 1, "--queue", "nowhere", "script.py", env=shell.env, code=1)
    assert "Slurm did not take the job" in run.err


def test_a_job_that_waits_in_the_queue_can_be_stopped_or_cancelled(cluster: SlurmCluster) -> None:
    cluster.script("print('never')")
    run = cluster.start("-n", 2, "--extra=--hold", "script.py")
    run.wait_for_output("waits: JobHeldUser")
    run.signal(signal.SIGINT)
    assert run.end(20) == 130
    run = cluster.start("-n", 2, "--extra=--hold", "--start-timeout", 1, "script.py")
    run.wait_for_output("waits: JobHeldUser")
    (job,) = cluster.bed.jobs()
    cluster.bed.run("scancel", job)
    assert run.end(20) == 143
    assert f"Slurm job {job} was cancelled from outside" in run.err


def test_the_queue_has_a_limit(cluster: SlurmCluster) -> None:
    cluster.script("print('never')")
    run = cluster.run("-n", 2, "--queue-timeout", 2, "--extra=--hold", "script.py", code=1)
    assert re.search(r"Slurm job \d+ waited \d+ s \(--queue-timeout\): JobHeldUser", run.err)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--queue", "nowhere"), "invalid partition specified: nowhere"),
        (("--mem", "1T"), "Memory specification can not be satisfied"),
        (("--time", "soon"), "Invalid --time specification"),
    ],
)
def test_what_slurm_rejects_is_said_in_its_words(
    cluster: SlurmCluster, options: Tuple[str, ...], words: str
) -> None:
    cluster.script("print('never')")
    run = cluster.run("-n", 2, *options, "script.py", code=1)
    assert "Slurm did not take the job: sbatch: error: " in run.err
    assert words in run.err


def test_workers_are_told_to_end_before_the_time_limit(cluster: SlurmCluster) -> None:
    cluster.script(SAVES)
    run = cluster.start("-n", 2, "--time", "1", "script.py")
    run.wait_for_output("here", 2)
    assert run.end() == 124
    assert said(run.out) == ["saved", "saved"]
    assert re.search(r"Slurm job \d+ reaches its time limit in \d+ s", run.err)


def test_a_preempted_job_is_submitted_again_and_goes_on(cluster: SlurmCluster) -> None:
    cluster.script(
        "import pathlib, time\n"
        "saved = pathlib.Path('saved')\n"
        "if saved.exists():\n"
        "    raise SystemExit(print('I am resumed', flush=True))\n"
        "saved.touch()\n"
        "print('here', flush=True)\n"
        "time.sleep(1000)\n"
    )
    run = cluster.start("-n", 1, "--resubmit", 2, "script.py")
    run.wait_for_output("here")
    urgent = ("sbatch", "-p", "urgent", "-N4", "--exclusive", "-o/dev/null", "--wrap=sleep 1")
    cluster.bed.run(*urgent)
    assert run.end() == 0
    assert "was preempted by another job (PREEMPTED" in run.err
    assert run.err.count("the job is submitted again (1 of 2, --resubmit)") == 1
    assert said(run.out) == ["resumed"]
    names = sorted(path.name for path in (cluster.cwd / "baryon-logs").iterdir())
    assert len(names) == 2 and names[1] == f"{names[0]}.1"


def test_a_python_that_nodes_do_not_have(cluster: SlurmCluster) -> None:
    cluster.script("print('never')")
    run = cluster.run("-n", 2, "--python", "/no/such/python", "script.py", code=1)
    assert "execve(): /no/such/python: No such file or directory" in run.err
    assert "exit code 1" in run.err


def test_inside_an_allocation_nothing_is_submitted(cluster: SlurmCluster) -> None:
    """Workers are shared out evenly, GPUs as well, and the exit code passes through."""
    cluster.script(
        "import os, sys\n"
        "names = ['SLURM_JOB_ID', 'SLURMD_NODENAME', 'DMLC_WORKER_ID', 'CUDA_VISIBLE_DEVICES']\n"
        "print('I am', *map(os.environ.get, names))\n"
        "sys.exit(int(sys.argv[1]))\n"
    )
    command = [sys.executable, "-m", "baryon.launcher", "--launcher", "slurm", "-n", "6"]
    allocate = ["env", f"PYTHONPATH={REPOSITORY}", "salloc", "-Q", "-N3", "--gres=gpu:2"]
    allocate += ["-D", os.fspath(cluster.cwd), *command, "--log-dir", os.fspath(cluster.cwd / "l")]
    script = os.fspath(cluster.cwd / "script.py")
    out = cluster.bed.run(*allocate, script, 0)
    assert len({line.split()[0] for line in said(out)}) == 1, "one job"
    assert [line.split(" ", 1)[1] for line in said(out)] == [
        f"node{1 + rank // 2} {rank} {rank % 2}" for rank in range(6)
    ]
    cluster.bed.run(*allocate, script, 5, code=5)
    cluster.bed.wait_until_idle()


def test_ctrl_c_inside_an_allocation_ends_the_step(cluster: SlurmCluster) -> None:
    job = cluster.bed.run("salloc", "-Q", "-N2", "--no-shell", "-J", "held")
    (job,) = cluster.bed.jobs()
    cluster.script(WAITS)
    env = {"SLURM_JOB_ID": job, "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "node[1-2]"}
    run = cluster.start("-n", 2, "script.py", env=env)
    run.wait_for_output("here", 2)
    run.signal(signal.SIGINT)
    assert run.end() == 130
    wait_until(lambda: "StepId" not in cluster.bed.run("scontrol", "show", "step"), "no step")
    assert cluster.bed.jobs() == [job], "the allocation is not ours to end"
    cluster.bed.run("scancel", job)


def test_more_hosts_than_the_allocation_has(cluster: SlurmCluster) -> None:
    cluster.script("print('never')")
    env = {"SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "node[1-2]"}
    run = cluster.run("-n", 3, "--workers-per-host", 1, "script.py", env=env, code=2)
    assert "3 workers need 3 hosts, and the allocation has 2" in run.err
