"""How far apart workers' weights are, from digests of them alone."""

from typing import Dict, List

import mxnet as mx
import numpy as np
import pytest

from baryon.ps import UsageError
from baryon.worker.mxnet.drift import Digests, Drift, differences, digest, is_comparable

WEIGHT = np.random.RandomState(1).standard_normal(300_000).astype(np.float32)


@pytest.mark.parametrize("size", [1, 2, 9, 300_000])
@pytest.mark.parametrize("apart", [0.01, 0.3])
def test_distances_are_found(size: int, apart: float) -> None:
    """Also of noise that changes neither sum nor length."""
    one = WEIGHT[:size]
    noise = np.random.RandomState(2).standard_normal(size)
    two = one + apart * np.linalg.norm(one) / np.linalg.norm(noise) * noise
    (found,) = differences({0: {"w": digest(one)}, 3: {"w": digest(two)}}, {"w": 1e-4})
    percent = float(found.split(" is ")[1].split("%")[0])
    assert found == f"w of worker 3 is {percent:.2f}% away from worker 0's"
    length = max(1, np.linalg.norm(two) / np.linalg.norm(one))
    assert apart / 3 < percent / 100 * length < apart * 3


def test_a_digest_is_as_small_whatever_the_weight_is() -> None:
    one, two = digest(WEIGHT), digest(WEIGHT[:9])
    assert len(one) == len(two) < 10


@pytest.mark.parametrize(
    "other", [WEIGHT, WEIGHT * (1 + 1e-6), np.nextafter(WEIGHT, np.float32(9))]
)
def test_rounding_is_no_drift(other: np.ndarray) -> None:
    both = {0: {"w": digest(WEIGHT)}, 1: {"w": digest(other.astype(np.float32))}}
    assert not list(differences(both, {"w": 1e-4}))


def test_what_only_one_worker_has_is_not_compared_and_nan_is_nan() -> None:
    nan, two = np.full(3, np.nan), np.ones(3)
    given = {0: {"a": digest(two), "n": digest(nan)}, 1: {"b": digest(two), "n": digest(nan)}}
    assert not list(differences(given, dict.fromkeys("abn", 1e-4)))
    given[1]["n"] = digest(two)
    assert len(list(differences(given, dict.fromkeys("abn", 1e-4)))) == 1


def test_looks_get_rarer_and_no_integer_is_compared() -> None:
    looks: List[Digests] = []
    steps = []

    def compare(own: Digests) -> Dict[int, Digests]:
        looks.append(own)
        return {0: own, 1: own if len(looks) < 16 else {"w": digest(np.ones(3))}}

    weights = {"w": mx.nd.zeros(3), "i": mx.nd.zeros(3, dtype="int32")}
    drift = Drift(compare, lambda text: ["", text])
    with pytest.raises(UsageError, match=r"after 5120 steps.*: w of worker 1 is [\d.]+% away"):
        for step in range(10_000):
            drift.step(lambda: weights)
            steps += [step] * (len(looks) - len(steps))
    assert steps == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3072, 4096]
    assert {name for look in looks for name in look} == {"w"}


def test_noise_of_each_worker_s_own_is_no_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_comparable(mx.optimizer.SGD())
    assert is_comparable(None)
    assert not is_comparable(mx.optimizer.SGLD())
    monkeypatch.setenv("BARYON_COMPARE_WEIGHTS", "0")
    assert not is_comparable(mx.optimizer.SGD())
