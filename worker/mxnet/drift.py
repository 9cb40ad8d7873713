"""Whether all workers still have the same weights, where each updates its own.

With the optimizer on the servers weights cannot drift apart: every step pulls the servers' values.
With updates on the workers they drift as soon as two workers apply the same sums in different ways,
for example with another batch size in `step`, or with a gradient that is stale on one of them only
(`ignore_stale_grad`). So now and then, at first often, all workers compare a digest of each weight.

A digest samples some thousand elements of a weight, the same ones on all workers. It holds their
length, and their projections on a few random directions. The distance of two weights is, on
average, that of their projections. (A comparison of bits would also report that a GPU of another
kind rounds differently.) A difference in only a few elements of a large weight may be missed.

An optimizer may add each worker's own noise on purpose. SGLD does, and is not compared; for others
set BARYON_COMPARE_WEIGHTS=0 on all workers.
"""

import os
from typing import Any, Callable, Dict, Iterable, Iterator, List

import mxnet as mx
import numpy as np

from baryon.ps import UsageError

__all__ = ["Drift", "digest", "is_comparable"]

_EVERY = 1024  # steps; and before that after 0, 1, 2, 4, ... steps
_DIRECTIONS = 8
_MAX_SAMPLE = 1 << 13  # elements of a weight
_TOLERANCE = 1e-4  # of a weight's length: more than rounding alone does in a million steps
_HALF_TOLERANCE = 5e-2

Digests = Dict[str, List[float]]


def is_comparable(optimizer: Any) -> bool:
    """Whether all workers should have the same weights after the same sums."""
    is_wanted = os.environ.get("BARYON_COMPARE_WEIGHTS") != "0"
    return is_wanted and not isinstance(optimizer, mx.optimizer.SGLD)


class Drift:
    """``compare(digests)`` returns one worker's digests and this worker's, by rank.

    ``tell(text)`` returns the findings of all workers, so that all raise the same error.
    """

    def __init__(
        self,
        compare: Callable[[Digests], Dict[int, Digests]],
        tell: Callable[[str], Iterable[str]],
    ) -> None:
        self._compare, self._tell = compare, tell
        self._steps = 0

    def step(self, weights: Callable[[], Dict[str, Any]]) -> None:
        """All workers begin a step with these NDArrays; raises UsageError if they differ."""
        steps = self._steps
        self._steps += 1
        if steps & (steps - 1) if steps < _EVERY else steps % _EVERY:
            return
        floats = {
            name: weight
            for name, weight in weights().items()
            if weight.stype == "default" and np.dtype(weight.dtype).kind == "f"
        }
        # One after the other: there may not be enough memory for a copy of all.
        own = {name: digest(weight.asnumpy()) for name, weight in floats.items()}
        tolerances = {
            name: _HALF_TOLERANCE if np.dtype(weight.dtype).itemsize == 2 else _TOLERANCE
            for name, weight in floats.items()
        }
        own_found = list(differences(self._compare(own), tolerances))
        more = f", and {len(own_found) - 1} more" if len(own_found) > 1 else ""
        found = [text for text in self._tell(own_found[0] + more if own_found else "") if text]
        if found:
            raise UsageError(
                f"after {steps} steps, workers no longer have the same weights: {found[0]}. "
                "With updates on the workers, all must start from the same values, give step() the "
                "same batch size, and have fresh gradients of the same parameters "
                "(ignore_stale_grad). With update_on_kvstore=True the servers keep weights equal. "
                "If weights are meant to differ, for example by each worker's own noise, start the "
                "job with launch.py --env BARYON_COMPARE_WEIGHTS=0"
            )


def differences(all_digests: Dict[int, Digests], tolerances: Dict[str, float]) -> Iterator[str]:
    """A text for each weight that differs from the first worker's."""
    first, *others = all_digests
    for name, tolerance in tolerances.items():
        for rank in others:
            if name not in all_digests[first] or name not in all_digests[rank]:
                continue
            one, two = np.array(all_digests[first][name]), np.array(all_digests[rank][name])
            length = max(one[0], two[0])
            with np.errstate(invalid="ignore", over="ignore"):  # training may have diverged
                distance = np.sqrt(np.mean((one[1:] - two[1:]) ** 2))
            if np.array_equal(one, two, equal_nan=True) or distance <= tolerance * length:
                continue
            yield f"{name} of worker {rank} is {distance / length:.2%} away from worker {first}'s"


def digest(array: np.ndarray) -> List[float]:
    """A sample's length (L2), and its projections on `_DIRECTIONS` random directions."""
    flat, random = array.reshape(-1), np.random.RandomState(0)
    if flat.size > _MAX_SAMPLE:
        flat = flat[random.randint(flat.size, size=_MAX_SAMPLE, dtype=np.int64)]
    sample = flat.astype(np.float64)
    projections = random.choice([-1.0, 1.0], (_DIRECTIONS, sample.size)) @ sample
    return [float(np.sqrt(sample @ sample)), *projections.tolist()]
