"""``launch.py --detach``, and `baryon status`, `logs` and `stop` from another shell."""

import json
import os
import re
import signal
import socket

import pytest

from tests.cluster import Cluster, Shell
from tests.waiting import wait_until

pytestmark = pytest.mark.jobs

WAITS = "import time\nprint('here', flush=True)\ntime.sleep(1000)\n"


@pytest.fixture
def shell(cluster: Cluster) -> Shell:
    return Shell(cluster)


def test_a_detached_job_is_looked_at_and_stopped_from_elsewhere(
    cluster: Cluster, shell: Shell
) -> None:
    name, run = shell.detach("-n", 2, cluster.script(WAITS))
    wait_until(lambda: shell.baryon("logs").count("here") == 2, "the output of two workers")
    assert re.search(rf"{name}\s+runs\s+local\s", shell.baryon("status"))
    told = shell.baryon("status", name)
    assert f"job      {name}\nstate    runs\n" in told
    assert re.search(r"\njob \S+ is starting, .*\n  server 0 .*\n  worker 0 .*\n  worker 1 ", told)
    assert f"job {name} is" not in shell.baryon("logs"), "nobody who looks on is seen there"
    assert shell.baryon("logs", name, "--task", "worker-1") == "here\n"
    assert "there are worker-0, worker-1\n" in shell.baryon(
        "logs", name, "--task", "worker-2", code=2
    )
    assert shell.baryon("stop", name) == f"{name} ended with code 143\n"
    run.wait_until_gone()
    assert shell.baryon("stop", name) == f"{name} ended with code 143\n"
    assert "state    ended with code 143" in shell.baryon("status", name)


def test_logs_follow_the_job_to_its_end(cluster: Cluster, shell: Shell) -> None:
    name, _ = shell.detach("-n", 1, cluster.script("import time; time.sleep(1); print('so far')"))
    assert "so far" in shell.baryon("logs", "--follow", name)
    assert "ended well" in shell.baryon("status", name)


def test_what_is_wrong_at_once_is_told_at_once(cluster: Cluster, shell: Shell) -> None:
    """Before and after the job has gone behind: the port is tried by the scheduler."""
    assert "gone.py" in cluster.run("--detach", "-n", 1, "gone.py", env=shell.env, code=2).err
    script = cluster.script(WAITS)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = cluster.run("--detach", "-n", 1, "--port", port, script, env=shell.env, code=2)
    assert f"cannot listen on 127.0.0.1 port {port}" in run.err
    assert run.out == ""
    assert "ended with code 2" in shell.baryon("status")


def test_ctrl_c_ends_a_job_that_is_not_yet_taken(cluster: Cluster, shell: Shell) -> None:
    """Its only host does not say hello."""
    with socket.create_server(("127.0.0.1", 0)) as host:
        host.settimeout(60)
        place = f"127.0.0.1:{host.getsockname()[1]},"
        run = cluster.start("--detach", "-n", 1, "-H", place, cluster.script(WAITS), env=shell.env)
        connection, _ = host.accept()
        run.signal(signal.SIGINT)
        assert run.end() == 128 + signal.SIGINT
        connection.close()
    assert run.out == ""
    run.wait_until_gone()


def test_two_jobs_do_not_write_to_one_directory(cluster: Cluster, shell: Shell) -> None:
    flags = ("-n", 1, "--log-dir", cluster.cwd / "logs", cluster.script(WAITS))
    name, _ = shell.detach(*flags)
    run = cluster.run("--detach", *flags, env=shell.env, code=2)
    assert f"another job writes to {cluster.cwd / 'logs'}; choose another --log-dir" in run.err
    shell.baryon("stop", name)


def test_a_job_whose_launcher_was_killed(cluster: Cluster, shell: Shell) -> None:
    name, run = shell.detach("-n", 1, cluster.script(WAITS))
    pid = json.loads(shell.record(name).read_bytes())["pid"]
    os.kill(pid, signal.SIGKILL)
    run.wait_until_gone()
    assert "its launch.py was killed" in shell.baryon("status")
    assert "was killed, and its tasks with it" in shell.baryon("stop", name, code=1)


def test_a_job_of_another_machine(cluster: Cluster, shell: Shell) -> None:
    """They share the home directory."""
    name, _ = shell.detach("-n", 1, cluster.script("print('hello')"))
    shell.baryon("logs", "-f", name)
    record = json.loads(shell.record(name).read_bytes())
    record.update(machine="login2", exit_code=None)
    shell.record(name).write_text(json.dumps(record))
    assert "known to login2 only" in shell.baryon("status", name)
    assert "was started on login2; baryon stop it there" in shell.baryon("stop", name, code=2)


def test_names_of_jobs(shell: Shell) -> None:
    assert "no job was detached here" in shell.baryon("logs", code=2)
    assert "JOB" in shell.baryon("stop", code=2)
    shell.record("a").parent.mkdir(parents=True)
    shell.record("a").write_text("{")
    assert "no job was detached here" in shell.baryon("status", "a", code=2)
