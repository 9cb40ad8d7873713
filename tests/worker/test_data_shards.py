"""Which samples are whose: over all workers nothing is lost, and nobody has more batches."""

import itertools
from collections import Counter
from typing import Any, Dict, Iterable, List

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baryon.ps import UsageError
from baryon.worker.data import shard
from baryon.worker.data.shards import part_of_job

cases = st.fixed_dictionaries(
    {
        "length": st.integers(0, 200),
        "num_workers": st.integers(1, 9),
        "batch_size": st.integers(1, 12),
        "shuffle": st.booleans(),
        "seed": st.integers(0, 2**40),
        "epoch": st.integers(0, 1000),
    }
)


def flat(lists: Iterable[List[int]]) -> List[int]:
    return list(itertools.chain.from_iterable(lists))


def parts(case: Dict[str, Any], last: str) -> List[List[int]]:
    return [shard(rank=r, last=last, **case).tolist() for r in range(case["num_workers"])]


@given(cases)
def test_join_gives_every_sample_exactly_once(case: Dict[str, Any]) -> None:
    found = parts(case, "join")
    assert sorted(flat(found)) == list(range(case["length"]))
    lengths = [len(part) for part in found]
    assert max(lengths) - min(lengths) <= 1


@given(cases)
def test_pad_gives_every_sample_and_fills_every_batch_of_everybody(case: Dict[str, Any]) -> None:
    found = parts(case, "pad")
    (length,) = {len(part) for part in found}
    step = case["num_workers"] * case["batch_size"]
    counts = Counter(flat(found))
    assert set(counts) == set(range(case["length"]))
    assert length % case["batch_size"] == 0
    assert length * case["num_workers"] - case["length"] in range(step)  # no more than it takes
    assert not counts or max(counts.values()) - min(counts.values()) <= 1


@given(cases)
def test_drop_gives_no_sample_twice_and_drops_less_than_a_step(case: Dict[str, Any]) -> None:
    found = parts(case, "drop")
    (length,) = {len(part) for part in found}
    seen = flat(found)
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(case["length"]))
    assert length % case["batch_size"] == 0
    step = case["num_workers"] * case["batch_size"]
    assert case["length"] - len(seen) == case["length"] % step


@given(cases, st.sampled_from(["pad", "drop", "join"]))
def test_steps_of_all_workers_are_those_of_one_with_bigger_batches(
    case: Dict[str, Any], last: str
) -> None:
    found = parts(case, last)
    size, step = case["batch_size"], case["num_workers"] * case["batch_size"]
    alone = shard(**{**case, "num_workers": 1, "batch_size": step}, rank=0, last=last).tolist()
    for k in range(-(-len(alone) // step)):
        together = flat(part[k * size : (k + 1) * size] for part in found)
        assert sorted(together) == sorted(alone[k * step : (k + 1) * step])


def test_examples() -> None:
    assert [shard(10, r, 4).tolist() for r in range(4)] == [
        [0, 4, 8],
        [1, 5, 9],
        [2, 6, 0],
        [3, 7, 1],
    ]
    assert [shard(10, r, 4, last="drop").tolist() for r in range(4)] == [
        [0, 4],
        [1, 5],
        [2, 6],
        [3, 7],
    ]
    assert [shard(10, r, 4, last="join").tolist() for r in range(4)] == [
        [0, 4, 8],
        [1, 5, 9],
        [2, 6],
        [3, 7],
    ]
    assert [shard(11, r, 2, batch_size=3).tolist() for r in range(2)] == [
        [0, 1, 2, 6, 7, 8],
        [3, 4, 5, 9, 10, 0],
    ]
    assert shard(2, 1, 2, batch_size=4).tolist() == [0, 1, 0, 1]
    assert shard(10, 0, 4).dtype == np.int64


def test_epochs_and_seeds_give_orders_of_their_own_and_the_same_one_again() -> None:
    def order(seed: int, epoch: int) -> List[int]:
        return shard(50, 0, 1, shuffle=True, seed=seed, epoch=epoch).tolist()

    orders = [order(0, 0), order(0, 1), order(1, 0), order(1, 1), list(range(50))]
    assert len({tuple(one) for one in orders}) == 5
    assert order(1, 1) == orders[3]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"rank": 4}, "ranks of 4 workers are 0 to 3, not 4"),
        ({"rank": -1}, "not -1"),
        ({"num_workers": 0}, "not 0"),
        ({"last": "keep"}, "last is one of pad, drop, join, not 'keep'"),
        ({"batch_size": 0}, "at least one sample"),
        ({"length": -1}, "-1 samples"),
        ({"seed": -1}, "seed and epoch count from 0"),
        ({"epoch": -1}, "seed and epoch count from 0"),
    ],
)
def test_wrong_arguments_are_named(wrong: Dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        shard(**{"length": 10, "rank": 0, "num_workers": 4, **wrong})


JOB = {"DMLC_ROLE": "worker", "DMLC_WORKER_ID": "2", "DMLC_NUM_WORKER": "3"}


def test_part_is_the_jobs_unless_it_is_given() -> None:
    assert part_of_job(environ=JOB) == (2, 3)
    assert part_of_job(0, 7, environ=JOB) == (0, 7)
    assert part_of_job(environ={}) == (0, 1)
    assert part_of_job(environ={**JOB, "DMLC_ROLE": "server"}) == (0, 1)


def test_part_that_is_not_known_is_an_error() -> None:
    native = {name: value for name, value in JOB.items() if name != "DMLC_WORKER_ID"}
    with pytest.raises(UsageError, match=r"rank=kv\.rank"):
        part_of_job(environ=native)
    with pytest.raises(UsageError, match="both rank and num_workers"):
        part_of_job(rank=1, environ=JOB)
