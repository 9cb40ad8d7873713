"""What workers say to each other, case by case; see cases.py."""

import os
import threading
import time

import mxnet as mx
import numpy as np
from cases import raises, run_cases

kv = mx.kv.create("dist_sync")
ranks = range(kv.num_workers)


def case_places():
    places = kv.allgather((kv.host_rank, kv.local_rank, kv.num_local_workers))
    assert places == [(0, 0, 2), (0, 1, 2), (1, 0, 1)]
    assert kv.local_rank == int(os.environ["BARYON_LOCAL_RANK"])


def case_allgather():
    for repeat in range(3):
        values = kv.allgather({"rank": kv.rank, "at": (repeat, None, {b"x"})})
        assert values == [{"rank": rank, "at": (repeat, None, {b"x"})} for rank in ranks]
    arrays = kv.allgather(mx.nd.full((2,), kv.rank))
    assert [array.asnumpy().tolist() for array in arrays] == [[r, r] for r in ranks]


def case_large_values():
    largest = kv.allgather(np.full(2**20, kv.rank, "float64"))
    assert [array.size for array in largest] == [2**20 for _ in ranks]
    raises("larger arrays go through the store", kv.allgather, np.zeros(2**21))
    assert kv.allgather(kv.rank) == list(ranks)


def case_broadcast_object():
    for root in ranks:
        value = {"config": [root, 1.5]} if kv.rank == root else object()
        assert kv.broadcast_object(value, root=root) == {"config": [root, 1.5]}
    assert kv.broadcast_object(f"from {kv.rank}") == "from 0"


def case_allreduce():
    assert kv.allreduce(kv.rank + 1) == sum(ranks) + kv.num_workers
    assert kv.allreduce(kv.rank, op="mean") == sum(ranks) / kv.num_workers
    assert kv.allreduce({"a": [kv.rank], "b": (0.5,)}, "max") == {"a": [max(ranks)], "b": (0.5,)}
    out = kv.allreduce(mx.nd.full((2, 3), kv.rank, dtype="float64"))
    assert out.dtype == np.float64
    assert (out.asnumpy() == sum(ranks)).all()
    raises("same structure", kv.allreduce, [0] * kv.rank)
    random = np.random.RandomState(kv.rank).rand(1000)
    results = kv.allgather(kv.allreduce(random).tobytes())
    assert len(set(results)) == 1


def case_metric_over_all_samples():
    """Uneven shares; the last worker has none."""
    random = np.random.RandomState(7)
    shares = [(random.rand(n, 4), random.randint(0, 4, n)) for n in (50, 20, 0)]
    metric, whole = (mx.metric.create(["acc", "ce", "pcc"]) for _ in range(2))
    for rank, (pred, label) in enumerate(shares):
        for which in (metric, whole) if rank == kv.rank else (whole,):
            if len(label):
                which.update([mx.nd.array(label)], [mx.nd.array(pred)])
    assert kv.allreduce(metric) is metric
    np.testing.assert_allclose(metric.get()[1], whole.get()[1], rtol=1e-6)


def case_barrier():
    """Nobody passes before the last one comes."""
    for repeat in range(20):
        came = time.time()
        kv.barrier(f"number {repeat}")
        passed = time.time()
        assert min(kv.allgather(passed)) >= max(kv.allgather(came))
    kv.barrier()
    kv._barrier()


def case_stores_do_not_mix():
    """Each in a thread of its own, and in the other order on the next worker."""
    stores = [mx.kv.create("dist_sync") for _ in range(2)]
    got = {}

    def talk(number):
        got[number] = [stores[number].allgather((number, i, kv.rank)) for i in range(20)]

    threads = [threading.Thread(target=talk, args=(number,)) for number in (0, 1)]
    for thread in threads[:: 1 if kv.rank % 2 else -1]:
        thread.start()
    for thread in threads:
        thread.join()
    for number in (0, 1):
        assert got[number] == [[(number, i, rank) for rank in ranks] for i in range(20)]


run_cases(globals())
