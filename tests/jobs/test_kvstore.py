"""The store's promises, kept by real jobs of several shapes (scripts/kvstore_cases.py)."""

import re

import pytest

from tests.cluster import SCRIPTS, Cluster

CASES = SCRIPTS / "kvstore_cases.py"


@pytest.mark.parametrize(("workers", "servers"), [(1, 1), (2, 2), (3, 2)])
def test_every_case(cluster: Cluster, workers: int, servers: int) -> None:
    number = len(re.findall(r"^def case_", CASES.read_text(), re.M))
    run = cluster.run("-n", workers, "-s", servers, "--workers-per-host", 2, CASES)
    assert "FAILED" not in run.out
    assert run.out.count("PASSED") == workers * number


@pytest.mark.parametrize("name", ["lars", "lamb", "groupadagrad", "mine"])
@pytest.mark.parametrize("when", ["first", "late"])
def test_optimizers_that_need_whole_arrays_get_them(cluster: Cluster, name: str, when: str) -> None:
    """MXNet's own store updates slice by slice, each with a norm of its own."""
    shape = ("-n", 2) if when == "first" else ("-n", 4, "--workers-per-host", 2)
    run = cluster.run(*shape, "-s", 2, SCRIPTS / "whole_arrays.py", name, when)
    assert run.out.count("AS LOCALLY") == shape[1]


def test_code_of_the_scripts_own_is_not_taken_from_who_has_proven_nothing(
    cluster: Cluster,
) -> None:
    script = SCRIPTS / "whole_arrays.py"
    run = cluster.run("-n", 1, "--no-encryption", script, "mine", code=1)
    assert "leave out --no-encryption" in run.err


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
