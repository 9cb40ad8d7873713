"""The worker of `benchmarks.latency`: times the round trip of one small key, again and again."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import mxnet as mx
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.systems import report_line

KEY = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, required=True)
    parser.add_argument("--repetitions", type=int, required=True)
    parser.add_argument("--warm-up", type=int, required=True)
    options = parser.parse_args()

    store = mx.kv.create("dist_sync")
    gradient = mx.nd.empty((options.elements,))
    weight = mx.nd.zeros((options.elements,))
    store.init(KEY, weight)
    store._barrier()
    times_s = []
    for _ in range(options.warm_up + options.repetitions):
        gradient[:] = store.rank + 1  # each time: MXNet's own store pulls into it as well
        gradient.wait_to_read()
        began_s = time.perf_counter()
        store.pushpull(KEY, gradient, out=weight)
        weight.wait_to_read()
        times_s.append(time.perf_counter() - began_s)
    total = store.num_workers * (store.num_workers + 1) // 2
    if not np.array_equal(weight.asnumpy(), np.full(options.elements, total)):
        raise RuntimeError(f"rank {store.rank}: {weight.asnumpy()} is not the sum, {total}")
    line = report_line(
        store=f"{type(store).__module__}.{type(store).__name__}",
        omp_num_threads=os.environ.get("OMP_NUM_THREADS"),
        times_s=times_s[options.warm_up :],
    )
    sys.stdout.write(line)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
