"""The PyTorch peer of `benchmarks.network`: gloo all-reduces as many bytes as the model has.

    TORCH_PYTHON benchmarks/allreduce_worker.py --sizes 9408,64,64 --repetitions 5

It needs torch and not MXNet. Gradients travel in buckets of 25 MB, as DistributedDataParallel's do.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import List

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.systems import report_line

BUCKET_NBYTES = 25 << 20
FP32_NBYTES = 4


def bucket_sizes(sizes: List[int]) -> List[int]:
    """Elements of each bucket: whole arrays, at most BUCKET_NBYTES unless one is bigger."""
    buckets = [0]
    for size in sizes:
        if buckets[-1] and FP32_NBYTES * (buckets[-1] + size) > BUCKET_NBYTES:
            buckets.append(0)
        buckets[-1] += size
    return buckets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", required=True, help="elements of each array, with commas")
    parser.add_argument("--repetitions", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, workers = dist.get_rank(), dist.get_world_size()
    sizes = [int(size) for size in options.sizes.split(",")]
    buckets = [torch.empty(size) for size in bucket_sizes(sizes)]
    times_s = []
    for _ in range(options.repetitions + 1):
        for bucket in buckets:
            bucket.fill_(rank + 1)
        dist.barrier()
        began_s = time.perf_counter()
        for work in [dist.all_reduce(bucket, async_op=True) for bucket in buckets]:
            work.wait()
        times_s.append(time.perf_counter() - began_s)
        if any(bool((bucket != workers * (workers + 1) / 2).any()) for bucket in buckets):
            raise RuntimeError(f"rank {rank}: not the sum of what {workers} workers gave")
    line = report_line(
        store="torch.distributed.gloo",
        omp_num_threads=os.environ.get("OMP_NUM_THREADS"),
        rank=rank,
        nbytes=FP32_NBYTES * sum(sizes),
        times_s=times_s[1:],  # the first round is the warm-up
    )
    sys.stdout.write(line)
    sys.stdout.flush()
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
