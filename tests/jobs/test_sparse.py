"""Row-sparse gradients and weights in real jobs: every case, and the numbers of other stores."""

from typing import List

import numpy as np
import pytest

from tests.cluster import SCRIPTS, Cluster
from tests.jobs.test_training import (
    assert_about_the_same,
    assert_same_bits,
    losses,
    train,
    train_natively,
    weights,
)

CASES = SCRIPTS / "sparse_cases.py"
TRAIN = SCRIPTS / "train_embedding.py"
SHAPES = [
    (2, []),
    (2, ["--no-shared-memory"]),
    (4, ["--workers-per-host", "2"]),
    (4, ["--workers-per-host", "2", "--no-shared-memory"]),
]
# The lazy ones change the rows of a gradient alone; some can do nothing else with one.
OPTIMIZERS = [
    ["--optimizer", "sgd", "--lazy", "no"],
    ["--optimizer", "sgd", "--momentum", "0.9", "--lazy", "yes"],
    ["--optimizer", "adam", "--lazy", "yes"],
    ["--optimizer", "adam", "--lazy", "no"],
    ["--optimizer", "adagrad", "--wd", "0"],
    ["--optimizer", "ftrl"],
]


@pytest.mark.parametrize(("workers", "flags"), SHAPES, ids=str)
def test_every_case(cluster: Cluster, workers: int, flags: List[str]) -> None:
    cluster.run_cases(CASES, workers, "-s", 2, *flags)


def test_workers_train_like_one_with_all_of_the_batch(cluster: Cluster) -> None:
    """Of several slices, with several devices, through level-1 servers."""
    runs = [
        ["--weight", weight, "--rows", 70_000, *optimizer]
        for weight in ("dense", "row_sparse")
        for optimizer in (OPTIMIZERS[1], OPTIMIZERS[3])
    ]
    ones = train(cluster, "one", 1, *([*run, "--batch", 24] for run in runs), script=TRAIN)
    several = ["--batch", 6, "--devices", 2]
    flags = ["--workers-per-host", "2"]
    fours = train(cluster, "four", 4, *([*r, *several] for r in runs), flags=flags, script=TRAIN)
    for one, four in zip(ones, fours):
        assert_same_bits(four, four, workers=4)
        np.testing.assert_allclose(losses(four, 4), losses(one, 1), rtol=1e-5)
        for name, value in weights(one).items():
            other = weights(four)[name]
            np.testing.assert_allclose(other, value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_weights_storage_type_makes_no_difference_to_the_bits(cluster: Cluster) -> None:
    runs = [["--weight", "dense"], ["--weight", "row_sparse"]]
    assert_same_bits(*train(cluster, "out", 2, *runs, script=TRAIN))


@pytest.mark.native
def test_same_weights_as_mxnets_own_store(cluster: Cluster) -> None:
    """With row_sparse weights: of dense ones and row_sparse gradients MXNet's own store hangs."""
    runs = [["--weight", "row_sparse", *optimizer] for optimizer in OPTIMIZERS]
    theirs = train_natively(cluster, *runs, script=TRAIN)
    for one, other in zip(train(cluster, "ours", 2, *runs, script=TRAIN), theirs):
        assert_about_the_same(one, other)
