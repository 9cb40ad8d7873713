"""The local cluster: it starts agents, says how they ended, and lets them go."""

import os
import signal
import sys

import pytest

from baryon.launcher import clusters
from baryon.launcher.clusters.local import LocalCluster
from baryon.scheduler.control import AgentConfig, Host, Job, Task
from tests.waiting import wait_until

SECRETS = AgentConfig(
    job="job-1", host=0, endpoint="e", scheduler_key="k", public_key="p", secret_key="secret",
    silence_s=1.0,
)  # fmt: skip
ECHO = (
    "import sys; print(sys.stdin.readline().strip(), flush=True); sys.exit(len(sys.stdin.read()))"
)


@pytest.fixture
def job():
    return Job(
        id="job-1", command=("true",), cwd="/", hosts=(Host("a"), Host("b")),
        tasks=(Task("worker", 0, 0, 0), Task("worker", 1, 1, 0)),
        python=sys.executable, log_dir="/logs",
    )  # fmt: skip


@pytest.fixture
def cluster(monkeypatch):
    """Its agents are a small script instead, which reads all its input."""
    script = [ECHO]
    monkeypatch.setattr(clusters.local, "agent_argv", lambda python: [python, "-c", script[0]])
    cluster = LocalCluster()
    cluster.script = script
    yield cluster
    cluster.kill()
    cluster.ended()


def wait_for_ended(cluster):
    return wait_until(cluster.ended)


def test_the_scheduler_listens_to_this_machine_alone(cluster, job):
    assert cluster.scheduler_address(job, 0) == "127.0.0.1"


def test_an_agent_gets_its_secrets_as_input_and_ends_when_it_is_let_go(cluster, job, capfd):
    cluster.start(job, 0, SECRETS)
    assert cluster.ended() == []
    cluster.release(0)
    assert wait_for_ended(cluster) == [(0, "exited with code 0")]
    assert capfd.readouterr().out == SECRETS.line().decode()
    assert cluster.ended() == [], "told once"


def test_only_the_agent_that_is_let_go_ends(cluster, job):
    cluster.start(job, 0, SECRETS)
    cluster.start(job, 1, SECRETS)
    cluster.release(1)
    assert wait_for_ended(cluster) == [(1, "exited with code 0")]
    assert cluster.ended() == []


@pytest.mark.parametrize(
    ("script", "how"),
    [
        ("import sys; sys.exit(3)", "exited with code 3"),
        ("import os; os.kill(os.getpid(), 9)", f"was killed by signal {signal.SIGKILL.value}"),
    ],
)
def test_it_says_how_an_agent_ended(cluster, job, script, how):
    cluster.script[0] = f"input(); {script}"
    cluster.start(job, 1, SECRETS)
    assert wait_for_ended(cluster) == [(1, how)]


def test_release_and_kill_may_come_at_any_time(cluster, job):
    cluster.release(0)
    cluster.start(job, 0, SECRETS)
    cluster.release(0)
    cluster.release(0)
    cluster.kill()
    cluster.kill()
    assert [host for host, _ in cluster.ended()] == [0]
    cluster.release(0)
    cluster.kill()


def test_kill_does_not_return_before_all_have_ended(cluster, job, monkeypatch, tmp_path):
    """Nor do agents that heed nothing keep it."""
    monkeypatch.setattr(clusters.local, "_KILL_LIMIT_S", 0.1)
    cluster.script[0] = (
        "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open(os.path.join({os.fspath(tmp_path)!r}, str(os.getpid())), 'w').close()\n"
        "while True: signal.pause()"
    )
    for host in (0, 1):
        cluster.start(job, host, SECRETS)
    wait_until(lambda: len(os.listdir(tmp_path)) == 2)
    cluster.kill()
    assert sorted(cluster.ended()) == [(host, "was killed by signal 9") for host in (0, 1)]


def test_an_agent_has_a_session_of_its_own(cluster, job, capfd):
    """So that Ctrl-C reaches launch.py alone, which then stops the tasks in order."""
    cluster.script[0] = "import os; input(); print(os.getsid(0) == os.getpid(), flush=True)"
    cluster.start(job, 0, SECRETS)
    wait_for_ended(cluster)
    assert capfd.readouterr().out == "True\n"
