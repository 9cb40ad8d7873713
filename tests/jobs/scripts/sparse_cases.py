"""What a store promises of row_sparse arrays, case by case; see cases.py."""

import mxnet as mx
import numpy as np
from cases import raises, run_cases, total
from mxnet import autograd, gluon

SHAPE = (6, 2)
BIG = (70_000, 5)  # two buckets: 52,428 rows in the first


def rows(given, shape=SHAPE, **options):
    """{id: value of all its elements}"""
    if not given:
        return mx.nd.sparse.zeros("row_sparse", shape, **options)
    values = np.array([np.full(shape[1:], value) for value in given.values()], np.float32)
    return mx.nd.sparse.row_sparse_array((values, list(given)), shape=shape, **options)


def nothing(shape=SHAPE, **options):
    """An array to pull rows to, with something in it that must go."""
    return rows({1: -1.0}, shape, **options)


def has(array, given):
    """``array`` has exactly these rows, {id: value}."""
    assert array.stype == "row_sparse"
    assert array.indices.asnumpy().tolist() == list(given), array.indices
    for value, expected in zip(array.data.asnumpy(), given.values()):
        np.testing.assert_allclose(value, expected, rtol=1e-6)


def store(value=7.0, shape=SHAPE, stype="row_sparse", name="dist_sync"):
    kv = mx.kv.create(name)
    kv.init("w", mx.nd.full(shape, value).tostype(stype))
    return kv


def case_rows_are_pulled_by_ids_of_every_kind():
    kv, out = store(), nothing()
    for ids in (
        mx.nd.array([5, 1, 1]),
        mx.nd.array([1, 5], dtype="int64"),
        mx.nd.array([[1, 5], [5, 1]], dtype="int32"),
        mx.nd.array([5, 1], dtype="float64"),
        mx.nd.array([1, 5], dtype="uint8"),
        np.array([5, 1]),
    ):
        kv.row_sparse_pull("w", out=out, row_ids=ids)
        has(out, {1: 7.0, 5: 7.0})
    kv.row_sparse_pull("w", out=out, row_ids=np.array([]))
    has(out, {})
    kv.row_sparse_pull("w", out=out, row_ids=mx.nd.arange(6))
    has(out, dict.fromkeys(range(6), 7.0))


def case_the_first_value_may_have_few_rows():
    kv, out = mx.kv.create("dist_sync"), nothing()
    kv.init("w", rows({2: 3.0 + kv.rank, 4: 5.0}))
    kv.row_sparse_pull("w", out=out, row_ids=mx.nd.array([1, 2, 4]))
    has(out, {1: 0.0, 2: 3.0, 4: 5.0})


def case_a_sum_of_rows_replaces_the_value():
    for stype in ("row_sparse", "default"):
        for shape in (SHAPE, BIG):
            kv, out = store(7.0, shape, stype), nothing(shape)
            last = shape[0] - 1
            for factor in (1, 10):
                kv.push("w", rows({0: factor * 1.0, last: factor * (kv.rank + 1.0)}, shape))
                kv.row_sparse_pull("w", out=out, row_ids=mx.nd.array([0, 1, last], dtype="int64"))
                has(out, {0: factor * kv.num_workers, 1: 0.0, last: factor * total(kv)})
            dense = mx.nd.ones(shape)
            kv.pull("w", out=dense)
            expected = factor * (kv.num_workers + total(kv)) * shape[1]
            assert dense.sum().asscalar() == expected


def case_workers_may_push_no_rows():
    kv, out = store(), nothing()
    for pusher in range(kv.num_workers):
        kv.push("w", rows({3: 2.0} if kv.rank == pusher else {}))
        kv.row_sparse_pull("w", out=out, row_ids=mx.nd.array([3, 4]))
        has(out, {3: 2.0, 4: 0.0})
    kv.push("w", rows({}))
    kv.row_sparse_pull("w", out=out, row_ids=mx.nd.array([3, 4]))
    has(out, {3: 0.0, 4: 0.0})


def case_dense_and_sparse_pushes_take_turns_or_meet():
    kv, out, dense = store(), nothing(), mx.nd.zeros(SHAPE)
    for turn in range(6):
        if turn % 3 == 0 or (turn % 3 == 1 and kv.rank % 2):
            kv.push("w", mx.nd.full(SHAPE, turn + 1.0))
        else:
            kv.push("w", rows({2: turn + 1.0}))
        kv.row_sparse_pull("w", out=out, row_ids=mx.nd.array([2]))
        has(out, {2: (turn + 1.0) * kv.num_workers})
        kv.pull("w", out=dense)
        others = [(turn + 1.0) * kv.num_workers, (turn + 1.0) * (kv.num_workers // 2), 0.0]
        assert dense[3].asnumpy().tolist() == [others[turn % 3]] * 2


def case_several_devices_are_summed_and_pulled_to():
    kv = store()
    devices = [mx.cpu(0), mx.cpu(1), mx.cpu(2)]
    given = [{1: 1.0}, {1: 1.0, 2: 2.0}, {}]
    kv.push("w", [rows(part, ctx=device) for part, device in zip(given, devices)])
    outs = [nothing(ctx=device) for device in devices]
    kv.row_sparse_pull("w", out=outs, row_ids=mx.nd.array([2, 1]))
    for out in outs:
        has(out, {1: 2.0 * kv.num_workers, 2: 2.0 * kv.num_workers})
    ids = [mx.nd.array([0]), mx.nd.array([2, 2]), mx.nd.array([])]
    kv.row_sparse_pull("w", out=outs, row_ids=[ids[0], ids[1], np.array([])])
    for out, expected in zip(outs, ({0: 0.0}, {2: 2.0 * kv.num_workers}, {})):
        has(out, expected)


def case_lists_of_keys():
    kv = mx.kv.create("dist_sync")
    kv.init([1, 2], [mx.nd.full(SHAPE, 1.0), mx.nd.full(BIG, 2.0).tostype("row_sparse")])
    outs = [nothing(), nothing(BIG)]
    kv.row_sparse_pull([1, 2], out=outs, row_ids=[mx.nd.array([5]), mx.nd.array([69_999])])
    has(outs[0], {5: 1.0})
    has(outs[1], {69_999: 2.0})
    kv.row_sparse_pull([1, 2], out=[[outs[0]], outs[1]], row_ids=mx.nd.array([4]))
    has(outs[0], {4: 1.0})
    has(outs[1], {4: 2.0})
    kv.push([1, 2], [rows({0: 1.0}), rows({0: 2.0}, BIG)])
    kv.row_sparse_pull([1, 2], out=outs, row_ids=[mx.nd.array([0])] * 2)
    has(outs[0], {0: kv.num_workers})
    has(outs[1], {0: 2 * kv.num_workers})


def case_pull_leaves_sparse_arrays_alone_unless_it_is_not_to():
    kv, out = store(), rows({2: 9.0})
    kv.pull("w", out=out)
    mx.nd.waitall()
    has(out, {2: 9.0})
    kv.pull("w", out=out, ignore_sparse=False)
    has(out, dict.fromkeys(range(6), 7.0))
    kv.pushpull("w", rows({1: 1.0}), out=out)
    has(out, {**dict.fromkeys(range(6), 0.0), 1: kv.num_workers})
    dense = mx.nd.zeros(SHAPE)
    kv.pushpull("w", rows({1: 2.0}), out=dense)
    assert dense[1].asnumpy().tolist() == [2.0 * kv.num_workers] * 2
    kv.broadcast("other", rows({3: 3.0}), out=out)
    has(out, {**dict.fromkeys(range(6), 0.0), 3: 3.0})


def case_other_dtypes_and_shapes():
    kv = mx.kv.create("dist_sync")
    for dtype in ("float16", "float64", "int32"):
        for shape in ((4, 3), (4, 2, 2), (4, 1)):
            name = f"{dtype}{shape}"
            kv.init(name, mx.nd.zeros(shape, dtype=dtype))
            kv.push(name, rows({3: 2.0}, shape, dtype=dtype))
            out = nothing(shape, dtype=dtype)
            kv.row_sparse_pull(name, out=out, row_ids=mx.nd.array([0, 3]))
            has(out, {0: 0.0, 3: 2.0 * kv.num_workers})
            assert out.dtype == np.dtype(dtype)


def case_what_is_impossible_is_said():
    kv, out = store(), nothing()
    one = mx.nd.array([1])
    raises("has not been initialised", kv.row_sparse_pull, "x", out, 0, one)
    raises("has not been initialised", kv.push, "x", rows({1: 1.0}))
    raises("do not all exist: it has 6 rows", kv.row_sparse_pull, "w", out, 0, mx.nd.array([6]))
    raises("do not all exist: it has 6 rows", kv.row_sparse_pull, "w", out, 0, mx.nd.array([-1, 2]))
    raises("are not all whole numbers", kv.row_sparse_pull, "w", out, 0, mx.nd.array([0.5]))
    half = mx.nd.array([1, 2048], dtype="float16")
    raises("exactly only below 2048", kv.row_sparse_pull, "w", out, 0, half)
    raises("row_ids for key 'w' are bool", kv.row_sparse_pull, "w", out, 0, np.array([True, False]))
    raises("row_ids", kv.row_sparse_pull, "w", out)
    raises("one for each, or one for all", kv.row_sparse_pull, "w", [out] * 3, 0, [one] * 2)
    raises("2 keys need as many", kv.row_sparse_pull, ["w", "w"], [out], 0, one)
    raises("row_sparse arrays of the shape (6, 2)", kv.row_sparse_pull, "w", nothing(BIG), 0, one)
    raises("row_sparse arrays", kv.row_sparse_pull, "w", mx.nd.zeros(SHAPE), 0, one)
    raises("the array given is row_sparse float32(5, 2)", kv.push, "w", rows({1: 1.0}, (5, 2)))
    raises("all dense or all row_sparse", kv.push, "w", [rows({1: 1.0}), mx.nd.zeros(SHAPE)])
    raises("all dense or all row_sparse", kv.push, "w", [mx.nd.zeros(SHAPE), rows({1: 1.0})])
    kv.init("wide", mx.nd.zeros((2, 300_000)))
    raises("use dense gradients", kv.push, "wide", rows({1: 1.0}, (2, 300_000)))
    kv.row_sparse_pull("w", out=out, row_ids=one)  # and goes on
    has(out, {1: 7.0})


def case_ids_of_a_gradient_in_any_order_and_twice_are_added_up():
    kv, out = store(), nothing()
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    kv.push("w", mx.nd.sparse.row_sparse_array((values, [4, 1, 4]), shape=SHAPE))
    kv.row_sparse_pull("w", out=out, row_ids=mx.nd.array([1, 4]))
    np.testing.assert_array_equal(
        out.data.asnumpy(), np.array([[2, 3], [4, 6]]) * float(kv.num_workers)
    )


def case_a_lazy_optimizer_changes_the_rows_alone():
    kv, out = store(), nothing()
    kv.set_optimizer(mx.optimizer.SGD(learning_rate=1.0, wd=0.5, lazy_update=True))
    kv.push("w", rows({1: 1.0}))
    kv.row_sparse_pull("w", out=out, row_ids=mx.nd.array([1, 2]))
    has(out, {1: 7.0 - kv.num_workers - 3.5, 2: 7.0})


def case_an_optimizer_of_whole_keys_gets_whole_keys():
    kv, out = store(1.0, BIG), nothing(BIG)
    kv.set_optimizer(mx.optimizer.contrib.GroupAdaGrad(learning_rate=1.0, eps=0.0))
    kv.push("w", rows({0: 2.0, 69_999: 3.0}, BIG))
    kv.row_sparse_pull("w", out=out, row_ids=mx.nd.array([0, 5, 69_999], dtype="int64"))
    has(out, {0: 0.0, 5: 1.0, 69_999: 0.0})


def case_rows_are_applied_asynchronously():
    kv = mx.kv.create("dist_async")
    kv.set_optimizer(mx.optimizer.SGD(learning_rate=1.0, lazy_update=True))
    kv.init("w", mx.nd.zeros(BIG).tostype("row_sparse"))
    out = nothing(BIG)
    for _ in range(kv.rank + 1):
        kv.push("w", rows({0: 1.0, 69_999: 2.0}, BIG))
        kv.row_sparse_pull("w", out=out, row_ids=mx.nd.array([0]))
        mx.nd.waitall()
    kv.barrier()
    kv.row_sparse_pull("w", out=out, row_ids=mx.nd.array([0, 1, 69_999], dtype="int64"))
    has(out, {0: -total(kv), 1: 0.0, 69_999: -2.0 * total(kv)})


def case_rows_are_pulled_within_a_recorded_forward_pass():
    kv = mx.kv.create("dist_sync")
    weight = gluon.Parameter("w", shape=SHAPE, stype="row_sparse", grad_stype="row_sparse")
    weight.initialize(mx.init.One())
    options = {"learning_rate": 1.0, "lazy_update": True}
    trainer = gluon.Trainer([weight], "sgd", options, kvstore=kv)
    ids = mx.nd.array([1, kv.rank + 2])
    with autograd.record():
        table = weight.row_sparse_data(ids)
        y = mx.nd.Embedding(ids, table, input_dim=6, output_dim=2, sparse_grad=True)
    y.backward()
    trainer.step(1)
    has(weight.row_sparse_data(mx.nd.array([0, 1])), {0: 1.0, 1: 1.0 - kv.num_workers})
    has(weight.row_sparse_data(mx.nd.array([2])), {2: 0.0})


run_cases(globals())
