"""Optimizer states and whole-job checkpoints, over jobs of different shapes."""

from pathlib import Path
from typing import Dict, Tuple

import pytest

from tests.cluster import SCRIPTS, Cluster, JobRun

SCRIPT = SCRIPTS / "checkpointed.py"
CASES = SCRIPTS / "checkpoint_cases.py"
ASYNC_CASES = SCRIPTS / "async_checkpoint_cases.py"


OPTIMIZERS = ("sgd", "adam", "nadam", "lamb")


def losses(run: JobRun) -> Dict[Tuple[str, int], float]:
    """By optimizer and step, as worker 0 has them."""
    lines = [line.split() for line in run.out.splitlines() if "worker 0 | LOSS" in line]
    return {(words[-3], int(words[-2])): float(words[-1]) for words in lines}


def test_jobs_go_on_as_if_nothing_had_been(cluster: Cluster, tmp_path: Path) -> None:
    """In other shapes, up to rounding; in the same one to the last bit."""
    path = str(tmp_path / "run-")
    unbroken = losses(cluster.run("-n", 3, "-s", 2, SCRIPT, "save", path, *OPTIMIZERS))
    assert {entry.name for entry in tmp_path.glob("run-*")} == {f"run-{o}" for o in OPTIMIZERS}
    expected = {(name, step): loss for (name, step), loss in unbroken.items() if step >= 5}
    the_same = ("-n", 3, "-s", 2)
    for shape in (("-n", 2, "-s", 3), ("-n", 4, "--workers-per-host", 2), the_same):
        run = cluster.run(*shape, SCRIPT, "restore", path, *OPTIMIZERS)
        if shape == the_same:
            assert losses(run) == expected
        else:
            assert losses(run) == pytest.approx(expected, abs=2e-5)
        position = {"rank": 0} if shape == the_same else None
        positions = [{"rank": rank} for rank in range(3)]
        for name in OPTIMIZERS:
            assert f"worker 0 | FOUND {name} {position} {positions} extra\n" in run.out


def test_every_case(cluster: Cluster) -> None:
    cluster.run_cases(CASES, 2, "-s", 2, "--no-shared-memory")


def test_nobody_pushes_to_an_asynchronous_store_that_is_being_loaded(cluster: Cluster) -> None:
    cluster.run_cases(ASYNC_CASES, 2)


def test_states_are_mxnets_own_format_both_ways(cluster: Cluster, tmp_path: Path) -> None:
    """A local Trainer reads what the servers had, and the servers what it has written."""
    script = cluster.script(
        "import sys\n"
        "import mxnet as mx\n"
        "from mxnet import autograd, gluon\n"
        "def train(kvstore, steps, load=None, save=None):\n"
        "    net = gluon.nn.Dense(500, in_units=600, prefix='d_')\n"
        "    net.initialize(mx.init.One())\n"
        "    trainer = gluon.Trainer(net.collect_params(), 'adam', kvstore=kvstore)\n"
        "    if load:\n"
        "        net.load_parameters(load + '.net')\n"
        "        trainer.load_states(load)\n"
        "    for step in range(steps):\n"
        "        with autograd.record():\n"
        "            loss = net(mx.nd.ones((2, 600))).sum()\n"
        "        loss.backward()\n"
        "        trainer.step(1)\n"
        "    if save:\n"
        "        trainer.save_states(save)\n"
        "        net.save_parameters(save + '.net')\n"
        "    return net.weight.data().asnumpy()\n"
        "path = sys.argv[1]\n"
        "whole = train(None, 6)\n"
        "train('dist_sync', 3, save=path + 'ours')\n"
        "train(None, 3, save=path + 'theirs')\n"
        "for kvstore, file in (None, 'ours'), ('dist_sync', 'theirs'), ('dist_sync', 'ours'):\n"
        "    print('SAME', abs(train(kvstore, 3, load=path + file) - whole).max() < 1e-6)\n"
    )
    assert cluster.run("-n", 1, "-s", 2, script, tmp_path / "s-").out.count("SAME True") == 3


def test_states_that_do_not_fit_are_refused(cluster: Cluster, tmp_path: Path) -> None:
    script = cluster.script(
        "import pickle, sys\n"
        "import mxnet as mx\n"
        "kv = mx.kv.create('dist_sync')\n"
        "path = sys.argv[1]\n"
        "def refused(says, data=None):\n"
        "    if data is not None:\n"
        "        open(path, 'wb').write(data)\n"
        "    try:\n"
        "        kv.load_optimizer_states(path)\n"
        "    except Exception as error:\n"
        "        assert says in str(error), error\n"
        "    else:\n"
        "        raise AssertionError(says)\n"
        "states = pickle.dumps({'w': mx.nd.ones((2, 3))})\n"
        "open(path, 'wb').write(states)\n"
        "refused('no optimizer')\n"
        "kv.set_optimizer(mx.optimizer.SGD(learning_rate=1.0, momentum=0.5))\n"
        "kv.init('w', mx.nd.zeros((2, 3)))\n"
        "refused('cut off', states[:-9])\n"
        "refused('no optimizer states in it', pickle.dumps([1]))\n"
        "refused('does not exist here', pickle.dumps({'v': None}))\n"
        "refused('none of SGD', pickle.dumps({'w': None}))\n"
        "out = mx.nd.zeros((2, 3))\n"
        "kv.pushpull('w', mx.nd.ones((2, 3)), out=out)\n"
        "kv.pushpull('w', mx.nd.ones((2, 3)), out=out)\n"
        "print('STILL', out.asnumpy().tolist()[0])\n"
    )
    run = cluster.run("-n", 1, script, tmp_path / "states")
    assert "STILL [-2.5, -2.5, -2.5]" in run.out
