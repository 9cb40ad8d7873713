"""Workers talk to each other in real jobs (scripts/collective_cases.py)."""

import re

from tests.cluster import SCRIPTS, Cluster

CASES = SCRIPTS / "collective_cases.py"


def test_every_case(cluster: Cluster) -> None:
    cluster.run_cases(CASES, 3, "--workers-per-host", 2)


def test_worker_that_ended_earlier_is_not_waited_for(cluster: Cluster) -> None:
    script = cluster.script(
        "import mxnet as mx\n"
        "kv = mx.kv.create('dist_sync')\n"
        "print('ALL', kv.allgather(kv.rank))\n"
        "if kv.rank != 0:\n"
        "    print('LEFT', kv.allgather(kv.rank), kv.allreduce(kv.rank, 'mean'))\n"
        "    kv.barrier()\n"
        "    print('ROOT', kv.broadcast_object(kv.rank, root=2))\n"
        "    try:\n"
        "        kv.broadcast_object('hello')\n"
        "    except Exception as error:\n"
        "        print('ERROR', error)\n"
    )
    out = cluster.run("-n", 3, script).out
    assert out.count("ALL [0, 1, 2]") == 3
    assert out.count("LEFT [1, 2] 1.5") == 2
    assert out.count("ROOT 2") == 2
    assert out.count("ERROR worker 0, which was to broadcast_object, has ended") == 2


def test_worker_that_never_comes_is_named(cluster: Cluster) -> None:
    script = cluster.script(
        "import mxnet as mx, time\n"
        "kv = mx.kv.create('dist_sync')\n"
        "kv.allgather(None)\n"
        "if kv.rank == 1:\n"
        "    time.sleep(600)\n"
        "kv.barrier('end of epoch 3')\n"
    )
    run = cluster.run("-n", 3, "--timeout", 15, script, code=1)
    assert re.search(
        r"worker 0, worker 2 waited 15 s for worker 1 \(localhost\) to reach "
        r"barrier 'end of epoch 3' \(call 2 of store 0\)",
        run.err,
    ), run.err


def test_workers_that_make_different_calls_are_named_at_once(cluster: Cluster) -> None:
    script = cluster.script(
        "import mxnet as mx\n"
        "kv = mx.kv.create('dist_sync')\n"
        "first, second = (kv.barrier, lambda: kv.allgather(1))[:: 1 if kv.rank else -1]\n"
        "first()\n"
        "second()\n"
    )
    err = cluster.run("-n", 2, script, code=1).err
    assert "all workers must make the same calls in the same order" in err
    for call in ("calls barrier", "calls allgather"):
        assert call in err


def test_worker_that_waits_hears_of_anothers_failure(cluster: Cluster) -> None:
    script = cluster.script(
        "import mxnet as mx\n"
        "kv = mx.kv.create('dist_sync')\n"
        "if kv.rank == 1:\n"
        "    raise SystemExit(3)\n"
        "kv.allgather(1)\n"
    )
    run = cluster.run("-n", 2, script, code=3)
    assert "worker 1 (localhost) exited with code 3" in run.err
