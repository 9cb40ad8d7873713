"""MXNet's own loaders with a worker's part of the data."""

import itertools
from pathlib import Path
from typing import Any, Callable, Iterable, List

import mxnet as mx
import numpy as np
import pytest

from baryon.ps import UsageError
from baryon.worker.data import ShardIter, ShardSampler, image_record_iter, joining

from ..images import PNG

WriteRecords = Callable[[List[bytes]], Path]


class Store:
    """What `joining` needs of a store, and what was done with it."""

    def __init__(self) -> None:
        self.joined_after: List[int] = []
        self.steps = 0

    def join(self) -> None:
        self.joined_after.append(self.steps)


# -- samplers --------------------------------------------------------------------------------------


def batches_of(rank: int, **options: Any) -> List[List[int]]:
    data = mx.gluon.data.SimpleDataset(list(range(10)))
    sampler = ShardSampler(10, batch_size=2, rank=rank, num_workers=3, **options)
    loader = mx.gluon.data.DataLoader(data, batch_size=2, sampler=sampler)
    assert len(loader) == -(-len(sampler) // 2)
    return [batch.asnumpy().tolist() for batch in loader]


def test_a_data_loader_gives_every_worker_its_batches() -> None:
    assert batches_of(0) == [[0, 1], [6, 7]]
    assert batches_of(2) == [[4, 5], [0, 1]]
    assert batches_of(2, last="drop") == [[4, 5]]
    assert [batches_of(rank, last="join") for rank in range(3)] == [
        [[0, 1], [6, 7]],
        [[2, 3], [8]],
        [[4, 5], [9]],
    ]


def test_each_iteration_is_the_next_epoch_and_an_epoch_can_be_gone_back_to() -> None:
    sampler = ShardSampler(40, shuffle=True, seed=3, rank=1, num_workers=2)
    epochs = [list(sampler) for _ in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert all(type(i) is int for i in epochs[0])
    sampler.set_epoch(1)
    assert [list(sampler), list(sampler)] == epochs[1:]


def test_an_iteration_that_is_not_begun_yet_is_an_epoch_all_the_same() -> None:
    """A data loader asks for an iterator, and reads from it when it pleases."""
    sampler = ShardSampler(40, shuffle=True, rank=0, num_workers=1)
    first, second = iter(sampler), iter(sampler)
    later = list(second)
    assert list(first) != later


def test_workers_shuffle_alike() -> None:
    parts = [list(ShardSampler(40, shuffle=True, seed=5, rank=r, num_workers=4)) for r in range(4)]
    assert sorted(flat(parts)) == list(range(40))


def test_a_sampler_takes_its_place_from_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ROLE", "worker"), ("WORKER_ID", "1"), ("NUM_WORKER", "2")):
        monkeypatch.setenv(f"DMLC_{name}", value)
    assert list(ShardSampler(6)) == [1, 3, 5]


def test_no_samples_for_anybody_are_an_error() -> None:
    for length, last in ((0, "pad"), (0, "join"), (5, "drop")):
        with pytest.raises(UsageError, match=f"{length} samples are too few for 3 worker"):
            ShardSampler(length, batch_size=2, last=last, rank=0, num_workers=3)
    assert list(ShardSampler(2, last="join", rank=2, num_workers=3)) == []  # it joins at once


def test_joining_joins_after_the_last_step_of_each_epoch() -> None:
    store = Store()
    batches = joining([1, 2, 3], store)
    assert len(batches) == 3  # type: ignore[arg-type]
    for _ in range(2):
        for _ in batches:
            store.steps += 1
    assert store.joined_after == [3, 6]


def test_a_loop_that_is_left_early_or_raises_has_not_joined() -> None:
    store = Store()
    for _ in joining([1, 2], store):
        break

    def failing() -> Any:
        yield 1
        raise ValueError("damaged sample")

    with pytest.raises(ValueError):
        list(joining(failing(), store))
    assert store.joined_after == []


# -- NDArrayIter -----------------------------------------------------------------------------------


def flat(lists: Iterable[List[Any]]) -> List[Any]:
    return list(itertools.chain.from_iterable(lists))


def rows(iterator: Any) -> List[List[float]]:
    return [batch.data[0].asnumpy().ravel().tolist() for batch in iterator]


def test_shard_iter_gives_data_and_labels_of_its_part() -> None:
    x, y = np.arange(10.0).reshape(10, 1), np.arange(10) * 10.0
    part = ShardIter(x, y, batch_size=2, rank=1, num_workers=2)
    assert [d.shape for d in part.provide_data] == [(2, 1)]
    assert [d.name for d in part.provide_label] == ["softmax_label"]
    batches = list(part)
    assert [b.data[0].asnumpy().ravel().tolist() for b in batches] == [[2, 3], [6, 7], [0, 1]]
    assert [b.label[0].asnumpy().tolist() for b in batches] == [[20, 30], [60, 70], [0, 10]]
    assert list(part) == []
    part.reset()
    assert len(list(part)) == 3


@pytest.mark.parametrize("data", [dict, list, mx.nd.array])
def test_shard_iter_takes_what_ndarrayiter_takes(data: Any) -> None:
    x = np.arange(6.0)
    given = {dict: {"x": x, "z": -x}, list: [x, -x], mx.nd.array: mx.nd.array(x)}[data]
    part = ShardIter(given, batch_size=3, rank=1, num_workers=2)
    names = {dict: ["x", "z"], list: ["_0_data", "_1_data"], mx.nd.array: ["data"]}[data]
    assert [d.name for d in part.provide_data] == names
    assert rows(part) == [[3, 4, 5]]


def test_shard_iter_shuffles_over_all_workers_anew_in_each_epoch() -> None:
    x = np.arange(32.0)
    parts = [ShardIter(x, shuffle=True, rank=r, num_workers=2) for r in range(2)]
    epochs = []
    for _ in range(2):
        found = [flat(rows(part)) for part in parts]
        assert sorted(flat(found)) == x.tolist()
        epochs.append(found)
        for part in parts:
            part.reset()
    assert set(epochs[0][0]) != set(epochs[1][0])  # samples change hands
    parts[0].set_epoch(0)
    assert flat(rows(parts[0])) == epochs[0][0]


def test_shard_iter_says_how_much_of_a_last_batch_is_filled_up() -> None:
    part = ShardIter(np.arange(9.0), batch_size=3, last="join", rank=1, num_workers=2)
    assert [batch.pad for batch in part] == [0, 2]


def test_shard_iter_trains_a_module() -> None:
    x = np.random.RandomState(0).normal(size=(40, 2))
    y = (x[:, 0] > 0).astype(float)
    net = mx.sym.SoftmaxOutput(
        mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=2), name="softmax"
    )
    module = mx.mod.Module(net)
    part = ShardIter(x, y, batch_size=5, shuffle=True, rank=0, num_workers=2)
    module.fit(part, num_epoch=20, optimizer_params={"learning_rate": 0.5})
    part.reset()
    assert dict(module.score(part, "acc"))["accuracy"] > 0.9


def test_shard_iter_refuses_what_it_cannot_do() -> None:
    with pytest.raises(UsageError, match=r"the same number of samples, not \[5, 6\]"):
        ShardIter(np.zeros(6), np.zeros(5))
    with pytest.raises(UsageError, match="pass last="):
        ShardIter(np.zeros(6), last_batch_handle="roll_over")
    with pytest.raises(UsageError, match="last='pad'"):
        ShardIter(np.zeros(1), last="join", rank=1, num_workers=2)


# -- ImageRecordIter -------------------------------------------------------------------------------


def images(write_records: WriteRecords, count: int) -> Path:
    """Images of 4x4 pixels whose labels are 0, 1, 2, ..."""
    return write_records([mx.recordio.pack((0, float(i), i, 0), PNG) for i in range(count)])


def labels(rec: Path, rank: int, num_workers: int, last: str) -> List[List[float]]:
    part = image_record_iter(
        str(rec),
        str(rec.with_suffix(".idx")),
        batch_size=2,
        last=last,
        rank=rank,
        num_workers=num_workers,
        data_shape=(3, 4, 4),
        preprocess_threads=1,
    )
    return [batch.label[0].asnumpy().tolist() for batch in part]


@pytest.mark.parametrize("last, count", [("pad", 2), ("drop", 1)])
def test_image_record_iter_gives_all_workers_equally_many_batches(
    write_records: WriteRecords, last: str, count: int
) -> None:
    rec = images(write_records, 11)
    parts = [labels(rec, rank, 3, last) for rank in range(3)]
    assert [len(part) for part in parts] == [count] * 3
    seen = [{label for batch in part for label in batch} for part in parts]
    assert seen[0] <= {0, 1, 2, 3} and seen[1] <= {4, 5, 6, 7} and seen[2] <= {8, 9, 10}
    if last == "pad":
        assert set.union(*seen) == set(range(11))


def test_image_record_iter_refuses_parts_with_nothing_in_them(
    write_records: WriteRecords,
) -> None:
    rec = images(write_records, 5)
    for num_workers, last in ((4, "pad"), (3, "drop")):  # 2, 2, 1, 0 records; 2, 2, 1
        with pytest.raises(UsageError, match=f"5 records are too few for {num_workers} workers"):
            labels(rec, 0, num_workers, last)
    with pytest.raises(UsageError, match="pad or drop"):
        labels(rec, 0, 2, "join")
