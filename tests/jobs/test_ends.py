"""Whatever a worker has under way when it ends, it ends, with its script's own code."""

import re

import pytest

from tests.cluster import Cluster
from tests.jobs.ends import run_job


@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("dense", ["raise", "exit", "interrupt", "record"]),
        ("rows", ["stay", "system_exit", "stay"]),
        ("push", ["text", "raise", "interrupt"]),
        ("module", ["stay", "raise"]),
        ("operator", ["raise", "stay"]),
    ],
)
def test_script_that_ends_in_the_middle_ends_with_its_own_code(
    cluster: Cluster, what: str, how: list
) -> None:
    """Many more of them: ``python -m tests.jobs.ends``."""
    ends = run_job(cluster, what, how)
    assert [end for end in ends if not end.is_right()] == []


# Worker 1 ends with a push under way, while worker 0 computes for as long as one likes.
END = """
import atexit, os, sys, time
from threading import Thread
import mxnet as mx
{before}
kv = mx.kv.create("dist_sync")
kv.init("w", mx.nd.ones(3))
kv.barrier()
kv.push("w", mx.nd.ones(3))
if kv.rank == 0:
    time.sleep(1000)
{end}
"""


@pytest.mark.parametrize(
    ("before", "end", "code", "said"),
    [
        ("", "sys.exit(3)", 3, r"worker 1 \(localhost\) exited with code 3"),
        ("", "os._exit(0)", 1, r"worker 1 \(localhost\) exited with code 0 without leaving"),
        # Python waits for its threads first.
        ("", "Thread(target=kv.barrier).start(); 1 / 0", 1, "exited with code 1"),
        # It hangs after its goodbye, as in a library's tear-down. Its agent ends it and says so, or
        # on a busy machine the scheduler says first that it still runs.
        (
            "atexit.register(time.sleep, 1000)",
            "sys.exit(3)",
            3,
            "code 3(, but its process|; its com)",
        ),
    ],
)
def test_end_of_a_worker_is_seen_however_long_others_compute(
    cluster: Cluster, before: str, end: str, code: int, said: str
) -> None:
    run = cluster.run("-n", 2, cluster.script(END.format(before=before, end=end)), code=code)
    assert re.search(said, run.err)


SLOW = """
import atexit, os, sys, threading, time
import mxnet as mx
atexit.register(lambda: print(f"registered first by {kv.rank}", flush=True))

@mx.operator.register("slow")
class Slow(mx.operator.CustomOpProp):
    def create_operator(self, *args):
        operator = mx.operator.CustomOp()
        operator.forward = lambda **kwargs: time.sleep(5)
        return operator

kv = mx.kv.create("dist_sync")
kv.barrier()
mx.nd.Custom(mx.nd.ones(2), op_type="slow")
"""


def test_what_was_registered_with_atexit_runs_whatever_the_engine_has_to_do(
    cluster: Cluster,
) -> None:
    run = cluster.run("-n", 1, cluster.script(SLOW + "sys.exit(3)"), code=3)
    assert "registered first by 0" in run.out


def test_ctrl_c_at_a_good_end_is_the_end_of_a_worker_that_leaves_its_job(cluster: Cluster) -> None:
    """Also a second one."""
    interrupt = """
from baryon.worker.mxnet import engine
settle = engine.settle
def settle_and_interrupt(limit_s):
    timer = threading.Timer(0.1, os.kill, (os.getpid(), 2))
    timer.start()
    return settle(limit_s)
engine.settle = settle_and_interrupt
"""
    run = cluster.run("-n", 1, cluster.script(SLOW + interrupt), code=130)
    assert "registered first by 0" in run.out
    assert "exited with code 130" in run.err
    assert "Traceback" not in run.err


def test_naive_engine(cluster: Cluster) -> None:
    """It waits in the push for what another thread completes."""
    script = cluster.script(
        "import mxnet as mx\n"
        "kv = mx.kv.create('dist_sync')\n"
        "kv.init('w', mx.nd.ones(3))\n"
        "out = mx.nd.zeros(3)\n"
        "for step in range(3):\n"
        "    kv.pushpull('w', mx.nd.ones(3), out=out)\n"
        "print(out.asnumpy().tolist())\n"
    )
    run = cluster.run("-n", 2, "--env", "MXNET_ENGINE_TYPE=NaiveEngine", script)
    assert run.out.count("[2.0, 2.0, 2.0]") == 2


def test_process_of_multiprocessing_leaves_its_job(cluster: Cluster) -> None:
    """Nothing calls its atexit functions, so what it has pushed last could be lost."""
    script = cluster.script(
        "import multiprocessing, sys\n"
        "def train():\n"
        "    import mxnet as mx\n"
        "    kv = mx.kv.create('dist_sync')\n"
        "    kv.init('w', mx.nd.ones(3))\n"
        "    kv.push('w', mx.nd.ones(3))\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.get_context('fork').Process(target=train)\n"
        "    process.start()\n"
        "    process.join()\n"
        "    sys.exit(process.exitcode)\n"
    )
    cluster.run("-n", 2, script)
