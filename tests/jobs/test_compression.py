"""Jobs whose gradients and values travel compressed (scripts/compressed.py)."""

import re
from typing import List

import pytest

from baryon.ps.compression import CODECS
from tests.cluster import SCRIPTS, Cluster

SCRIPT = SCRIPTS / "compressed.py"
APART = "--no-shared-memory"


SYNC = [f"{codec}/dist_sync/servers" for codec in CODECS]


def check(out: str, workers: int, *fits: str) -> None:
    """All have learned the weights, and those of synchronous stores have the same bits."""
    for what in fits:
        errors = [float(error) for error in re.findall(rf"ERROR {what} (\S+)", out)]
        assert len(errors) == workers and max(errors) < 0.1, (what, errors)
        bits = re.findall(rf"BITS {what} (\S+)", out)
        assert len(set(bits)) == 1 or "dist_sync" not in what, what


def test_models_learn_and_all_workers_have_the_same_bits(cluster: Cluster) -> None:
    others = ("1bit/dist_sync/workers", "2bit/dist_async/servers", "fp16/dist_ssp/servers")
    run = cluster.run("-n", 2, "-s", 2, APART, SCRIPT, *SYNC, *others)
    check(run.out, 2, *SYNC, *others)


@pytest.mark.parametrize("memory", [[], [APART]], ids=["shared", "apart"])
def test_so_they_do_at_any_place_of_a_tree(cluster: Cluster, memory: List[str]) -> None:
    """Workers that share memory with an owner, that have a server between, or two."""
    topology = cluster.cwd / "topology"
    topology.write_text("rack1: local0 local1\nrack2: local2\nsite: rack1 rack2\n")
    flags = ["--workers-per-host", 2, "--topology", topology, *memory]
    fits = [what for what in SYNC if what.startswith(("1bit", "topk"))]
    check(cluster.run("-n", 5, "-s", 2, *flags, SCRIPT, *fits).out, 5, *fits)


def test_sums_of_2bit_are_those_of_mxnets_own(cluster: Cluster) -> None:
    """As gradient_compression-inl.h has it: ``residual += gradient``, then what is over the
    threshold is taken off and sent. Values are left as they are."""
    script = cluster.script(
        "import mxnet as mx, numpy as np\n"
        "kv = mx.kv.create('dist_sync')\n"
        "kv.set_gradient_compression({'type': '2bit', 'threshold': 0.5, 'min_size': 0})\n"
        "kv.init('w', mx.nd.zeros(300000))\n"
        "data = np.random.RandomState(1)\n"
        "residuals = np.zeros((kv.num_workers, 300000), 'f4')\n"
        "out = mx.nd.zeros(300000)\n"
        "for step in range(5):\n"
        "    gradients = data.standard_normal(residuals.shape).astype('f4')\n"
        "    kv.pushpull('w', mx.nd.array(gradients[kv.rank]), out=out)\n"
        "    residuals += gradients\n"
        "    sent = np.where(residuals >= 0.5, 0.5, np.where(residuals <= -0.5, -0.5, 0))\n"
        "    residuals -= sent.astype('f4')\n"
        "    print('SAME', np.array_equal(out.asnumpy(), sent.sum(axis=0)))\n"
    )
    assert cluster.run("-n", 3, "-s", 2, APART, script).out.count("SAME True") == 15


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ("compress({'type': ['fp16', 'bf16'][kv.rank]}); push()", "the same compression_params"),
        ("kv.rank and compress({'type': 'fp16'}); kv.barrier(); push()", "on all workers"),
    ],
)
def test_workers_that_disagree_end_the_job(cluster: Cluster, lines: str, text: str) -> None:
    script = cluster.script(
        "import mxnet as mx\n"
        "kv = mx.kv.create('dist_sync')\n"
        "compress = kv.set_gradient_compression\n"
        "kv.init('w', mx.nd.zeros(5000))\n"
        "def push():\n"
        "    out = mx.nd.zeros(5000)\n"
        "    kv.pushpull('w', mx.nd.ones(5000), out=out)\n"
        "    out.asnumpy()\n"
        f"{lines}\n"
    )
    run = cluster.run("-n", 2, APART, script, code=1)
    assert text in run.err and "worker 0" in run.err and "worker 1" in run.err


@pytest.mark.parametrize(
    ("flags", "size", "why"),
    [
        ([], 5000, "the job runs on one host, where tasks share memory"),
        ([APART], 4095, "none of the 1 keys has a floating dtype and 4096 or more elements"),
        ([APART], 5000, ""),
    ],
)
def test_compression_without_effect_is_said_once(
    cluster: Cluster, flags: List[str], size: int, why: str
) -> None:
    script = cluster.script(
        "import mxnet as mx\n"
        "for store in range(2):\n"
        "    kv = mx.kv.create('dist_sync')\n"
        "    kv.set_gradient_compression({'type': '2bit'})\n"
        f"    kv.init('w', mx.nd.zeros({size}))\n"
        f"    for step in range(3): kv.push('w', mx.nd.ones({size}))\n"
    )
    err = cluster.run("-n", 2, *flags, script).err
    assert err.count("has no effect") == bool(why)
    assert f"worker 0 | baryon: gradient compression (2bit) has no effect: {why}" in err or not why


def test_what_cannot_be_is_said_at_the_call(cluster: Cluster) -> None:
    script = cluster.script(
        "import mxnet as mx\n"
        "kv, late, apart = (mx.kv.create(t) for t in ('dist_sync', 'dist_sync', 'dist_async'))\n"
        "def wrong(kv, **params):\n"
        "    try:\n"
        "        kv.set_gradient_compression(params)\n"
        "    except Exception as error:\n"
        "        print('WRONG', error)\n"
        "wrong(kv, type='2bit', ratio=2, min_size=-1, answers='perhaps')\n"
        "wrong(apart, type='fp16', answers=True)\n"
        "kv.set_gradient_compression({'type': 'fp16'})\n"
        "kv.set_gradient_compression({'type': 'fp16', 'min_size': '4096'})\n"
        "wrong(kv, type='bf16')\n"
        "late.init('w', mx.nd.zeros(3))\n"
        "late.push('w', mx.nd.zeros(3))\n"
        "wrong(late, type='fp16')\n"
    )
    lines = [line for line in cluster.run("-n", 1, script).out.splitlines() if "WRONG" in line]
    assert len(lines) == 4
    for text in ("no option 'ratio'", "min_size is -1", "answers is 'perhaps'"):
        assert text in lines[0]
    assert "asynchronous stores" in lines[1]
    assert "is type=fp16, min_size=4096, answers=True; set it once" in lines[2]
    assert "something has been pushed" in lines[3]
