"""Training through the servers gives one machine's numbers, and the same ones everywhere."""

import sys
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

import numpy as np
import pytest

from benchmarks import native
from benchmarks.processes import Processes
from tests.cluster import SCRIPTS, Cluster
from tests.waiting import LIMIT_S

TRAIN = SCRIPTS / "train_net.py"


def losses(folder: Path, workers: int) -> np.ndarray:
    """Per step, the loss summed over all samples of all workers."""
    return np.sum([np.load(folder / f"losses-{rank}.npy") for rank in range(workers)], axis=0)


def weights(folder: Path, rank: int = 0, device: int = 0) -> Dict[str, np.ndarray]:
    return dict(np.load(folder / f"weights-{rank}-{device}.npz"))


def train(
    cluster: Cluster,
    name: str,
    workers: int,
    *runs: Sequence[object],
    flags: Sequence[object] = (),
    script: Path = TRAIN,
) -> List[Path]:
    """Where each of ``runs`` (arguments of the script), all in one job, has left its results."""
    folders, words = _folders_and_words(cluster, name, runs)
    cluster.run("-n", workers, "-s", 2, *flags, script, *words)
    return folders


def train_natively(cluster: Cluster, *runs: Sequence[object], script: Path = TRAIN) -> List[Path]:
    """The same with two workers on MXNet's own store, each run as a job of its own."""
    folders, words = _folders_and_words(cluster, "theirs", runs)
    module = [sys.executable, "-m", "tests.native_roles", "--workers", "2", "--servers", "2"]
    environment = native.clean_environment({"OMP_NUM_THREADS": "1"})
    with Processes() as processes:
        child = processes.start([*module, str(script), *words], environment)
        processes.wait([child], LIMIT_S, grace_s=0.0, is_done=lambda child: False)
        assert child.exit_code() == 0, child.stderr
    return folders


def _folders_and_words(
    cluster: Cluster, name: str, runs: Sequence[Sequence[object]]
) -> Tuple[List[Path], List[str]]:
    """Where each run leaves its results, and the arguments of a script for all of them."""
    folders = [cluster.cwd / f"{name}-{number}" for number in range(len(runs))]
    words: List[object] = []
    for folder, args in zip(folders, runs):
        folder.mkdir()
        words += ["+"] * bool(words) + [folder, *args]
    return folders, [str(word) for word in words]


def assert_same_bits(folder: Path, other: Path, workers: int = 1, devices: int = 1) -> None:
    """The weights of the first device of worker 0, and those of all in ``other``."""
    for name, value in weights(folder).items():
        for rank in range(workers):
            for device in range(devices):
                assert np.array_equal(weights(other, rank, device)[name], value), (rank, name)


MODES = [["--update-on-kvstore", mode] for mode in ("yes", "no")]


def test_four_workers_train_like_one_with_four_times_the_batch(cluster: Cluster) -> None:
    ones = train(cluster, "one", 1, *([*mode, "--batch", 32] for mode in MODES))
    fours = train(cluster, "four", 4, *([*mode, "--batch", 8] for mode in MODES))
    for one, four in zip(ones, fours):
        np.testing.assert_allclose(losses(four, 4), losses(one, 1), rtol=1e-5)
        for name, value in weights(one).items():
            other = weights(four)[name]
            np.testing.assert_allclose(other, value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_all_workers_and_devices_end_with_the_same_bits(cluster: Cluster) -> None:
    for folder in train(cluster, "out", 3, *([*mode, "--devices", 2] for mode in MODES)):
        assert_same_bits(folder, folder, workers=3, devices=2)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What three workers make of it on one host."""
    (folder,) = train(Cluster(tmp_path_factory.mktemp("here")), "here", 3, ["--optimizer", "adam"])
    return folder


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--no-shared-memory"],
        ["--no-shared-memory", "--no-encryption"],
        ["--workers-per-host", "2"],
        ["--workers-per-host", "2", "--no-encryption"],
    ],
    ids=" ".join,
)
def test_the_way_makes_no_difference_to_the_bits(
    cluster: Cluster, here: Path, flags: List[str]
) -> None:
    """The sum is taken in rank order, whoever comes first. Nor does a level-1 server on each of two
    hosts make any: with three workers, the order of the sum is the same one."""
    (there,) = train(cluster, "there", 3, ["--optimizer", "adam"], flags=flags)
    assert_same_bits(here, there)


def test_racks_and_sites_are_levels_by_configuration_alone(cluster: Cluster) -> None:
    """Near hosts are summed first, so the last bits may differ from a sum in the workers' order."""
    topology = cluster.cwd / "topology"
    topology.write_text("rack1: local0 local1\nrack2: local2\nsite: rack1 rack2\n")
    flags = ["--workers-per-host", "2", "--topology", str(topology)]
    (here,) = train(cluster, "here", 5, [])
    (shared,) = train(cluster, "shared", 5, [], flags=flags)
    (apart,) = train(cluster, "apart", 5, [], flags=[*flags, "--no-shared-memory"])
    for there in (shared, apart):
        assert_same_bits(there, there, workers=5)
        for name, value in weights(here).items():
            other = weights(there)[name]
            np.testing.assert_allclose(other, value, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.native
def test_same_weights_as_mxnets_own_store(cluster: Cluster) -> None:
    optimizers = [["--optimizer", name] for name in ("sgd", "adam")]
    theirs = train_natively(cluster, *optimizers)
    for one, other in zip(train(cluster, "ours", 2, *optimizers), theirs):
        assert_about_the_same(one, other)


def assert_about_the_same(ours: Path, theirs: Path) -> None:
    np.testing.assert_allclose(losses(ours, 2), losses(theirs, 2), rtol=1e-5)
    for name, value in weights(theirs).items():
        np.testing.assert_allclose(weights(ours)[name], value, rtol=0, atol=1e-5, err_msg=name)
