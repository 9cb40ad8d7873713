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
