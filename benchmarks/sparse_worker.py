"""The worker of `benchmarks.sparse`: pushes some rows of a table and pulls others."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import mxnet as mx
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.systems import report_line

SHAPE = (1_000_000, 64)
WARM_UP = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--repetitions", type=int, required=True)
    options = parser.parse_args()
    store = mx.kv.create("dist_sync")
    store.set_optimizer(mx.optimizer.SGD(learning_rate=1.0))
    store._barrier()
    # MXNet's own store ends if there is a row that the value has not.
    store.init("table", mx.nd.ones(SHAPE).tostype("row_sparse"))
    pulled = mx.nd.sparse.zeros("row_sparse", SHAPE)
    values = np.ones((options.rows, SHAPE[1]), np.float32)
    random = np.random.RandomState(1)  # of all workers: each pushes and pulls the same rows
    times_s = []
    for _ in range(WARM_UP + options.repetitions):
        ids = np.sort(random.choice(SHAPE[0], options.rows, replace=False))
        gradient = mx.nd.sparse.row_sparse_array((values, ids), shape=SHAPE)
        row_ids = mx.nd.array(ids, dtype="int64")
        mx.nd.waitall()
        began_s = time.perf_counter()
        store.push("table", gradient)
        store.row_sparse_pull("table", out=pulled, row_ids=row_ids)
        pulled.wait_to_read()
        times_s.append(time.perf_counter() - began_s)
    # Every row has been pushed once or, by chance, a few times, by all workers.
    found = pulled.data.asnumpy()
    if found.shape[0] != options.rows or (found > 1 - store.num_workers).any():
        raise RuntimeError(f"rank {store.rank}: not the rows that all workers have pushed")
    line = report_line(
        store=f"{type(store).__module__}.{type(store).__name__}",
        omp_num_threads=os.environ.get("OMP_NUM_THREADS"),
        rank=store.rank,
        round_s=statistics.median(times_s[WARM_UP:]),
    )
    sys.stdout.write(line)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
