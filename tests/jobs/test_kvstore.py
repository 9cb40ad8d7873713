"""The store's promises, kept by real jobs of several shapes (scripts/kvstore_cases.py)."""

from pathlib import Path
from typing import Tuple

import pytest

from tests.cluster import SCRIPTS, Cluster

Flags = Tuple[object, ...]
CASES = SCRIPTS / "kvstore_cases.py"


@pytest.mark.parametrize(("workers", "servers"), [(1, 1), (2, 2), (3, 2)])
def test_every_case(cluster: Cluster, workers: int, servers: int) -> None:
    cluster.run_cases(CASES, workers, "-s", servers, "--workers-per-host", 2)


@pytest.mark.parametrize("flags", [("-n", 2), ("-n", 4, "--workers-per-host", 2)])
def test_optimizers_that_need_whole_arrays_get_them(cluster: Cluster, flags: Flags) -> None:
    """MXNet's own store updates slice by slice, each with a norm of its own."""
    names = ("lars", "lamb", "groupadagrad", "mine")
    run = cluster.run(*flags, "-s", 2, SCRIPTS / "whole_arrays.py", *names)
    for name in names:
        for is_late in (False, True):
            assert run.out.count(f"AS LOCALLY {name} {is_late}") == flags[1]


def test_code_of_the_scripts_own_is_not_taken_from_who_has_proven_nothing(
    cluster: Cluster,
) -> None:
    script = SCRIPTS / "whole_arrays.py"
    run = cluster.run("-n", 1, "--no-encryption", script, "mine", code=1)
    assert "leave out --no-encryption" in run.err


def test_an_optimizer_may_use_other_modules_of_the_scripts(cluster: Cluster) -> None:
    """Which the servers cannot import by themselves."""
    run = cluster.run("-n", 2, "-s", 2, SCRIPTS / "own_modules.py")
    assert run.out.count("WEIGHT [-0.75, -0.75, -0.75]") == 2


def test_a_schedule_says_once_that_the_rate_has_changed(cluster: Cluster) -> None:
    script = cluster.script(
        "import logging\n"
        "logging.basicConfig(level=logging.INFO)\n"
        "import mxnet as mx\n"
        "kv = mx.kv.create('dist_sync')\n"
        "factor = mx.lr_scheduler.FactorScheduler(step=1, factor=0.5, base_lr=1)\n"
        "kv.set_optimizer(mx.optimizer.SGD(lr_scheduler=factor))\n"
        "outs = [mx.nd.zeros(600000), mx.nd.zeros(3)]\n"
        "kv.init(['w', 'b'], outs)\n"
        "for _ in range(2):\n"
        "    kv.pushpull(['w', 'b'], [mx.nd.ones(600000), mx.nd.ones(3)], out=outs)\n"
        "mx.nd.waitall()\n"
    )
    run = cluster.run("-n", 2, "-s", 2, script)
    assert (run.out + run.err).count("Change learning rate to") == 1


def test_asynchronous_pushes_are_applied_one_by_one(cluster: Cluster) -> None:
    """Through owners and level-1 servers' workers alike; workers need not push as often."""
    script = cluster.script(
        "import sys\n"
        "import mxnet as mx\n"
        "kv = mx.kv.create('dist_async')\n"
        "kv.set_optimizer(mx.optimizer.SGD(learning_rate=1.0))\n"
        "kv.init(['w', 'b'], [mx.nd.zeros(600000), mx.nd.zeros(3)])\n"
        "outs = [mx.nd.zeros(600000), mx.nd.zeros(3)]\n"
        "for step in range(3 + 4 * kv.rank):\n"
        "    kv.pushpull(['w', 'b'], [mx.nd.ones(600000), mx.nd.ones(3)], out=outs)\n"
        "    mx.nd.waitall()\n"
        "kv._barrier()\n"
        "kv.pull(['w', 'b'], out=outs)\n"
        "print('HAS', [set(out.asnumpy().tolist()) for out in outs])\n"
    )
    run = cluster.run("-n", 4, "--workers-per-host", 2, "-s", 2, script)
    assert run.out.count("HAS [{-36.0}, {-36.0}]") == 4


def test_nobody_gets_further_ahead_than_the_staleness(cluster: Cluster) -> None:
    script = cluster.script(
        "import mxnet as mx\n"
        "kv = mx.kv.create('dist_ssp')\n"
        "kv.set_optimizer(mx.optimizer.SGD(learning_rate=1.0))\n"
        "kv.init('w', mx.nd.zeros(2))\n"
        "out = mx.nd.zeros(2)\n"
        "for step in range(1, 9):\n"
        "    kv.pushpull('w', mx.nd.array([1 - kv.rank, kv.rank]), out=out)\n"
        "    slow, fast = (-out).asnumpy().tolist()\n"
        "    print('AHEAD', int(fast - slow))\n"
    )
    run = cluster.run("-n", 2, "--staleness", 2, script)
    ahead = [int(line.split()[-1]) for line in run.out.splitlines() if "AHEAD" in line]
    assert len(ahead) == 16 and min(ahead) >= -3 and max(ahead) <= 3


@pytest.mark.parametrize("flags", [("-n", 3, "-s", 2), ("-n", 3, "--workers-per-host", 2)])
def test_workers_with_fewer_batches_join(cluster: Cluster, flags: Flags) -> None:
    """7, 5 and 3 batches, three epochs: every sample is counted once, and all have the values."""
    script = cluster.script(
        "import mxnet as mx\n"
        "for kind in ('dist_sync', 'dist_ssp'):\n"
        "    kv = mx.kv.create(kind)\n"
        "    kv.set_optimizer(mx.optimizer.SGD(learning_rate=1.0))\n"
        "    kv.init(['w', 'b'], [mx.nd.zeros(600000), mx.nd.zeros(3)])\n"
        "    outs = [mx.nd.zeros(600000), mx.nd.zeros(3)]\n"
        "    for epoch in range(3):\n"
        "        for batch in range((7, 5, 3)[(kv.rank + epoch) % 3]):\n"
        "            kv.pushpull(['w', 'b'], [mx.nd.ones(600000), mx.nd.ones(3)], out=outs)\n"
        "        kv.join()\n"
        "        print(kind, epoch, [set(out.asnumpy().tolist()) for out in outs])\n"
    )
    run = cluster.run(*flags, "--staleness", 1, script)
    for kind in ("dist_sync", "dist_ssp"):
        for epoch, total in enumerate((-15.0, -30.0, -45.0)):
            assert run.out.count(f"{kind} {epoch} [{{{total}}}, {{{total}}}]") == 3


def test_workers_that_join_have_fewer_rounds_and_not_smaller_ones(cluster: Cluster) -> None:
    """What Trainer does at each step stays as it is; an ended worker does not hold an epoch up."""
    script = cluster.script(
        "import mxnet as mx\n"
        "from mxnet import autograd, gluon\n"
        "net = gluon.nn.Dense(1, in_units=2, use_bias=False)\n"
        "net.initialize(mx.init.Zero())\n"
        "kv = mx.kv.create('dist_sync')\n"
        "trainer = gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': 1.0}, kvstore=kv)\n"
        "for epoch in range(2 if kv.rank else 1):\n"
        "    for batch in range(2 + kv.rank):\n"
        "        with autograd.record():\n"
        "            loss = net(mx.nd.ones((1, 2))).sum()\n"
        "        loss.backward()\n"
        "        trainer.step(1)\n"
        "    kv.join()\n"
        "    print('EPOCH', epoch, net.weight.data().asnumpy().tolist())\n"
    )
    run = cluster.run("-n", 3, script)  # 2, 3 and 4 batches; then 3 and 4
    assert run.out.count("EPOCH 0 [[-9.0, -9.0]]") == 3
    assert run.out.count("EPOCH 1 [[-16.0, -16.0]]") == 2


def test_a_trainer_may_change_its_batch_size_and_load_parameters(
    cluster: Cluster, tmp_path: Path
) -> None:
    """MXNet's Trainer refuses both on a dist store, for what its servers cannot do."""
    script = cluster.script(
        "import sys\n"
        "import mxnet as mx\n"
        "from mxnet import autograd, gluon\n"
        "net = gluon.nn.Dense(1, in_units=1, use_bias=False)\n"
        "net.initialize(mx.init.Zero())\n"
        "kvstore = mx.kv.create('dist_sync') if sys.argv[2] == 'object' else 'dist_sync'\n"
        "options = {'learning_rate': 1.0}\n"
        "trainer = gluon.Trainer(net.collect_params(), 'sgd', options, kvstore=kvstore)\n"
        "def step(batch_size):\n"
        "    with autograd.record():\n"
        "        loss = net(mx.nd.ones((1, 1))).sum()\n"
        "    loss.backward()\n"
        "    trainer.step(batch_size)\n"
        "    print('WEIGHT', net.weight.data().asnumpy().item())\n"
        "step(1)\n"
        "step(2)\n"
        "trainer._kvstore._barrier()\n"
        "net.save_parameters(sys.argv[1] + str(trainer._kvstore.rank))\n"
        "step(4)\n"
        "net.load_parameters(sys.argv[1] + str(trainer._kvstore.rank))\n"
        "step(4)\n"
    )
    for kind in ("name", "object"):
        run = cluster.run("-n", 2, script, tmp_path / kind, kind)
        seen = [float(w.split()[-1]) for w in run.out.splitlines() if "worker 1 | WEIGHT" in w]
        assert seen == [-2.0, -3.0, -3.5, -3.5]


@pytest.mark.parametrize(
    "flags", [("-n", 2, "-s", 1), ("-n", 4, "-s", 2, "--workers-per-host", 2)], ids=["one", "two"]
)
def test_the_memory_of_stores_that_are_replaced_is_given_back(
    cluster: Cluster, tmp_path: Path, flags: Tuple[object, ...]
) -> None:
    script = cluster.script(
        "import os, sys\n"
        "import mxnet as mx\n"
        "from mxnet import autograd, gluon\n"
        "net = gluon.nn.Dense(512, in_units=512)\n"
        "net.initialize(mx.init.One())\n"
        "options = {'learning_rate': 1.0}\n"
        "trainer = gluon.Trainer(net.collect_params(), 'sgd', options, kvstore='dist_sync')\n"
        "for reset in range(12):\n"
        "    with autograd.record():\n"
        "        loss = net(mx.nd.ones((1, 512))).sum()\n"
        "    loss.backward()\n"
        "    trainer.step(1)\n"
        "    mx.nd.waitall()\n"
        "    trainer._kvstore.barrier()\n"
        "    if reset in (1, 11):\n"
        "        print('MIB', os.stat(os.environ['BARYON_MEMORY']).st_blocks // 2048)\n"
        "    name = sys.argv[1] + str(trainer._kvstore.rank)\n"
        "    net.save_parameters(name)\n"
        "    net.load_parameters(name)\n"
    )
    run = cluster.run(*flags, script, tmp_path / "net")
    used = [int(line.split()[-1]) for line in run.out.splitlines() if "| MIB" in line]
    # A store takes 2 MiB for each worker and once more; the last but one may be there still.
    assert len(used) == 2 * int(str(flags[1])) and max(used) <= 2 * 2 * 4


def test_worker_that_ends_early_is_not_waited_for(cluster: Cluster) -> None:
    """Uneven data: rounds to come are complete without the worker that has ended well."""
    script = cluster.script(
        "import mxnet as mx\n"
        "kv = mx.kv.create('dist_sync')\n"
        "kv.init('w', mx.nd.zeros(3))\n"
        "out = mx.nd.zeros(3)\n"
        "for step in range(2 + 3 * kv.rank):\n"
        "    kv.pushpull('w', mx.nd.ones(3), out=out)\n"
        "print('LAST', out.asnumpy().tolist())\n"
    )
    run = cluster.run("-n", 3, script)
    assert "worker 0 | LAST [3.0, 3.0, 3.0]" in run.out
    assert "worker 1 | LAST [2.0, 2.0, 2.0]" in run.out
    assert "worker 2 | LAST [1.0, 1.0, 1.0]" in run.out


def test_last_push_arrives_although_the_script_does_not_wait_for_it(cluster: Cluster) -> None:
    script = cluster.script(
        "import mxnet as mx, time\n"
        "kv = mx.kv.create('dist_sync')\n"
        "kv.init('w', mx.nd.zeros(300000))\n"
        "value = mx.nd.full(300000, kv.rank + 1)\n"
        "kv.push('w', value)\n"
        "if kv.rank == 1:\n"
        "    kv.pull('w', out=value)\n"
        "    print('GOT', set(value.asnumpy().tolist()))\n"
    )
    assert "GOT {3.0}" in cluster.run("-n", 2, script).out
