"""Whether all workers still have the same weights, where each updates its own.

With the optimizer on the servers weights cannot drift apart: every step brings the servers'. With
updates on the workers they do as soon as two workers apply the same sums in different ways: scaled
by another `step`, or not at all to what is stale there alone (`ignore_stale_grad`). So now and
then, at first often, all compare a digest of each weight.

A digest is the weight's length and its projections on some random directions, which are the same on
all workers. Two weights are as far apart as their projections are, on average; a comparison of bits
would also find that a GPU of another kind rounds in another way.
"""

from typing import Any, Callable, Dict, Iterator, List

import numpy as np

from baryon.ps import UsageError

__all__ = ["Drift", "digest"]

_EVERY = 1024  # steps; and before that after 0, 1, 2, 4, ... steps
_DIRECTIONS = 8
_CHUNK = 1 << 18  # elements
_TOLERANCE = 1e-4  # of a weight's length: what rounding alone may do in a million steps
_HALF_TOLERANCE = 5e-2

Digests = Dict[str, List[float]]


class Drift:
    """``compare(digests)`` gives those of all workers, by rank."""

    def __init__(self, compare: Callable[[Digests], Dict[int, Digests]]) -> None:
        self._compare = compare
        self._steps = 0

    def step(self, weights: Callable[[], Dict[str, Any]]) -> None:
        """A step of all workers begins with these NDArrays; raises UsageError if they differ."""
        steps = self._steps
        self._steps += 1
        if steps & (steps - 1) if steps < _EVERY else steps % _EVERY:
            return
        dense = {n: w for n, w in weights().items() if w.stype == "default"}
        arrays = {name: weight.asnumpy() for name, weight in dense.items()}
        floats = {name: array for name, array in arrays.items() if array.dtype.kind == "f"}
        all_digests = self._compare({name: digest(array) for name, array in floats.items()})
        tolerances = {
            name: _HALF_TOLERANCE if array.itemsize == 2 else _TOLERANCE
            for name, array in floats.items()
        }
        found = list(differences(all_digests, tolerances))
        if found:
            raise UsageError(
                f"after {steps} steps, workers no longer have the same weights: {found[0]}"
                f"{f', and {len(found) - 1} more' if len(found) > 1 else ''}. With updates on the "
                "workers, all must start from the same values, give step() the same batch size, "
                "and have fresh gradients of the same parameters (ignore_stale_grad); with "
                "update_on_kvstore=True the servers see to it"
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
    """The array's length (L2), and its projections on `_DIRECTIONS` directions of signs."""
    flat, random = array.reshape(-1), np.random.RandomState(0)
    squares, projections = 0.0, np.zeros(_DIRECTIONS)
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK].astype(np.float64)
        bits = np.frombuffer(random.bytes(_DIRECTIONS * -(-part.size // 8)), np.uint8)
        signs = np.unpackbits(bits).reshape(_DIRECTIONS, -1)[:, : part.size]
        squares += float(part @ part)
        projections += 2 * (signs @ part) - part.sum()
    return [float(np.sqrt(squares)), *projections.tolist()]
