"""The worker of `benchmarks.pushpull` for gloo: all-reduces the same arrays. Needs PyTorch only.

The arrays are views of buckets of 25 MB, and each bucket is one asynchronous all-reduce: what
DistributedDataParallel does with `gradient_as_bucket_view=True`, and gloo's fastest way. Tried
with 2 workers on 2 busy cores: an all-reduce for each array took 3 times as long on ResNet-152
and 16 times on MobileNet 0.25; arrays copied into buckets and back (DistributedDataParallel's
default) 1.5 times; buckets of 1 MB twice as long on ResNet-152 and as long on DenseNet-201. Two
threads a process were no faster than the one that all systems have here (OMP_NUM_THREADS).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import List, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.distributed as dist

from benchmarks.systems import report_line

PERIOD = 251  # as in pushpull_worker.py: sums are exact, and a misplaced slice does not look right
BUCKET_NBYTES = 25 * 2**20  # DistributedDataParallel's default
FP32_NBYTES = 4


class Exchange:
    """Arrays of `sizes` elements, summed over all processes in place."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = sizes
        self._pattern = (torch.arange(max(sizes) + PERIOD) % PERIOD).to(torch.float32)
        self._buckets: List[torch.Tensor] = []
        self._arrays: List[torch.Tensor] = []
        bucket: List[int] = []
        # The last layers' gradients are ready first: buckets are filled from the end, as DDP does.
        for number, size in enumerate(reversed(sizes), 1):
            bucket.append(size)
            if number == len(sizes) or FP32_NBYTES * sum(bucket) >= BUCKET_NBYTES:
                self._buckets.append(torch.zeros(sum(bucket)))
                self._arrays += self._buckets[-1].split(bucket)
                bucket = []
        self._arrays.reverse()

    def fill(self, round_number: int) -> None:
        for key, array in enumerate(self._arrays):
            array.copy_(self._values(key, (dist.get_rank() + 1) * round_number))

    def all_reduce(self) -> None:
        for work in [dist.all_reduce(bucket, async_op=True) for bucket in self._buckets]:
            work.wait()

    def check(self, round_number: int) -> None:
        """Raise RuntimeError unless every array is the sum over all processes."""
        workers = dist.get_world_size()
        factor = round_number * workers * (workers + 1) // 2
        for key, array in enumerate(self._arrays):
            if not torch.equal(array, self._values(key, factor)):
                raise RuntimeError(f"rank {dist.get_rank()} in round {round_number}: key {key}")

    def _values(self, key: int, factor: int) -> torch.Tensor:
        first = key % PERIOD
        return self._pattern[first : first + self._sizes[key]] * factor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sizes", type=Path, required=True, help="JSON: the elements of each array"
    )
    parser.add_argument("--repetitions", type=int, required=True)
    options = parser.parse_args()

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    dist.init_process_group("gloo")
    sizes = json.loads(options.sizes.read_text())
    exchange = Exchange(sizes)
    times_s = []
    for round_number in range(1, options.repetitions + 2):
        exchange.fill(round_number)
        dist.barrier()
        began_s = time.perf_counter()
        exchange.all_reduce()
        times_s.append(time.perf_counter() - began_s)
        exchange.check(round_number)
    line = report_line(
        store="torch.distributed.gloo",
        omp_num_threads=os.environ.get("OMP_NUM_THREADS"),
        rank=dist.get_rank(),
        arrays=len(sizes),
        nbytes=FP32_NBYTES * sum(sizes),
        times_s=times_s[1:],  # the first round is the warm-up
    )
    sys.stdout.write(line)
    sys.stdout.flush()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
