"""Every way to fail ends soon, with one clear line, the right exit code and nothing left behind.

That nothing is left is checked by the fixture at the end of each test.
"""

import os
import random
import re
import signal
import socket
import subprocess
import sys

import pytest
import zmq

from baryon.ps import new_key_pair, secure_client
from tests.cluster import REPOSITORY, Cluster, JobRun
from tests.waiting import LIMIT_S

START_LIMIT_S = 20
"""A --timeout: servers must come up within it, too, and take ten seconds on a busy machine."""

# A worker that trains until it is told otherwise; says READY once rounds are completed.
LOOP = """
import os, sys
import mxnet as mx
kv = mx.kv.create("dist_sync")
kv.init("w", mx.nd.ones((3, 4)))
out = mx.nd.zeros((3, 4))
for step in range(10**9):
    kv.pushpull("w", mx.nd.ones((3, 4)), out=out)
    out.wait_to_read()
    if step == 3:
        print("READY", flush=True)
    if step == 3 and kv.rank == 1:
        {failure}
"""


def loop(cluster: Cluster, failure: str = "pass") -> JobRun:
    run = cluster.start("-n", 2, "-s", 2, cluster.script(LOOP.format(failure=failure)))
    run.wait_for_output("READY", 2)
    return run


def test_script_that_raises(cluster: Cluster) -> None:
    run = loop(cluster, "raise ValueError('the dog ate it')")
    assert run.end() == 1
    assert "baryon: worker 1 (localhost) exited with code 1" in run.err
    assert "its last line was: ValueError: the dog ate it\n" in run.err
    # Worker 0 is told to stop, and says in a line where it was if it is not ended before.
    assert run.err.count("Traceback (most") == 1


def test_script_that_exits_with_3(cluster: Cluster) -> None:
    run = loop(cluster, "sys.exit(3)")
    assert run.end() == 3
    assert "worker 1 (localhost) exited with code 3" in run.err


@pytest.mark.parametrize("slug", ["worker-1", "server-0"])
def test_task_killed(cluster: Cluster, slug: str) -> None:
    run = loop(cluster)
    run.task(slug).kill()
    assert run.end() == 137
    name = slug.replace("-", " ")
    assert f"baryon: {name} (localhost) was killed by signal 9 (SIGKILL)" in run.err


def test_agent_killed(cluster: Cluster) -> None:
    """Neither half of an agent leaves tasks behind when it dies."""
    for half in range(2):  # the guard is the older one
        run = loop(cluster)
        agents = sorted(run.processes("baryon.scheduler.agent"), key=lambda p: p.create_time())
        agents[half].kill()
        assert run.end() == 1
        assert "the agent on localhost" in run.err
        run.wait_until_gone()


def test_scheduler_killed(cluster: Cluster) -> None:
    run = loop(cluster)
    run.signal(signal.SIGKILL)
    assert run.end() == -signal.SIGKILL
    run.wait_until_gone()
    assert "the scheduler has gone; killing server-0, server-1, worker-0, worker-1" in run.err


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_stops_everything(cluster: Cluster, signum: signal.Signals) -> None:
    run = loop(cluster)
    run.signal(signum)
    assert run.end() == 128 + signum
    assert f"{signum.name}: stopping all tasks" in run.err


def test_script_may_save_its_work_on_ctrl_c(cluster: Cluster) -> None:
    script = cluster.script(
        "import mxnet as mx, signal, time\n"
        "kv = mx.kv.create('dist_sync')\n"
        "try:\n"
        "    print('READY', flush=True)\n"
        "    signal.pause()\n"
        "except KeyboardInterrupt:\n"
        "    print('SAVED', flush=True)\n"
    )
    run = cluster.start("-n", 2, script)
    run.wait_for_output("READY", 2)
    run.signal(signal.SIGINT)
    assert run.end() == 130
    assert run.out.count("SAVED") == 2


def test_second_ctrl_c_kills_at_once(cluster: Cluster) -> None:
    script = cluster.script(
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
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


def test_worker_that_never_starts(cluster: Cluster) -> None:
    script = cluster.script(
        "import os, signal\n"
        "if os.environ['DMLC_WORKER_ID'] == '1': signal.pause()\n"
        "import mxnet as mx\n"
        "mx.kv.create('dist_sync')\n"
    )
    run = cluster.run("-n", 2, "--timeout", START_LIMIT_S, script, code=1)
    assert re.search(
        r"worker 0 waited \d+ s for worker 1 \(localhost\) to create a dist kvstore", run.err
    )


def test_worker_that_ends_without_a_store(cluster: Cluster) -> None:
    script = cluster.script(
        "import os, sys\n"
        "if os.environ['DMLC_WORKER_ID'] == '1': sys.exit()\n"
        "import mxnet as mx\n"
        "mx.kv.create('dist_sync')\n"
    )
    run = cluster.run("-n", 2, script, code=1)
    assert "worker 1 (localhost) ended without creating a dist kvstore" in run.err


def test_round_that_waits_for_ever_names_whom_it_waits_for(cluster: Cluster) -> None:
    script = cluster.script(
        "import mxnet as mx, signal\n"
        "kv = mx.kv.create('dist_sync')\n"
        "kv.init('w', mx.nd.ones(3))\n"
        "if kv.rank == 1: signal.pause()\n"
        "out = mx.nd.ones(3)\n"
        "kv.pushpull('w', out, out=out)\n"
        "out.wait_to_read()\n"
    )
    run = cluster.run("-n", 2, "--timeout", START_LIMIT_S, script, code=1)
    assert re.search(r"worker 0 has waited \d+ s for worker 1 in round 1 of key w", run.err)


def test_task_that_is_frozen(cluster: Cluster) -> None:
    script = cluster.script(LOOP.format(failure="os.kill(os.getpid(), 19)"))
    run = cluster.run("-n", 2, "--heartbeat-timeout", 3, script, code=1)
    assert re.search(r"worker 1 \(localhost\) has been silent for [34] s: .* is stopped", run.err)


def test_gradient_that_could_not_be_computed_is_not_sent(cluster: Cluster) -> None:
    """Nobody gets a made-up sum, and the job ends soon, also if the script swallows the error."""
    script = cluster.script(
        "import mxnet as mx, sys\n"
        "kv = mx.kv.create('dist_sync')\n"
        "kv.init('w', mx.nd.ones(3))\n"
        "out = mx.nd.zeros(3)\n"
        "bad = mx.nd.random.normal(0, -1, shape=3) if kv.rank else mx.nd.ones(3)\n"
        "kv.pushpull('w', bad, out=out)\n"
        "try:\n"
        "    out.wait_to_read()\n"
        "    print('GOT', out.asnumpy())\n"
        "except Exception as error:\n"
        "    print('CAUGHT', error)\n"
        "    sys.exit(3)\n"
    )
    run = cluster.run("-n", 2, script, code=3)
    assert "worker 1: the value given for key 'w' failed to compute" in run.err
    assert "GOT" not in run.out
    assert "worker 1 | CAUGHT" in run.out


def test_launcher_guard_and_agent_killed_at_once(cluster: Cluster) -> None:
    """Nobody is left to end the tasks: they do it themselves."""
    cluster.script(LOOP.format(failure="pass"), "train.py")
    shell = f"{sys.executable} train.py; echo done"  # the worker is not the agent's own child
    run = cluster.start("-n", 2, "--heartbeat-timeout", 2, "sh", "-c", shell)
    run.wait_for_output("READY", 2)
    for process in [*run.processes("baryon.scheduler.agent"), *run.processes("baryon.launcher")]:
        process.kill()
    assert run.end() == -signal.SIGKILL
    run.wait_until_gone()


def test_agent_stopped(cluster: Cluster) -> None:
    script = cluster.script(LOOP.format(failure="pass"))
    run = cluster.start("-n", 2, "--heartbeat-timeout", 2, script)
    run.wait_for_output("READY", 2)
    for agent in run.processes("baryon.scheduler.agent"):
        agent.suspend()
    assert run.end() == 1
    run.wait_until_gone()


def test_long_call_that_lets_no_thread_run_is_no_failure(cluster: Cluster) -> None:
    script = cluster.script(
        "import mxnet as mx, time\n"
        "kv = mx.kv.create('dist_sync')\n"
        "start = time.monotonic()\n"
        "n = 10**7\n"
        "while time.monotonic() - start < 4: sum(range(n)); n *= 3\n"
        "kv._barrier()\n"
    )
    run = cluster.run("-n", 2, "--heartbeat-timeout", 2, script)
    assert "still runs" in run.err


def test_command_may_go_on_after_its_training(cluster: Cluster) -> None:
    cluster.script("import mxnet as mx\nmx.kv.create('dist_sync')\n", "train.py")
    shell = f"{sys.executable} train.py && sleep 4 && echo uploaded"
    run = cluster.run("-n", 1, "--heartbeat-timeout", 1, "sh", "-c", shell)
    assert "uploaded" in run.out


def test_nohup_is_respected(cluster: Cluster) -> None:
    script = cluster.script(LOOP.format(failure="pass"))
    run = cluster.start("-n", 2, script, ignore=signal.SIGHUP)
    run.wait_for_output("READY", 2)
    run.signal(signal.SIGHUP)
    run.signal(signal.SIGUSR1)
    run.wait_for_output("is running")
    run.signal(signal.SIGTERM)
    assert run.end() == 128 + signal.SIGTERM
    assert "SIGHUP" not in run.err


def test_port_that_is_taken(cluster: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = cluster.run("-n", 2, "--port", port, cluster.script(""), code=2)
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in run.err
    assert run.err.count("\n") == 1


def test_wrong_command_lines_name_every_fault_at_once(cluster: Cluster) -> None:
    (cluster.cwd / "hosts").write_text("# nobody\n")
    run = cluster.run("-n", 0, "-H", "hosts", "--launcher", "local", "missing.py", code=2)
    assert "-n must be 1 or more, not 0" in run.err
    assert "hosts: no host is listed" in run.err
    assert "the script 'missing.py' does not exist" in run.err
    run = cluster.run("-n", 2, "--sink-dir", "x", "train.py", code=2)
    assert "--sink-dir" in run.err
    assert "Traceback" not in run.err


def test_workers_that_disagree_on_a_shape(cluster: Cluster) -> None:
    script = cluster.script(
        "import mxnet as mx\n"
        "kv = mx.kv.create('dist_sync')\n"
        "kv.init('w', mx.nd.ones((3, 4 + kv.rank)))\n"
        "out = mx.nd.ones((3, 4 + kv.rank))\n"
        "kv.pull('w', out=out)\n"
        "out.wait_to_read()\n"
        "kv._barrier()\n"
    )
    run = cluster.run("-n", 2, script, code=1)
    for part in ("key 'w'", "float32(3, 4) on worker 0", "float32(3, 5) on worker 1"):
        assert part in run.err.split("baryon: server")[1]


def test_store_error_is_not_lost_if_the_script_goes_on(cluster: Cluster) -> None:
    """A script that does not call the store again must not end with 0."""
    script = cluster.script(
        "import mxnet as mx\n"
        "kv = mx.kv.create('dist_sync')\n"
        "class Mine(mx.optimizer.Optimizer):\n"
        "    def update(self, index, weight, grad, state): raise ValueError('I cannot')\n"
        "kv.set_optimizer(Mine())\n"
        "kv.init('w', mx.nd.zeros(2))\n"
        "kv.push('w', mx.nd.ones(2))\n"
    )
    run = cluster.run("-n", 2, script, code=1)
    assert "ValueError: I cannot" in run.err


def test_strangers_at_every_socket(cluster: Cluster) -> None:
    """Random bytes, no CURVE, a wrong server key, a foreign key: the job neither ends nor errs."""
    run = loop(cluster)
    ports = {
        connection.laddr.port
        for process in [*run.processes("baryon.launcher"), *run.processes("server_task")]
        for connection in process.net_connections("tcp")
        if connection.status == "LISTEN"
    }
    assert len(ports) == 3  # a scheduler and two servers
    noise = random.Random(1)
    context = zmq.Context()
    for port in ports:
        greeting = b"\xff" + bytes(8) + b"\x7f" + bytes(noise.getrandbits(8) for _ in range(54))
        for junk in (b"x", greeting, bytes(noise.getrandbits(8) for _ in range(5000))):
            with socket.create_connection(("127.0.0.1", port)) as raw:
                raw.sendall(junk)
        for secure in (
            lambda s: None,
            lambda s: secure_client(s, new_key_pair(), new_key_pair().public),
        ):
            stranger = context.socket(zmq.DEALER)
            stranger.linger = 0
            secure(stranger)
            stranger.connect(f"tcp://127.0.0.1:{port}")
            stranger.send_multipart([b"worker-0", b"\x95\xa4Pull\x00\x00\x00\x01"])
            assert stranger.poll(300) == 0, "a stranger got an answer"
            stranger.close()
    context.term()
    seen = run.out.count("READY")
    assert seen == 2
    assert not run.err
    run.signal(signal.SIGTERM)
    assert run.end() == 128 + signal.SIGTERM


def test_output_that_nobody_reads_any_more(cluster: Cluster) -> None:
    cluster.script("while True: print('line')")
    command = (
        f"{sys.executable} -m baryon.launcher -n 1 script.py | head -1; echo ${{PIPESTATUS[0]}}"
    )
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(
        ["bash", "-c", command], cwd=cluster.cwd, env=env, stdout=subprocess.PIPE, timeout=LIMIT_S
    )
    assert ended.stdout.decode().splitlines() == ["worker 0 | line", str(128 + signal.SIGPIPE)]


def test_children_of_the_script_end_with_it(cluster: Cluster) -> None:
    """Also those that left its session, and whether it fails or ends well."""
    for code in (0, 5):
        script = cluster.script(
            "import subprocess, sys\n"
            "subprocess.Popen(['setsid', 'sleep', '1000'])\n"
            "subprocess.Popen(['sleep', '1000'])\n"
            f"sys.exit({code})\n"
        )
        run = cluster.run("-n", 1, script, code=code)
        run.wait_until_gone()


def test_log_directory_that_cannot_be_made(cluster: Cluster) -> None:
    cluster.script("", "file")
    run = cluster.run("-n", 1, "--log-dir", "file/logs", cluster.script("print('hello')"), code=2)
    assert "file/logs cannot be made (Not a directory)" in run.err
    assert run.err.count("\n") == 1


ALONE = """
import mxnet as mx
kv = mx.kv.create("dist_sync")
net = mx.gluon.nn.Dense(2, in_units=3, prefix="net_")
net.initialize()
trainer = mx.gluon.Trainer(net.collect_params(), "sgd", kvstore=kv)
for step in range(100):
    if step == 3 and kv.rank == 1:
        {alone}
    with mx.autograd.record():
        loss = net(mx.nd.ones((4, 3))).sum()
    loss.backward()
    trainer.step(4)
    loss.wait_to_read()
"""


@pytest.mark.parametrize(
    ("alone", "what"),
    [
        ("kv.init('x', loss); kv.pull('x', loss); loss.wait_to_read()", "initialised key 'x'"),
        ("net.weight.set_data(mx.nd.ones((2, 3)))", "set or loaded a Trainer's parameters"),
    ],
)
def test_what_one_worker_does_alone_is_named_soon(cluster: Cluster, alone: str, what: str) -> None:
    """All would wait for each other, for --timeout: half an hour."""
    script = cluster.script(ALONE.format(alone=alone))
    run = cluster.run("-n", 2, "--heartbeat-timeout", 5, script, code=1)
    assert f"baryon: worker 1 has {what} in store 0, but worker 0 has gone on without it" in run.err
