"""`run` with real agents and real tasks on this machine: commands that need no MXNet, no servers.

Whole jobs, through launch.py and with a store, are tests/jobs.
"""

import os
import subprocess
import sys

import pytest

from baryon.launcher.clusters.local import LocalCluster
from baryon.scheduler import run


@pytest.fixture
def start(make_job, tmp_path, capfdbinary):
    """Run a command as a job's workers; returns exit code, standard output and error."""

    def start(*command, num_workers=1, num_hosts=1, **changes):
        job = make_job(
            num_workers, 0, num_hosts, command=command, python=sys.executable,
            cwd=os.fspath(tmp_path), log_dir=os.fspath(tmp_path), **changes,
        )  # fmt: skip
        code = run(job, LocalCluster()).exit_code
        out, err = capfdbinary.readouterr()
        lines = err.decode().splitlines(keepends=True)
        hint = "no worker created a dist kvstore"  # indeed none of them does
        return code, out.decode(), "".join(line for line in lines if hint not in line)

    return start


def test_every_worker_runs_the_command_and_a_good_end_is_0(start, tmp_path):
    code, out, err = start(
        "sh", "-c", "echo $DMLC_WORKER_ID/$BARYON_LOCAL_RANK; pwd", num_workers=4, num_hosts=2
    )
    assert (code, err) == (0, "")
    assert sorted(out.splitlines()) == sorted(
        line
        for rank, local in enumerate([0, 1, 0, 1])
        for line in (f"worker {rank} | {rank}/{local}", f"worker {rank} | {tmp_path}")
    )


def test_the_command_is_not_read_by_a_shell(start):
    words = ["a b", "", "$HOME", "*", "日本", "'\"\\", "-n"]
    code, out, _ = start(sys.executable, "-c", "import sys; print(ascii(sys.argv[1:]))", *words)
    assert (code, out) == (0, f"worker 0 | {words!a}\n")


def test_the_first_failure_ends_all_and_gives_the_code(start):
    script = "if [ $DMLC_WORKER_ID = 1 ]; then echo oh no >&2; exit 3; else sleep 1000; fi"
    code, _, err = start("sh", "-c", script, num_workers=3)
    assert code == 3
    assert "worker 1 | oh no\n" in err
    assert "baryon: worker 1 (a) exited with code 3 after " in err
    assert "its last line was: oh no\n" in err


def test_a_worker_that_ignores_sigterm_is_killed_after_its_grace(start, marked, monkeypatch):
    monkeypatch.setenv("BARYON_TEST_MARK", marked.mark)
    script = "trap '' TERM; [ $DMLC_WORKER_ID = 1 ] && exit 3; setsid sleep 1000 & wait; sleep 1000"
    code, _, _ = start("sh", "-c", script, num_workers=2, grace_s=0.3)
    assert code == 3
    assert {process.pid for process in marked.alive()} <= {os.getpid()}


def test_a_worker_killed_by_a_signal_gives_128_and_its_number(start):
    code, _, err = start("sh", "-c", "kill -SEGV $$")
    assert code == 139
    assert "worker 0 (a) was killed by signal 11 (SIGSEGV)" in err


def test_a_real_time_signal_is_one_too(start):
    """Python's signal module has no name for 35."""
    code, _, err = start("sh", "-c", "kill -35 $$")
    assert code == 163
    assert "worker 0 (a) was killed by signal 35" in err


def test_a_command_that_cannot_be_started_gives_127(start):
    code, _, err = start("/no/such/program")
    assert code == 127
    assert "worker 0 (a) could not be started: " in err
    assert "/no/such/program" in err


def test_the_users_variables_reach_the_workers(start):
    code, out, _ = start(
        "sh", "-c", "echo $A $B $OMP_NUM_THREADS",
        num_workers=2, env={"A": "one", "B": "x", "OMP_NUM_THREADS": "7"}, env_worker={"B": "two"},
    )  # fmt: skip
    assert (code, sorted(out.splitlines())) == (
        0,
        [f"worker {rank} | one two 7" for rank in (0, 1)],
    )


def test_much_output_arrives_whole_and_in_order(start, tmp_path):
    code, out, err = start("sh", "-c", "seq 200000; seq 100000 >&2; printf end")
    numbers = [f"worker 0 | {number}" for number in range(1, 200001)]
    assert code == 0
    assert out.splitlines() == [*numbers, "worker 0 | end"]
    assert err.splitlines() == numbers[:100000]
    assert (tmp_path / "worker-0.log").read_bytes().count(b"\n") == 300001


def test_what_was_written_before_a_sudden_end_is_shown(start):
    code, out, _ = start("sh", "-c", "seq 10000; kill -9 $$")
    assert code == 137
    assert out.splitlines()[-1] == "worker 0 | 10000"


def test_a_job_does_not_wait_for_what_a_worker_left_behind(start, marked, monkeypatch):
    """It holds the worker's standard output, and would hold it for long."""
    monkeypatch.setenv("BARYON_TEST_MARK", marked.mark)
    code, out, _ = start("sh", "-c", "setsid sleep 1000 & echo done")
    assert (code, out) == (0, "worker 0 | done\n")
    assert marked.alive("sleep") == []


def test_output_that_has_no_room_is_no_reason_to_end_the_job(tmp_path):
    """As with a full disk under `launch.py ... > file`."""
    with open("/dev/full", "wb") as full:
        launched = subprocess.run(
            [sys.executable, "-m", "baryon.launcher", "-n", "1", "sh", "-c", "echo x; exit 3"],
            cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, timeout=60,
        )  # fmt: skip
    assert launched.returncode == 3
    assert b"No space left on device" in launched.stderr
    assert b"Traceback" not in launched.stderr
