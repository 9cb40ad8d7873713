"""Whether all workers still have the same weights, where each updates its own.

With the optimizer on the servers weights cannot drift apart: every step brings the servers'. With
updates on the workers they do as soon as two workers apply the same sums in different ways: scaled
by another `step`, or not at all to what is stale there alone (`ignore_stale_grad`). So now and
then, at first often, all compare a digest of each weight.

A digest is of some thousand of a weight's elements, the same ones on all workers: their length, and
their projections on some random directions. Two weights are as far apart as their projections are,
on average; a comparison of bits would also find that a GPU of another kind rounds in another way.
What only a few elements of a large weight have may not be found.

An optimizer that adds noise of each worker's own is not at fault: SGLD is left alone, and others
by BARYON_COMPARE_WEIGHTS=0, on all workers.
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
_TOLERANCE = 1e-4  # of a weight's length: what rounding alone may do in a million steps
_HALF_TOLERANCE = 5e-2

Digests = Dict[str, List[float]]


def is_comparable(optimizer: Any) -> bool:
    """Whether all workers have the same weights after the same sums, and shall be asked."""
    is_wanted = os.environ.get("BARYON_COMPARE_WEIGHTS") != "0"
    return is_wanted and not isinstance(optimizer, mx.optimizer.SGLD)


class Drift:
    """``compare(digests)`` gives those of one worker for all, and this worker's, by rank.

    ``tell(text)`` gives what all workers have found; they then raise the same, together.
    """

    def __init__(
        self,
        compare: Callable[[Digests], Dict[int, Digests]],
        tell: Callable[[str], Iterable[str]],
    ) -> None:
        self._compare, self._tell = compare, tell
        self._steps = 0

    def step(self, weights: Callable[[], Dict[str, Any]]) -> None:
        """A step of all workers begins with these NDArrays; raises UsageError if they differ."""
        steps = self._steps
        self._steps += 1
        if steps & (steps - 1) if steps < _EVERY else steps % _EVERY:
            return
        floats = {
            name: weight
            for name, weight in weights().items()
            if weight.stype == "default" and np.dtype(weight.dtype).kind == "f"
        }
        # One after the other: all of them twice may be more than there is memory for.
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
                "(ignore_stale_grad); with update_on_kvstore=True the servers see to it. If "
                "they are to differ, as by noise of each worker's own, start the job by launch.py "
                "--env BARYON_COMPARE_WEIGHTS=0"
            )


def differences(all_digests: Dict[int, Digests], tolerances: Dict[str, float]) -> Iterator[str]:
    """In words, which worker's weights are not those of the first one."""
    first, *others = all_digests
    for name, tolerance in tolerances.items():
        for rank in others:
            if name not in all_digests[first] or name not in all_digests[rank]:
                continue
            one, two = np.array(all_digests[first][name]), np.array(all_digests[rank][name])
            length = max(one[0], two[0])
            with np.errstate(invalid="ignore", over="ignore"):  # of what has diverged
                distance = np.sqrt(np.mean((one[1:] - two[1:]) ** 2))
            if np.array_equal(one, two, equal_nan=True) or distance <= tolerance * length:
                continue
            yield f"{name} of worker {rank} is {distance / length:.2%} away from worker {first}'s"


def digest(array: np.ndarray) -> List[float]:
    """A sample's length (L2), and its projections on `_DIRECTIONS` directions of signs."""
    flat, random = array.reshape(-1), np.random.RandomState(0)
    if flat.size > _MAX_SAMPLE:
        flat = flat[random.randint(flat.size, size=_MAX_SAMPLE, dtype=np.int64)]
    sample = flat.astype(np.float64)
    projections = random.choice([-1.0, 1.0], (_DIRECTIONS, sample.size)) @ sample
    return [float(np.sqrt(sample @ sample)), *projections.tolist()]
