"""The worker of `benchmarks.pushpull`: times the push and pull of all arrays of a model.

It knows nothing of who serves it: the same file runs on MXNet's own store and on Baryon's.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any, List, Tuple

import mxnet as mx
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.models import FP32_NBYTES, Array, trainable_arrays
from benchmarks.systems import report_line

# Values repeat after a prime number of elements, so an array or a slice of one that arrives in
# another's place does not look right. Sums stay below 2**24 and are thus exact in fp32.
PERIOD = 251


class Exchange:
    """The arrays of one model, pushed and pulled through one store."""

    def __init__(self, store: Any, arrays: List[Array]) -> None:
        self._store = store
        self._arrays = arrays
        self._keys = range(len(arrays))
        self.gradients = [mx.nd.zeros(array.shape) for array in arrays]
        self.weights = [mx.nd.zeros(array.shape) for array in arrays]
        longest = max(array.size for array in arrays)
        self._pattern = (np.arange(longest + PERIOD) % PERIOD).astype(np.float32)
        store.init(list(self._keys), self.weights)
        mx.nd.waitall()

    def fill(self, round_number: int) -> None:
        for key in self._keys:
            self.gradients[key][:] = self._values(key, (self._store.rank + 1) * round_number)
        mx.nd.waitall()

    def push_and_pull(self) -> None:
        """As `Trainer.step` does; nothing is waited for."""
        for key in self._keys:
            self._store.pushpull(key, self.gradients[key], out=self.weights[key], priority=-key)

    def check(self, round_number: int) -> None:
        """Wait, and raise RuntimeError unless every array that was pulled is the sum over all."""
        workers = self._store.num_workers
        factor = round_number * workers * (workers + 1) // 2
        for key in self._keys:
            if not np.array_equal(self.weights[key].asnumpy(), self._values(key, factor)):
                raise RuntimeError(
                    f"rank {self._store.rank} in round {round_number}: key {key} "
                    f"({self._arrays[key].name}) is not the sum of what {workers} workers pushed"
                )

    def _values(self, key: int, factor: int) -> Any:
        first, array = key % PERIOD, self._arrays[key]
        return (self._pattern[first : first + array.size] * factor).reshape(array.shape)


def parse_arguments() -> Tuple[str, int]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--repetitions", type=int, required=True)
    options = parser.parse_args()
    return options.model, options.repetitions


def main() -> None:
    model, repetitions = parse_arguments()
    store = mx.kv.create("dist_sync")
    arrays = trainable_arrays(model)
    exchange = Exchange(store, arrays)
    times_s = []
    for round_number in range(1, repetitions + 2):
        exchange.fill(round_number)
        store._barrier()
        began_s = time.perf_counter()
        exchange.push_and_pull()
        mx.nd.waitall()
        times_s.append(time.perf_counter() - began_s)
        exchange.check(round_number)
    line = report_line(
        store=f"{type(store).__module__}.{type(store).__name__}",
        omp_num_threads=os.environ.get("OMP_NUM_THREADS"),
        rank=store.rank,
        arrays=len(arrays),
        nbytes=FP32_NBYTES * sum(array.size for array in arrays),
        times_s=times_s[1:],  # the first round is the warm-up
    )
    sys.stdout.write(line)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
