"""Training through the servers gives one machine's numbers, and the same ones everywhere."""

from pathlib import Path
from typing import Dict, List, Sequence

import numpy as np
import pytest

from benchmarks import native
from tests.cluster import SCRIPTS, Cluster

TRAIN = SCRIPTS / "train_net.py"


def losses(folder: Path, workers: int) -> np.ndarray:
    """Per step, the loss summed over all samples of all workers."""
    return np.sum([np.load(folder / f"losses-{rank}.npy") for rank in range(workers)], axis=0)


def weights(folder: Path, rank: int = 0, device: int = 0) -> Dict[str, np.ndarray]:
    return dict(np.load(folder / f"weights-{rank}-{device}.npz"))


def train(
    cluster: Cluster, name: str, workers: int, batch: int, *args: object, flags: Sequence[str] = ()
) -> Path:
    folder = cluster.cwd / name
    folder.mkdir()
    script: List[object] = [TRAIN, folder, "--batch", batch]
    cluster.run("-n", workers, "-s", 2, *flags, *script, *args)
    return folder


@pytest.mark.parametrize("mode", ["yes", "no"])
def test_four_workers_train_like_one_with_four_times_the_batch(cluster: Cluster, mode: str) -> None:
    one = train(cluster, "one", 1, 32, "--update-on-kvstore", mode)
    four = train(cluster, "four", 4, 8, "--update-on-kvstore", mode)
    np.testing.assert_allclose(losses(four, 4), losses(one, 1), rtol=1e-5)
    for name, value in weights(one).items():
        np.testing.assert_allclose(weights(four)[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("mode", ["yes", "no"])
def test_all_workers_and_devices_end_with_the_same_bits(cluster: Cluster, mode: str) -> None:
    folder = train(cluster, "out", 3, 8, "--update-on-kvstore", mode, "--devices", 2)
    first = weights(folder)
    for rank in range(3):
        for device in range(2):
            for name, value in weights(folder, rank, device).items():
                assert np.array_equal(value, first[name]), (rank, device, name)


def test_a_run_repeats_bit_for_bit(cluster: Cluster) -> None:
    """The sum is taken in rank order, whoever comes first."""
    first = weights(train(cluster, "first", 3, 8, "--optimizer", "adam"))
    second = weights(train(cluster, "second", 3, 8, "--optimizer", "adam"))
    for name, value in first.items():
        assert np.array_equal(second[name], value), name


@pytest.mark.parametrize(
    "flags",
    [
        ["--no-shared-memory"],
        ["--no-shared-memory", "--no-encryption"],
        ["--no-encryption"],
        ["--workers-per-host", "2"],
        ["--workers-per-host", "2", "--no-encryption"],
    ],
    ids=" ".join,
)
def test_the_way_makes_no_difference_to_the_bits(cluster: Cluster, flags: List[str]) -> None:
    """Nor does a level-1 server on each of two hosts: with three workers, the order of the sum is
    the same one."""
    here = weights(train(cluster, "here", 3, 8, "--optimizer", "adam"))
    there = weights(train(cluster, "there", 3, 8, "--optimizer", "adam", flags=flags))
    for name, value in here.items():
        assert np.array_equal(there[name], value), name


@pytest.mark.parametrize("memory", [[], ["--no-shared-memory"]], ids=["shared", "apart"])
def test_racks_and_sites_are_levels_by_configuration_alone(
    cluster: Cluster, memory: List[str]
) -> None:
    """Near hosts are summed first, so the last bits may differ from a sum in the workers' order."""
    topology = cluster.cwd / "topology"
    topology.write_text("rack1: local0 local1\nrack2: local2\nsite: rack1 rack2\n")
    flags = ["--workers-per-host", "2", "--topology", str(topology), *memory]
    here = weights(train(cluster, "here", 5, 8))
    there = train(cluster, "there", 5, 8, flags=flags)
    for rank in range(5):
        for name, value in here.items():
            other = weights(there, rank)[name]
            np.testing.assert_allclose(other, value, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.native
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_same_weights_as_mxnets_own_store(cluster: Cluster, optimizer: str) -> None:
    ours = train(cluster, "ours", 2, 16, "--optimizer", optimizer)
    theirs = cluster.cwd / "theirs"
    theirs.mkdir()
    script = [str(TRAIN), str(theirs), "--batch", "16", "--optimizer", optimizer]
    native.run(script, workers=2, servers=2, env={"OMP_NUM_THREADS": "1"}, grace_s=5.0)
    np.testing.assert_allclose(losses(ours, 2), losses(theirs, 2), rtol=1e-5)
    for name, value in weights(theirs).items():
        np.testing.assert_allclose(weights(ours)[name], value, rtol=0, atol=1e-5, err_msg=name)
