"""row_sparse arrays: rows of a big matrix, most of which no gradient touches."""

from typing import Any, Dict, Optional

import mxnet as mx
import numpy as np

from tests.differential.case import Answer, Job, case

from .optimizers import create

SHAPE = (6, 2)
START = (1 + np.arange(12)).reshape(SHAPE).astype("float32")

sparse = mx.nd.sparse


def rows_of(rows: Dict[int, float], shape=SHAPE) -> Any:
    """A row_sparse array with these rows, each full of its value."""
    places = sorted(rows)
    data = np.array([[rows[place]] * shape[1] for place in places], "float32")
    return sparse.row_sparse_array(
        (data.reshape(len(places), shape[1]), places), shape=shape, dtype="float32"
    )


def dense_of(rows: Dict[int, float], shape=SHAPE) -> np.ndarray:
    dense = np.zeros(shape, "float32")
    for place, value in rows.items():
        dense[place] = value
    return dense


def only(rows: Any, values: np.ndarray = START) -> np.ndarray:
    dense = np.zeros_like(values)
    dense[list(rows)] = values[list(rows)]
    return dense


def stored(job: Job, optimizer: Any = None, value: np.ndarray = START) -> Any:
    """A store with a row_sparse key of ``value``, the key, and an out for it."""
    kv, key = job.kv(optimizer), job.key()
    kv.init(key, mx.nd.array(value).tostype("row_sparse"))
    return kv, key, sparse.zeros("row_sparse", value.shape)


def pulled(job: Job, row_ids: Any) -> Answer:
    """`row_sparse_pull` of these rows; dense, since only the values are promised."""
    kv, key, out = stored(job)
    kv.row_sparse_pull(key, out=out, row_ids=row_ids)
    chosen = row_ids.asnumpy().reshape(-1).astype(int)
    return Answer(out.tostype("default"), only(chosen))


ROW_IDS = {
    "sorted": ([0, 2, 5], "int64", "row_ids [0, 2, 5]"),
    "all": (list(range(6)), "int64", "all row_ids"),
    "unsorted": ([5, 0, 2], "int64", "row_ids [5, 0, 2]"),
    "duplicate": ([2, 2, 0, 2], "int64", "row_ids [2, 2, 0, 2]"),
    "two_dimensions": ([[0, 2], [5, 2]], "int64", "row_ids of two dimensions"),
    "int32": ([0, 2], "int32", "row_ids of int32"),
    "float32": ([0, 2], "float32", "row_ids of float32, as `mx.nd.array([0, 2])` makes them"),
}
for name_, (ids_, dtype_, what_) in ROW_IDS.items():
    case("sparse", name=f"row_ids_{name_}", what=f"`row_sparse_pull`, {what_}")(
        lambda job, ids_=ids_, dtype_=dtype_: pulled(job, mx.nd.array(ids_, dtype=dtype_))
    )


@case()
def case_row_ids_empty(job: Job) -> Answer:
    """`row_sparse_pull`, no row_ids"""
    with mx.util.np_shape(True):
        return pulled(job, mx.nd.zeros((0,), dtype="int64"))


@case(refused=True, ends_job=True)
def case_row_ids_out_of_range(job: Job) -> Answer:
    """`row_sparse_pull`, row_ids [0, 9] of a key with 6 rows"""
    kv, key, out = stored(job)
    kv.row_sparse_pull(key, out=out, row_ids=mx.nd.array([0, 9], dtype="int64"))
    out.wait_to_read()
    return Answer(out.tostype("default"), "refused")


NARROW = ((2048, "float16"), (2**24, "float32"))


def narrow_ids(job: Job, first: int, dtype: str, count: int) -> Answer:
    """Two rows that there are, as ``dtype``: from ``first`` on it holds every other number only."""
    kv, key = job.kv(), job.key()
    value = mx.nd.arange(first + 4).reshape((-1, 1))
    kv.init(key, value.tostype("row_sparse"))
    out = sparse.zeros("row_sparse", value.shape)
    last = first - 2 + count
    row_ids = mx.nd.array(np.array([1, last], dtype), dtype=dtype)
    kv.row_sparse_pull(key, out=out, row_ids=row_ids)
    return Answer([int(row) for row in out.indices.asnumpy()], [1, last])


for first_, dtype_ in NARROW:
    case("sparse", name=f"row_ids_{dtype_}_last", what=f"row_ids of {dtype_}, the last exact one")(
        lambda job, first_=first_, dtype_=dtype_: narrow_ids(job, first_, dtype_, 1)
    )
    case(
        refused=True,
        name=f"row_ids_{dtype_}_inexact",
        what=f"`row_sparse_pull`, row_ids of {dtype_} with {first_ + 1}, which that cannot hold",
    )(lambda job, first_=first_, dtype_=dtype_: narrow_ids(job, first_, dtype_, 3))


@case(refused=True)
def case_row_ids_mask(job: Job) -> Answer:
    """`row_sparse_pull`, row_ids of bool: a mask, and no numbers of rows"""
    kv, key, out = stored(job)
    kv.row_sparse_pull(key, out=out, row_ids=mx.nd.array([1, 0, 1, 0, 0, 1], dtype=bool))
    return Answer([int(row) for row in out.indices.asnumpy()], "refused")


@case(refused=True, ends_job=True)
def case_row_ids_out_of_range_later(job: Job) -> Answer:
    """`push`, then `row_sparse_pull`, row_ids [0, 9] of a key with 6 rows"""
    kv, key, out = stored(job)
    kv.push(key, rows_of({1: 1.0}))
    kv.row_sparse_pull(key, out=out, row_ids=mx.nd.array([0, 9], dtype="int64"))
    out.wait_to_read()
    return Answer(out.tostype("default"), "refused")


def rows_cast(job: Job, is_pushed: bool) -> Answer:
    """Rows of a key of float16, pulled into float32 and float64."""
    kv, key, outs = job.kv(create("sgd", learning_rate=0.1)), job.key(), []
    value = START.astype("float16")
    kv.init(key, mx.nd.array(value, dtype="float16").tostype("row_sparse"))
    if is_pushed:
        no_rows = sparse.zeros("row_sparse", SHAPE, dtype="float16")
        kv.push(key, no_rows)
    for dtype in ("float32", "float64"):
        outs.append(sparse.zeros("row_sparse", SHAPE, dtype=dtype))
        kv.row_sparse_pull(key, out=outs[-1], row_ids=mx.nd.array([5, 0, 2]))
    right = [only([0, 2, 5], value).astype(out.dtype) for out in outs]
    return Answer([out.tostype("default") for out in outs], right)


@case()
def case_rows_into_other_dtype(job: Job) -> Answer:
    """`row_sparse_pull` of a float16 key into float32 and float64, before anything is pushed"""
    return rows_cast(job, is_pushed=False)


@case("sparse optimizers")
def case_rows_into_other_dtype_later(job: Job) -> Answer:
    """`push`, then `row_sparse_pull` of a float16 key into float32 and float64: cast"""
    return rows_cast(job, is_pushed=True)


@case("sparse", refused=True)
def case_row_ids_left_out(job: Job) -> Answer:
    """`row_sparse_pull(k, out)`"""
    kv, key, out = stored(job)
    kv.row_sparse_pull(key, out=out)
    return Answer("accepted", "refused")


@case("sparse")
def case_row_sparse_pull_outs(job: Job) -> Answer:
    """`row_sparse_pull(k, out=[o0, o1], row_ids=r)`: one list of rows for two devices"""
    kv, key, _ = stored(job)
    outs = [sparse.zeros("row_sparse", SHAPE, ctx=mx.cpu(device)) for device in range(2)]
    kv.row_sparse_pull(key, out=outs, row_ids=mx.nd.array([1, 4], dtype="int64"))
    return Answer([out.tostype("default") for out in outs], [only([1, 4])] * 2)


@case("sparse")
def case_row_sparse_pull_outs_and_rows(job: Job) -> Answer:
    """`row_sparse_pull(k, out=[o0, o1], row_ids=[r0, r1])`"""
    kv, key, _ = stored(job)
    outs = [sparse.zeros("row_sparse", SHAPE, ctx=mx.cpu(device)) for device in range(2)]
    ids = [mx.nd.array(rows, dtype="int64") for rows in ([1, 4], [0])]
    kv.row_sparse_pull(key, out=outs, row_ids=ids)
    return Answer([out.tostype("default") for out in outs], [only([1, 4]), only([0])])


@case("sparse")
def case_row_sparse_pull_keys(job: Job) -> Answer:
    """`row_sparse_pull([k1, k2], out=[o1, o2], row_ids=[r1, r2])`"""
    kv, first, _ = stored(job)
    second = job.key()
    kv.init(second, mx.nd.array(START * 10).tostype("row_sparse"))
    outs = [sparse.zeros("row_sparse", SHAPE) for _ in range(2)]
    ids = [mx.nd.array(rows, dtype="int64") for rows in ([1, 4], [0])]
    kv.row_sparse_pull([first, second], out=outs, row_ids=ids)
    return Answer(
        [out.tostype("default") for out in outs], [only([1, 4]), only([0], START * 10)]
    )  # fmt: skip


@case("sparse", refused=True)
def case_row_sparse_pull_into_dense(job: Job) -> Answer:
    """`row_sparse_pull` into a dense out"""
    kv, key, _ = stored(job)
    out = mx.nd.zeros(SHAPE)
    kv.row_sparse_pull(key, out=out, row_ids=mx.nd.array([1], dtype="int64"))
    out.wait_to_read()
    return Answer(out, "refused")


@case("sparse", refused=True)
def case_row_sparse_pull_into_dense_later(job: Job) -> Answer:
    """`push`, then `row_sparse_pull` into a dense out"""
    kv, key, _ = stored(job)
    kv.push(key, rows_of({1: 1.0}))
    out = mx.nd.zeros(SHAPE)
    kv.row_sparse_pull(key, out=out, row_ids=mx.nd.array([1], dtype="int64"))
    out.wait_to_read()
    return Answer(out, "refused")


@case("sparse")
def case_row_sparse_init_takes_rank_0s(job: Job) -> Answer:
    """`init` of row_sparse with another value on each worker"""
    kv, key = job.kv(), job.key()
    kv.init(key, mx.nd.array(START * (1 + job.rank)).tostype("row_sparse"))
    out = sparse.zeros("row_sparse", SHAPE)
    kv.row_sparse_pull(key, out=out, row_ids=mx.nd.arange(6, dtype="int64"))
    return Answer(out.tostype("default"), START)


def pushed(
    job: Job, rows: Any, make: Any = None, is_sparse: bool = True, rounds: int = 1
) -> Answer:
    """The key after each worker has pushed ``rows(rank)``, with an optimizer or without."""
    kv, key = job.kv(make() if make else None), job.key()
    start = mx.nd.array(START)
    kv.init(key, start.tostype("row_sparse") if is_sparse else start)
    right = start.tostype("row_sparse") if is_sparse else start.copy()
    updater = mx.optimizer.get_updater(make()) if make else None
    total = job.total(lambda rank: dense_of(rows(rank)))
    touched = sorted({row for rank in range(job.num_workers) for row in rows(rank)})
    for _ in range(rounds):
        kv.push(key, rows_of(rows(kv.rank)))
        if updater:
            gradient = sparse.row_sparse_array((total[touched], touched), shape=SHAPE)
            updater(key, gradient, right)
    if is_sparse:
        out = sparse.zeros("row_sparse", SHAPE)
        kv.row_sparse_pull(key, out=out, row_ids=mx.nd.arange(6, dtype="int64"))
    else:
        out = mx.nd.zeros(SHAPE)
        kv.pull(key, out=out)
    answer = right.tostype("default") if updater else total
    return Answer(out.tostype("default"), answer)


def same_rows(rank: int) -> Dict[int, float]:
    return {1: 1.0 + rank, 4: 2.0}


def other_rows(rank: int) -> Dict[int, float]:
    return {rank: 1.0, 4: 2.0 + rank}


@case("sparse")
def case_row_sparse_push(job: Job) -> Answer:
    """`push` of row_sparse, the same rows on all workers: the sum replaces the value"""
    return pushed(job, same_rows)


@case("sparse")
def case_row_sparse_push_other_rows(job: Job) -> Answer:
    """`push` of row_sparse, other rows on each worker"""
    return pushed(job, other_rows)


@case("sparse")
def case_row_sparse_push_no_rows(job: Job) -> Answer:
    """`push` of row_sparse, no rows at all on rank 0"""
    return pushed(job, lambda rank: {3: 5.0} if rank else {})


@case("sparse")
def case_row_sparse_push_devices(job: Job) -> Answer:
    """`push(k, [v0, v1])`, row_sparse, other rows on each device"""
    kv, key, out = stored(job)
    parts = [{0: 1.0, 1: 2.0}, {1: 4.0, 5: 8.0}]
    kv.push(key, [rows_of(part).as_in_context(mx.cpu(d)) for d, part in enumerate(parts)])
    kv.row_sparse_pull(key, out=out, row_ids=mx.nd.arange(6, dtype="int64"))
    right = sum(dense_of(part) for part in parts) * job.num_workers
    return Answer(out.tostype("default"), right)


@case()
def case_row_sparse_push_to_dense(job: Job) -> Answer:
    """`push` of row_sparse to a dense key, no optimizer"""
    return pushed(job, same_rows, is_sparse=False)


@case("sparse optimizers")
def case_row_sparse_sgd(job: Job) -> Answer:
    """SGD, row_sparse weight and gradients, other rows on each worker"""
    return pushed(job, other_rows, lambda: create("sgd", learning_rate=0.1, wd=0.1))


@case("sparse optimizers")
def case_row_sparse_momentum(job: Job) -> Answer:
    """SGD with momentum (lazy), row_sparse weight and gradients, three rounds"""
    return pushed(job, other_rows, lambda: create("sgd", learning_rate=0.1, momentum=0.9), True, 3)


@case("sparse optimizers")
def case_row_sparse_adam(job: Job) -> Answer:
    """Adam (lazy), row_sparse weight and gradients, three rounds"""
    return pushed(job, other_rows, lambda: create("adam", learning_rate=0.1), True, 3)


@case("sparse optimizers")
def case_row_sparse_adagrad(job: Job) -> Answer:
    """AdaGrad, row_sparse weight and gradients, three rounds"""
    return pushed(job, other_rows, lambda: create("adagrad", learning_rate=0.1), True, 3)


@case("sparse optimizers")
def case_row_sparse_sgd_to_dense(job: Job) -> Answer:
    """SGD, dense weight, row_sparse gradients"""
    return pushed(job, other_rows, lambda: create("sgd", learning_rate=0.1), is_sparse=False)


@case("sparse optimizers")
def case_row_sparse_adam_to_dense(job: Job) -> Answer:
    """Adam, dense weight, row_sparse gradients, three rounds"""
    return pushed(job, other_rows, lambda: create("adam", learning_rate=0.1), False, 3)


def after_pull(job: Job, ignore_sparse: Optional[bool]) -> Answer:
    kv, key, out = stored(job)
    kv.pull(key, out=out, ignore_sparse=bool(ignore_sparse))
    out.wait_to_read()
    return Answer(out.tostype("default"), np.zeros(SHAPE, "float32") if ignore_sparse else "")


@case("sparse")
def case_row_sparse_pull_ignored(job: Job) -> Answer:
    """`pull` into row_sparse, `ignore_sparse=True`: left as it is"""
    return after_pull(job, True)


@case("sparse", refused=True)
def case_row_sparse_pull_not_ignored(job: Job) -> Answer:
    """`pull` into row_sparse, `ignore_sparse=False`"""
    return after_pull(job, False)


@case("sparse", refused=True)
def case_row_sparse_pushpull(job: Job) -> Answer:
    """`pushpull` of row_sparse"""
    kv, key, out = stored(job)
    kv.pushpull(key, rows_of({1: 1.0}), out=out)
    out.wait_to_read()
    return Answer(out.tostype("default"), "refused")


@case()
def case_row_sparse_big(job: Job) -> Answer:
    """row_sparse of 300,000 rows: `push` of three rows, `row_sparse_pull` of four"""
    shape, rows = (300_000, 4), {0: 1.0, 150_000: 2.0, 299_999: 3.0}
    kv, key = job.kv(), job.key()
    kv.init(key, mx.nd.ones(shape).tostype("row_sparse"))
    kv.push(key, rows_of(rows, shape))
    out = sparse.zeros("row_sparse", shape)
    ids = mx.nd.array([0, 5, 150_000, 299_999], dtype="int64")
    kv.row_sparse_pull(key, out=out, row_ids=ids)
    got = out.tostype("default").asnumpy()[[0, 5, 150_000, 299_999]]
    return Answer(got, np.array([[n * job.num_workers] * 4 for n in (1, 0, 2, 3)], "float32"))
