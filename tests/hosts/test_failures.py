"""What goes wrong between machines, made to happen by real means: each ends in seconds, with one
clear line, the right exit code, and no process left on any host.
"""

import os
import pty
import signal
import sys
from pathlib import Path
from typing import Callable

import pytest

from tests.cluster import REPOSITORY, JobRun
from tests.waiting import wait_until

from .conftest import SILENCE_S, Clock, SshCluster, mend

pytestmark = pytest.mark.hosts

# A worker that trains until it is told otherwise; says READY once rounds are completed.
LOOP = """
import os, sys
import mxnet as mx
kv = mx.kv.create("dist_sync")
kv.init("w", mx.nd.ones((3, 4)))
out = mx.nd.zeros((3, 4))
for step in range({steps}):
    kv.pushpull("w", mx.nd.ones((3, 4)), out=out)
    out.wait_to_read()
    if step == 3:
        print("READY", flush=True)
    if step >= 3 and kv.rank == 1:
        {then}
"""


@pytest.fixture
def loop(cluster: SshCluster) -> Callable[..., JobRun]:
    """A job of two workers and two servers on node1 and node2, in the midst of training."""

    def loop(*flags: object, then: str = "pass", steps: int = 10**9) -> JobRun:
        script = cluster.script(LOOP.format(then=then, steps=steps))
        run = cluster.start("-n", 2, "--heartbeat-timeout", SILENCE_S, *flags, script)
        run.wait_for_output("READY", 2)
        return run

    return loop


def test_host_unreachable(cluster: SshCluster, clock: Clock) -> None:
    """Nothing has that address; the others are not started."""
    cluster.bed.cut(cluster.bed.hosts[1])
    run = cluster.start("-n", 2, cluster.script("print('ran')"))
    assert clock.watch(run, "node2: root@", cluster) == 1
    assert "ran" not in run.out


def test_host_killed(cluster: SshCluster, loop: Callable[..., JobRun], clock: Clock) -> None:
    run = loop()
    clock.start()
    cluster.bed.crash(cluster.bed.hosts[1])
    # Said of itself, or beside a worker that has lost the server there.
    assert clock.watch(run, "the agent on node2 has been silent for", cluster) == 1
    assert "did not end in time" not in run.err


def test_host_powered_off(cluster: SshCluster, loop: Callable[..., JobRun], clock: Clock) -> None:
    """Its link goes down; when it comes back, nothing of the job is there any more."""
    run = loop()
    clock.start()
    cluster.bed.cut(cluster.bed.hosts[1])
    assert clock.watch(run, "the agent on node2 has been silent for", cluster) == 1


@pytest.mark.parametrize("way", ["to the hosts", "from the hosts", "both ways"])
def test_host_cut_off_from_here(
    cluster: SshCluster, loop: Callable[..., JobRun], clock: Clock, way: str
) -> None:
    bed, node2 = cluster.bed, cluster.bed.hosts[1]
    run = loop()
    clock.start()
    if way != "from the hosts":
        bed.block("driver", node2)
    if way != "to the hosts":
        bed.block(node2, "driver")
    assert clock.watch(run, "the agent on node2", cluster) == 1


@pytest.mark.parametrize("way", ["one way", "both ways"])
def test_hosts_cut_off_from_each_other(
    cluster: SshCluster, loop: Callable[..., JobRun], clock: Clock, way: str
) -> None:
    """Each is still heard here: only they know."""
    bed = cluster.bed
    run = loop()
    clock.start()
    if way == "one way":
        bed.block(bed.hosts[0], bed.hosts[1])
    else:
        bed.split([bed.hosts[0]], [bed.hosts[1]])
    assert clock.watch(run, ": lost server", cluster) == 1


def test_short_cut_is_survived(cluster: SshCluster, loop: Callable[..., JobRun]) -> None:
    """Connections that the network resets, too: what was under way is sent again."""
    run = loop("--heartbeat-timeout", 20, steps=4000)
    bed = cluster.bed
    for _ in range(3):
        bed.split([bed.hosts[0]], [bed.hosts[1]])
        bed.unblock_all()
        reset_connections(cluster)
    assert run.end() == 0, run.err


def reset_connections(cluster: SshCluster) -> None:
    """End every connection between node1 and node2, as a firewall that forgets them does."""
    node1, node2 = cluster.bed.hosts[:2]
    cluster.bed.run(node1, ["ss", "-K", "dst", node2.address]).wait()


def test_task_frozen(cluster: SshCluster, loop: Callable[..., JobRun], clock: Clock) -> None:
    run = loop()
    clock.start()
    cluster.task(cluster.bed.hosts[1], "script.py").suspend()
    assert clock.watch(run, "is stopped", cluster) == 1
    assert "worker 1 (node2) has been silent for" in run.err


def test_agent_frozen(cluster: SshCluster, loop: Callable[..., JobRun], clock: Clock) -> None:
    """Its guard sees the connection close and ends what it can no longer end itself."""
    run = loop()
    clock.start()
    agents = [
        process
        for process in cluster.bed.processes(cluster.bed.hosts[1])
        if "baryon.scheduler.agent" in " ".join(process.cmdline())
    ]
    max(agents, key=lambda process: process.create_time()).suspend()
    assert clock.watch(run, "the agent on node2 has been silent for", cluster) == 1


def test_agent_killed(cluster: SshCluster, loop: Callable[..., JobRun], clock: Clock) -> None:
    run = loop()
    clock.start()
    cluster.task(cluster.bed.hosts[1], "baryon.scheduler.agent").kill()
    assert clock.watch(run, "the agent on node2 was killed by a signal", cluster) == 1


def test_worker_exits(loop: Callable[..., JobRun], cluster: SshCluster, clock: Clock) -> None:
    run = loop(then="sys.exit(5)")
    clock.start()
    assert clock.watch(run, "worker 1 (node2) exited with code 5", cluster) == 5


def test_server_killed(loop: Callable[..., JobRun], cluster: SshCluster, clock: Clock) -> None:
    run = loop()
    clock.start()
    cluster.task(cluster.bed.hosts[1], "server_task").kill()
    assert clock.watch(run, "server 1 (node2) was killed by signal 9", cluster) == 137


CGROUP = Path("/sys/fs/cgroup/memory")


def test_out_of_memory(cluster: SshCluster, clock: Clock) -> None:
    """By the kernel of the host itself, which a limit of a memory cgroup makes act."""
    group = CGROUP / f"baryon-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(100 << 20))
    except OSError as error:
        pytest.skip(f"this kernel has no memory cgroups that a test may make: {error}")
    try:
        script = cluster.script(
            "import os\n"
            "if os.environ['DMLC_WORKER_ID'] == '1':\n"
            f"    open('{group}/cgroup.procs', 'w').write(str(os.getpid()))\n"
            "    big = bytearray(os.urandom(1 << 20)) * 1000\n"
            "import signal; signal.pause()\n"
        )
        run = cluster.start("-n", 2, script)
        clock.start()
        assert clock.watch(run, "its cgroup ran out of memory", cluster) == 137
        assert "worker 1 (node2) was killed by signal 9 (SIGKILL), because its host" in run.err
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text(), "the end of the group's tasks")
        group.rmdir()


def test_disk_full_for_the_script(cluster: SshCluster, clock: Clock) -> None:
    script = cluster.script("open('/dev/full', 'w').write('x' * 100000)")
    run = cluster.start("-n", 2, script)
    assert clock.watch(run, "No space left on device", cluster) == 1
    assert "exited with code 1" in run.err


def test_host_that_is_slow_to_start(cluster: SshCluster, clock: Clock) -> None:
    slow = "if [ $(hostname) = node2 ]; then sleep 1000; fi"
    flags = ["--setup", slow, "--python", sys.executable, "--start-timeout", 3]
    run = cluster.start("-n", 3, *flags, cluster.script("print('ran')"))
    assert clock.watch(run, "node2", cluster) == 1
    assert "3 s" in run.err
    assert "ran" not in run.out


def test_sshd_restarted_in_mid_job(cluster: SshCluster, loop: Callable[..., JobRun]) -> None:
    """The listener serves new connections only: the job goes on to its end."""
    run = loop(steps=2000)
    node2 = cluster.bed.hosts[1]
    cluster.bed.stop_sshd(node2)
    cluster.bed.start_sshd(node2)
    assert run.end() == 0, run.err


def test_sshd_and_its_sessions_killed(
    cluster: SshCluster, loop: Callable[..., JobRun], clock: Clock
) -> None:
    run = loop()
    clock.start()
    cluster.bed.stop_sshd(cluster.bed.hosts[1], keep_sessions=False)
    assert clock.watch(run, "the agent on node2 is out of reach: its SSH connection", cluster) == 1


def test_launching_machine_asleep(
    cluster: SshCluster, loop: Callable[..., JobRun], clock: Clock
) -> None:
    """For longer than the agents' patience: they have ended when it wakes."""
    run = loop()
    clock.start()
    run.signal(signal.SIGSTOP)
    cluster.wait_until_hosts_are_empty()
    run.signal(signal.SIGCONT)
    assert clock.watch(run, "this machine slept, or launch.py was stopped, for", cluster) == 1
    assert "the scheduler has been silent for" in run.err


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_launcher_ended_by(
    cluster: SshCluster, loop: Callable[..., JobRun], clock: Clock, signum: signal.Signals
) -> None:
    run = loop()
    run.signal(signum)
    if signum == signal.SIGKILL:
        assert run.end() == -signum
        cluster.wait_until_hosts_are_empty()
    else:
        clock.start()
        assert clock.watch(run, "stopping all tasks", cluster) == 128 + signum


def test_second_ctrl_c_kills_at_once(cluster: SshCluster) -> None:
    script = cluster.script(
        "import signal\n"
        "for signum in (signal.SIGINT, signal.SIGTERM): signal.signal(signum, signal.SIG_IGN)\n"
        "print('READY', flush=True)\n"
        "while True: signal.pause()\n"
    )
    run = cluster.start("-n", 2, script)
    run.wait_for_output("READY", 2)
    run.signal(signal.SIGINT)
    run.wait_for_output("stopping all tasks")
    run.signal(signal.SIGINT)
    assert run.end() == 130
    assert "killing all tasks" in run.err
    assert "did not end in time" not in run.err


def test_launchers_terminal_closed(cluster: SshCluster) -> None:
    """A real one, whose other end goes away."""
    script = cluster.script(LOOP.format(then="pass", steps=10**9))
    argv = [sys.executable, "-m", "baryon.launcher", "-n", "2", "-H", str(cluster.bed.hostfile)]
    argv += ["--ssh-config", str(cluster.bed.ssh_config), str(script)]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(cluster.cwd)
        os.environ["PYTHONPATH"] = str(REPOSITORY)
        os.execv(argv[0], argv)
    seen = b""
    while seen.count(b"READY") < 2:
        seen += os.read(terminal, 4096)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.WEXITSTATUS(status) == 128 + signal.SIGHUP
    cluster.wait_until_hosts_are_empty()


def test_one_failure_after_the_other(cluster: SshCluster, loop: Callable[..., JobRun]) -> None:
    """A host dies while the job stops because another has: the end comes all the same."""
    run = loop()
    cluster.bed.crash(cluster.bed.hosts[1])
    run.wait_for_output("the agent on node2 has been silent for")
    cluster.bed.crash(cluster.bed.hosts[0])
    assert run.end() == 1
    mend(cluster.bed)
    cluster.wait_until_hosts_are_empty()
