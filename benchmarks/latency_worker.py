"""The worker of `benchmarks.latency`: pushes and pulls one small key, again and again."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import mxnet as mx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.systems import report_line

WARM_UP = 100
SHAPE = (4,)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, required=True)
    repetitions = parser.parse_args().repetitions
    store = mx.kv.create("dist_sync")
    gradient, value = mx.nd.ones(SHAPE), mx.nd.zeros(SHAPE)
    store.init(0, value)
    times_s = []
    for _ in range(WARM_UP + repetitions):
        gradient[:] = 1  # MXNet's own store writes what it pulls over what was pushed
        gradient.wait_to_read()
        began_s = time.perf_counter()
        store.pushpull(0, gradient, out=value)
        value.wait_to_read()
        times_s.append(time.perf_counter() - began_s)
    if (value.asnumpy() != store.num_workers).any():
        raise RuntimeError(f"rank {store.rank}: not the sum of what all workers pushed")
    line = report_line(
        store=f"{type(store).__module__}.{type(store).__name__}",
        omp_num_threads=os.environ.get("OMP_NUM_THREADS"),
        rank=store.rank,
        round_trip_s=statistics.median(times_s[WARM_UP:]),
    )
    sys.stdout.write(line)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
