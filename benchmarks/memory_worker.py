"""The worker of `benchmarks.memory`: exchanges all arrays of a model, its own memory filled before.

Nothing of its own is allocated after `first_key_at_s`, so what a process has more from then on is
the store's.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import mxnet as mx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.models import FP32_NBYTES, trainable_arrays
from benchmarks.systems import report_line

QUIET_S = 1.0  # for a look at all processes: before the first key, and after the last round


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--repetitions", type=int, required=True)
    options = parser.parse_args()

    store = mx.kv.create("dist_sync")
    store.set_optimizer(mx.optimizer.create("sgd", learning_rate=0.01, momentum=0.9))
    arrays = trainable_arrays(options.model)
    gradients = [mx.nd.ones(array.shape) for array in arrays]
    weights = [mx.nd.ones(array.shape) for array in arrays]
    mx.nd.waitall()
    store._barrier()
    time.sleep(QUIET_S)
    first_key_at_s = time.time()
    store.init(list(range(len(arrays))), weights)
    for _ in range(options.repetitions):
        for gradient in gradients:
            gradient[:] = 1
        for key, (gradient, weight) in enumerate(zip(gradients, weights)):
            store.pushpull(key, gradient, out=weight, priority=-key)
        mx.nd.waitall()
    time.sleep(QUIET_S)
    line = report_line(
        store=f"{type(store).__module__}.{type(store).__name__}",
        omp_num_threads=os.environ.get("OMP_NUM_THREADS"),
        pid=os.getpid(),
        nbytes=FP32_NBYTES * sum(array.size for array in arrays),
        first_key_at_s=first_key_at_s,
        ended_at_s=time.time(),
    )
    sys.stdout.write(line)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
