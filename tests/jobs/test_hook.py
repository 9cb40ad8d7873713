"""What reaches the script: its arguments, its environment, its own start-up files, our store."""

import json
import os
import signal
import sys

import pytest

from tests.cluster import REPOSITORY, Cluster

SHOW = (
    "import json, os, sys\n"
    "seen = dict(argv=sys.argv[1:], cwd=os.getcwd(), env=dict(os.environ))\n"
    "print('SEEN' + json.dumps(seen))\n"
)


def seen(out: str) -> dict:
    return json.loads(out.split("SEEN")[1].splitlines()[0])


def test_arguments_environment_and_directory_reach_the_script_exactly(cluster: Cluster) -> None:
    args = ["a b", "", "it's", 'say "hi"', "$HOME", "--env", "-n", "ünïcødé", "tab\there", "*"]
    env = {"MINE": "x y=z", "UNICODE": "ß"}
    run = cluster.run("-n", 1, cluster.script(SHOW, "a script.py"), *args, env=env)
    got = seen(run.out)
    assert got["argv"] == args
    assert got["cwd"] == str(cluster.cwd)
    assert got["env"]["MINE"] == "x y=z" and got["env"]["UNICODE"] == "ß"


def test_environment_flags(cluster: Cluster) -> None:
    script = cluster.script(SHOW)
    run = cluster.run(
        "-n", 1, "--env", "HERE", "--env", "SET=1", "--env-worker", "W:2:3", "--env-server", "S:4",
        script, env={"HERE": "yes"},
    )  # fmt: skip
    env = seen(run.out)["env"]
    assert (env["HERE"], env["SET"], env["W"]) == ("yes", "1", "2:3")
    assert "S" not in env
    assert "DMLC_PS_ROOT_URI" not in env


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "train.py"],
        ["./run.sh"],
        ["bash", "-c", f"exec {sys.executable} train.py"],
        [sys.executable, "-c", "import runpy; runpy.run_path('train.py', run_name='__main__')"],
        [sys.executable, "-m", "train"],
    ],
    ids=["python", "run.sh", "bash", "runpy", "module"],
)
def test_any_command_gets_the_store(cluster: Cluster, command: list) -> None:
    cluster.script(
        "import mxnet as mx\nkv = mx.kv.create('dist_sync')\nprint('GOT', type(kv).__module__)\n",
        "train.py",
    )
    runner = cluster.script(f"#!/bin/sh\ncd .\n'{sys.executable}' train.py\n", "run.sh")
    runner.chmod(0o755)
    run = cluster.run("-n", 2, *command)
    assert run.out.count("GOT baryon.worker.mxnet.kvstore") == 2


def test_users_own_sitecustomize_still_runs(cluster: Cluster) -> None:
    folder = cluster.cwd / "own"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import builtins\nbuiltins.MARK = 'own'\n")
    script = cluster.script("import sitecustomize\nprint(MARK, sitecustomize.__file__)\n")
    path = os.pathsep.join([str(folder), str(REPOSITORY)])
    run = cluster.run("-n", 1, script, env={"PYTHONPATH": path})
    assert f"own {folder}" in run.out


def test_nothing_happens_outside_a_job(cluster: Cluster) -> None:
    """The hook is harmless in a Python that inherits the path and no task."""
    hook = REPOSITORY / "worker" / "hook"
    script = cluster.script(
        "import subprocess, sys, os\n"
        f"env = dict(os.environ, PYTHONPATH={str(hook)!r}); env.pop('BARYON_TASK')\n"
        "code = 'import sys; print([m for m in sys.modules if m.startswith(\"baryon\")])'\n"
        "print(subprocess.check_output([sys.executable, '-c', code], env=env).decode())\n"
    )
    assert "[]" in cluster.run("-n", 1, script).out


def test_kvstore_flag_makes_a_local_script_distributed(cluster: Cluster) -> None:
    script = cluster.script(
        "import mxnet as mx\n"
        "from mxnet import autograd, gluon\n"
        "net = gluon.nn.Dense(1, in_units=2)\n"
        "net.initialize(mx.init.Uniform())\n"
        "trainer = gluon.Trainer(net.collect_params(), 'sgd', kvstore='device')\n"
        "with autograd.record(): loss = net(mx.nd.ones((4, 2))).sum()\n"
        "loss.backward()\n"
        "trainer.step(4)\n"
        "print(trainer._kvstore.type, net.weight.data().asnumpy().tolist())\n"
        "print(type(mx.kv.create('local')).__module__)\n"
    )
    run = cluster.run("-n", 2, "--kvstore", "dist_sync", script)
    lines = [line.split("| ")[1] for line in run.out.splitlines()]
    trained = [line for line in lines if line.startswith("dist_sync")]
    assert len(trained) == 2 and trained[0] == trained[1]
    assert lines.count("baryon.worker.mxnet.kvstore") == 2
    assert run.err.count("each of the 2 workers seems to read all data") == 1


@pytest.mark.parametrize(
    "ask", ["kv.rank", "ShardSampler(8, batch_size=2)", "ShardSampler(8, 2, rank=0, num_workers=2)"]
)
def test_who_asks_for_its_part_of_the_data_is_told_nothing(cluster: Cluster, ask: str) -> None:
    script = cluster.script(
        "import mxnet as mx\n"
        "from baryon.worker.data import ShardSampler\n"
        "kv = mx.kv.create('local')\n"
        f"{ask}\n"
        "kv.init('w', mx.nd.zeros(2))\n"
        "kv.push('w', mx.nd.zeros(2))\n"
    )
    assert "read all data" not in cluster.run("-n", 2, "--kvstore", "dist_sync", script).err


def test_data_loader_processes_and_forks(cluster: Cluster) -> None:
    """Processes that MXNet's DataLoader forks neither hang nor take part."""
    script = cluster.script(
        "import mxnet as mx, numpy as np, os\n"
        "from mxnet import gluon\n"
        "kv = mx.kv.create('dist_sync')\n"
        "kv.init(0, mx.nd.zeros(4))\n"
        "data = gluon.data.ArrayDataset(np.arange(32, dtype='float32').reshape(8, 4))\n"
        "out = mx.nd.zeros(4)\n"
        "for epoch in range(3):\n"
        "    for batch in gluon.data.DataLoader(data, 2, num_workers=2):\n"
        "        kv.pushpull(0, batch[0], out=out)\n"
        "print('SUM', out.asnumpy().tolist())\n"
        "if os.fork() == 0:\n"
        "    try: mx.kv.create('dist_sync')\n"
        "    except Exception as error: print('FORKED', error, flush=True)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
    )
    run = cluster.run("-n", 2, script)
    assert run.out.count("SUM [48.0, 50.0, 52.0, 54.0]") == 2
    assert run.out.count("FORKED this process was forked") == 2


@pytest.mark.parametrize(
    "fork",
    [
        "pid = os.fork(); os._exit(0) if not pid else os.waitpid(pid, 0)",
        "subprocess.run(['true'], check=True)",
        "subprocess.run(['true'], check=True, preexec_fn=os.getpid)",
        "os.system('true')",
    ],
    ids=["fork", "subprocess", "preexec_fn", "system"],
)
def test_forks_while_operations_are_under_way(cluster: Cluster, fork: str) -> None:
    """MXNet waits for its engine before a fork, and the engine for us."""
    script = cluster.script(
        "import mxnet as mx, os, subprocess\n"
        "kv = mx.kv.create('dist_sync')\n"
        "kv.init(0, mx.nd.zeros(1000000))\n"
        "out = mx.nd.zeros(1000000)\n"
        "for step in range(20):\n"
        "    kv.pushpull(0, mx.nd.ones(1000000), out=out)\n"
        f"    {fork}\n"
        "print('SUM', out[0].asscalar())\n"
    )
    assert cluster.run("-n", 2, script).out.count("SUM 2.0") == 2


def test_forked_process_that_uses_the_store_is_told(cluster: Cluster) -> None:
    script = cluster.script(
        "import mxnet as mx, os\n"
        "kv = mx.kv.create('dist_sync')\n"
        "kv.init(0, mx.nd.zeros(3))\n"
        "if os.fork() == 0:\n"
        "    try: kv.pull(0, out=mx.nd.zeros(3))\n"
        "    except Exception as error: print('FORKED', error, flush=True)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
    )
    assert cluster.run("-n", 2, script).out.count("FORKED this process was forked") == 2


def test_output_is_live_whole_and_kept(cluster: Cluster) -> None:
    script = cluster.script(
        "import os, sys, signal\n"
        "print('to out'); print('to err', file=sys.stderr)\n"
        "sys.stdout.write('half'); sys.stdout.flush(); sys.stdout.write(' a line\\n')\n"
        "sys.stdout.flush()\n"
        "signal.pause()\n"
    )
    run = cluster.start("-n", 2, "--log-dir", "logs", script)
    run.wait_for_output("half a line", 2)  # while the workers still run
    run.signal(signal.SIGTERM)
    assert run.end() == 143
    assert "worker 0 | to out\n" in run.out and "worker 1 | half a line\n" in run.out
    assert "worker 1 | to err\n" in run.err
    kept = (cluster.cwd / "logs" / "worker-1.log").read_text()
    assert sorted(kept.splitlines()) == ["half a line", "to err", "to out"]
