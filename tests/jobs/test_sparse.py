"""Row-sparse gradients and weights in real jobs: every case, and the numbers of other stores."""

from pathlib import Path
from typing import List, Sequence

import numpy as np
import pytest

from benchmarks import native
from tests.cluster import SCRIPTS, Cluster
from tests.jobs.test_training import losses, weights

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
    ["--optimizer", "sgd", "--lazy", "yes"],
    ["--optimizer", "sgd", "--lazy", "no"],
    ["--optimizer", "sgd", "--momentum", "0.9", "--lazy", "yes"],
    ["--optimizer", "sgd", "--momentum", "0.9", "--lazy", "no"],
    ["--optimizer", "adam", "--lazy", "yes"],
    ["--optimizer", "adam", "--lazy", "no"],
    ["--optimizer", "adagrad", "--wd", "0"],
    ["--optimizer", "ftrl"],
]


def train(
    cluster: Cluster, name: str, workers: int, *args: object, flags: Sequence[str] = ()
) -> Path:
    folder = cluster.cwd / name
    folder.mkdir()
    cluster.run("-n", workers, "-s", 2, *flags, TRAIN, folder, *args)
    return folder


@pytest.mark.parametrize(("workers", "flags"), SHAPES, ids=str)
def test_every_case(cluster: Cluster, workers: int, flags: List[str]) -> None:
    cluster.run_cases(CASES, workers, "-s", 2, *flags)


@pytest.mark.parametrize("optimizer", [OPTIMIZERS[2], OPTIMIZERS[5]], ids=" ".join)
@pytest.mark.parametrize("weight", ["dense", "row_sparse"])
def test_workers_train_like_one_with_all_of_the_batch(
    cluster: Cluster, weight: str, optimizer: List[str]
) -> None:
    """Of several slices, with several devices, through level-1 servers."""
    args = ["--weight", weight, "--rows", 70_000, *optimizer]
    one = train(cluster, "one", 1, *args, "--batch", 24)
    flags = ["--workers-per-host", "2"]
    four = train(cluster, "four", 4, *args, "--batch", 6, "--devices", 2, flags=flags)
    np.testing.assert_allclose(losses(four, 4), losses(one, 1), rtol=1e-5)
    for name, value in weights(one).items():
        np.testing.assert_allclose(weights(four)[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
        for rank in range(1, 4):
            assert np.array_equal(weights(four, rank)[name], weights(four)[name]), (rank, name)


def test_a_weights_storage_type_makes_no_difference_to_the_bits(cluster: Cluster) -> None:
    dense = weights(train(cluster, "dense", 2, "--weight", "dense"))
    sparse = weights(train(cluster, "sparse", 2, "--weight", "row_sparse"))
    for name, value in dense.items():
        assert np.array_equal(sparse[name], value), name


@pytest.mark.native
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=" ".join)
def test_same_weights_as_mxnets_own_store(cluster: Cluster, optimizer: List[str]) -> None:
    """With row_sparse weights: of dense ones and row_sparse gradients MXNet's own store hangs."""
    args = ["--weight", "row_sparse", *optimizer]
    ours = train(cluster, "ours", 2, *args)
    theirs = cluster.cwd / "theirs"
    theirs.mkdir()
    script = [str(TRAIN), str(theirs), *args]
    native.run(script, workers=2, servers=2, env={"OMP_NUM_THREADS": "1"}, grace_s=5.0)
    np.testing.assert_allclose(losses(ours, 2), losses(theirs, 2), rtol=1e-5)
    for name, value in weights(theirs).items():
        np.testing.assert_allclose(weights(ours)[name], value, rtol=0, atol=1e-5, err_msg=name)
