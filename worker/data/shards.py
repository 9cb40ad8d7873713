"""Which samples of a data set are this worker's. Pure, and the same arithmetic on every worker.

Workers do not communicate for it. Each computes the whole order of an epoch from the seed and the
epoch's number, and takes its own part. So all workers must pass the same arguments, and the NumPy
versions of all hosts must agree on `Generator.permutation`.
"""

import os
from typing import Mapping, Optional, Tuple

import numpy as np

from baryon.ps import UsageError

from ..advice import asked_for_part

__all__ = ["LAST", "part_of_job", "shard"]

LAST = ("pad", "drop", "join")


def shard(
    length: int,
    rank: int,
    num_workers: int,
    last: str = "pad",
    shuffle: bool = False,
    seed: int = 0,
    epoch: int = 0,
    batch_size: int = 1,
) -> np.ndarray:
    """The samples of worker ``rank`` in one epoch over ``length`` samples; int64, in order.

    The epoch's order is 0, 1, 2, ..., or a permutation that ``seed`` and ``epoch`` determine. It is
    dealt out in steps of ``num_workers * batch_size`` samples; in each step a worker takes the next
    ``batch_size``. So the k-th batches of all workers together are the k-th batch of one process
    with batches ``num_workers`` times as big. ``last`` says what happens to the samples that do not
    fill a step:

    - ``pad``: the step is filled up from the start of the order, more than once if need be. All
      parts are equally long, a multiple of ``batch_size``.
    - ``drop``: they are left out. All parts are equally long, a multiple of ``batch_size``, and
      empty if there are too few samples for one step.
    - ``join``: they are spread evenly. Every sample comes exactly once, and the lengths of the
      parts differ by at most one.

    Raises UsageError for arguments that make no sense.
    """
    _check(length, rank, num_workers, last, batch_size)
    if seed < 0 or epoch < 0:
        raise UsageError(f"seed and epoch count from 0 on, and are {seed} and {epoch}")
    order = np.arange(length, dtype=np.int64)
    if shuffle:
        order = np.random.default_rng([seed, epoch]).permutation(order)
    step = num_workers * batch_size
    full = length // step * step
    if last == "pad" and full < length:
        full += step
        order = np.resize(order, full)  # repeats it from the start
    dealt = order[:full].reshape(-1, num_workers, batch_size)[:, rank].ravel()
    if last != "join":
        return dealt
    return np.concatenate([dealt, np.array_split(order[full:], num_workers)[rank]])


def _check(length: int, rank: int, num_workers: int, last: str, batch_size: int) -> None:
    if last not in LAST:
        raise UsageError(f"last is one of {', '.join(LAST)}, not {last!r}")
    if length < 0:
        raise UsageError(f"a data set cannot have {length} samples")
    if batch_size < 1:
        raise UsageError(f"a batch needs at least one sample, not {batch_size}")
    if not 0 <= rank < num_workers:
        raise UsageError(f"ranks of {num_workers} workers are 0 to {num_workers - 1}, not {rank}")


def part_of_job(
    rank: Optional[int] = None,
    num_workers: Optional[int] = None,
    environ: Optional[Mapping[str, str]] = None,
) -> Tuple[int, int]:
    """``(rank, num_workers)``: as given, else this job's (from ``environ``), else 0 and 1.

    Raises UsageError if only one of them is given, and in a job whose environment does not say
    which worker this is, such as a job of MXNet's own launcher.
    """
    asked_for_part()
    if rank is not None and num_workers is not None:
        return rank, num_workers
    if rank is not None or num_workers is not None:
        raise UsageError("give both rank and num_workers, or neither to have those of the job")
    environ = os.environ if environ is None else environ
    if environ.get("DMLC_ROLE") != "worker":
        return 0, 1
    try:
        return int(environ["DMLC_WORKER_ID"]), int(environ["DMLC_NUM_WORKER"])
    except (KeyError, ValueError):
        raise UsageError(
            "DMLC_WORKER_ID or DMLC_NUM_WORKER is not set in this job, so this worker's part of "
            "the data is not known; give rank=kv.rank and num_workers=kv.num_workers"
        ) from None
