"""What a store promises, case by case; each has stores of its own. See cases.py."""

import copy
import gc
import tempfile
import threading

import mxnet as mx
import numpy as np
from cases import raises, run_cases, same, total
from mxnet import autograd, gluon

from baryon.ps import UsageError

TYPES = ("dist", "dist_sync", "dist_device_sync", "dist_sync_device")
DTYPES = ("float32", "float64", "float16", "uint8", "int8", "int32", "int64")


def case_every_type_string_says_what_it_is():
    for name in TYPES:
        kv = mx.kv.create(name)
        assert isinstance(kv, mx.kvstore.KVStore)
        assert kv.type == name
        assert 0 <= kv.rank < kv.num_workers
        assert kv.is_capable("optimizer")
        assert mx.kv.create(name.upper()).type == name


def case_init_takes_rank_0s_value():
    kv = mx.kv.create("dist_sync")
    kv.init("a", mx.nd.full((2, 3), 7 + kv.rank))
    out = mx.nd.zeros((2, 3))
    kv.pull("a", out=out)
    same(out, 7)


def case_push_replaces_by_the_sum_and_a_pull_sees_it():
    kv = mx.kv.create("dist_sync")
    kv.init(3, mx.nd.ones((5,)))
    out = mx.nd.zeros((5,))
    for factor in (1, 10):
        kv.push(3, mx.nd.full((5,), factor * (kv.rank + 1)))
        kv.pull(3, out=out)
        same(out, factor * total(kv))


def case_two_pushes_before_a_pull_are_two_rounds():
    kv = mx.kv.create("dist_sync")
    kv.init(3, mx.nd.ones((5,)))
    kv.push(3, mx.nd.ones((5,)))
    kv.push(3, mx.nd.full((5,), 4))
    out = mx.nd.zeros((5,))
    kv.pull(3, out=out)
    same(out, 4 * kv.num_workers)


def case_lists_of_keys_and_devices():
    kv = mx.kv.create("dist_sync")
    keys = ["x", "y", "z"]
    kv.init(keys, [mx.nd.zeros((4, 2))] * 3)
    ones = [[mx.nd.ones((4, 2), ctx=mx.cpu(d)) * (k + 1) for d in range(3)] for k in range(3)]
    kv.push(keys, ones)
    outs = [[mx.nd.zeros((4, 2), ctx=mx.cpu(d)) for d in range(3)] for _ in keys]
    kv.pull(keys, out=outs)
    for k, per_device in enumerate(outs):
        for d, out in enumerate(per_device):
            same(out, 3 * (k + 1) * kv.num_workers)
            assert out.context == mx.cpu(d)


def case_a_key_named_twice_is_taken_together():
    kv = mx.kv.create("dist_sync")
    kv.init(1, mx.nd.zeros((3,)))
    kv.push([1, 1], [mx.nd.ones((3,)), mx.nd.full((3,), 5)])
    out = mx.nd.zeros((3,))
    kv.pull(1, out=out)
    same(out, 6 * kv.num_workers)


def case_gradients_are_left_as_they_were():
    kv = mx.kv.create("dist_sync")
    kv.init(0, mx.nd.zeros((6,)))
    gradients = [mx.nd.full((6,), 2 + d, ctx=mx.cpu(d)) for d in range(2)]
    out = mx.nd.zeros((6,))
    kv.pushpull(0, gradients, out=out)
    kv.pull(0, out=out)
    same(out, 5 * kv.num_workers)
    for d, gradient in enumerate(gradients):
        same(gradient, 2 + d)
    single = mx.nd.full((6,), 9)
    kv.push(0, single)
    kv.pull(0, out=out)
    same(single, 9)


def case_pushpull_without_out_writes_to_the_value():
    kv = mx.kv.create("dist_sync")
    kv.init(0, mx.nd.zeros((6,)))
    values = [mx.nd.full((6,), kv.rank + 1, ctx=mx.cpu(d)) for d in range(2)]
    kv.pushpull(0, values)
    for value in values:
        same(value, 2 * total(kv))


def case_broadcast():
    kv = mx.kv.create("dist_sync")
    outs = [mx.nd.zeros((2, 2), ctx=mx.cpu(d)) for d in range(2)]
    kv.broadcast("b", mx.nd.full((2, 2), 3 + kv.rank), out=outs)
    for out in outs:
        same(out, 3)


def case_every_dtype():
    kv = mx.kv.create("dist_sync")
    for number, dtype in enumerate(DTYPES):
        kv.init(number, mx.nd.zeros((3, 5), dtype=dtype))
        out = mx.nd.zeros((3, 5), dtype=dtype)
        kv.pushpull(number, mx.nd.full((3, 5), kv.rank + 1, dtype=dtype), out=out)
        assert out.dtype == np.dtype(dtype)
        same(out, total(kv))


def case_arrays_of_every_size():
    """One element; one short of, at, and one past a bucket; many buckets."""
    kv = mx.kv.create("dist_sync")
    bucket = (1 << 20) // 4
    sizes = (1, 2, 1000, bucket - 1, bucket, bucket + 1, 3 * bucket + 17)
    for size in sizes:
        kv.init(size, mx.nd.zeros((size,)))
    for round_ in (1, 2):
        outs = [mx.nd.zeros((size,)) for size in sizes]
        for size, out in zip(sizes, outs):
            pattern = np.arange(size, dtype=np.float32) % 97
            kv.pushpull(size, mx.nd.array(pattern * (kv.rank + 1) * round_), out=out)
        for size, out in zip(sizes, outs):
            same(out, (np.arange(size) % 97) * total(kv) * round_)


def case_views_of_one_array_may_overlap():
    """The answer for the first bucket would else overwrite what is still to be sent."""
    size = 4 * ((1 << 20) // 4) + 5
    kv = mx.kv.create("dist_sync")
    kv.init(0, mx.nd.zeros((size,)))
    pattern = np.arange(size + 1, dtype=np.float32) % 97
    array = mx.nd.array(pattern)
    kv.pushpull(0, array[:-1], out=array[1:])
    same(array[1:], pattern[:-1] * kv.num_workers)
    same(array[:1], pattern[:1])


def case_many_steps_without_waiting():
    """Steps are issued long before their answers; each sees its own round."""
    kv = mx.kv.create("dist_sync")
    keys = range(40)
    for key in keys:
        kv.init(key, mx.nd.zeros((key + 1,)))
    values = [mx.nd.full((key + 1,), kv.rank + 1) for key in keys]
    for _ in range(5):  # value -> sum over workers -> ... : a chain through the engine
        for key in keys:
            kv.pushpull(key, values[key], out=values[key], priority=-key)
    for value in values:
        same(value, total(kv) * kv.num_workers**4)


def case_optimizer_updates_from_rank_0s_value():
    kv = mx.kv.create("dist_sync")
    kv.set_optimizer(mx.optimizer.SGD(learning_rate=0.5))
    kv.init("w", mx.nd.full((4,), 100))
    out = mx.nd.zeros((4,))
    for step in (1, 2):
        kv.pushpull("w", mx.nd.full((4,), 2), out=out)
        same(out, 100 - step * kv.num_workers)


def case_hyper_parameters_are_live():
    """What rank 0 changes takes effect with the next step, for every key."""
    net = gluon.nn.Dense(1, in_units=2, use_bias=True)
    net.initialize(mx.init.One())
    optimizer = mx.optimizer.SGD(learning_rate=1.0)
    trainer = gluon.Trainer(net.collect_params(), optimizer, kvstore="dist_sync")
    size = mx.kv.create("dist").num_workers

    def step():
        with autograd.record():
            loss = net(mx.nd.ones((1, 2))).sum()
        loss.backward()
        trainer.step(size)
        return net.weight.data().asnumpy()[0, 0], net.bias.data().asnumpy()[0]

    assert step() == (0, -1)
    trainer.set_learning_rate(0.5)
    assert step() == (-0.5, -1.5)
    net.bias.lr_mult = 0
    assert step() == (-1, -1.5)
    optimizer.wd = 0.5
    assert step() == (-1 - 0.5 * (1 - 0.5), -1.5)


def case_a_change_applies_to_the_pushes_that_follow_it_whatever_keys_they_are_of():
    """Also in the middle of a step, and with all of it under way at once."""
    kv = mx.kv.create("dist_sync")
    optimizer = mx.optimizer.SGD(learning_rate=1.0)
    kv.set_optimizer(optimizer)
    keys = ["a", "big", "c"]
    outs = [mx.nd.zeros(3), mx.nd.zeros(600_000), mx.nd.zeros(3)]
    kv.init(keys, outs)
    for rate, pushed in [(1, ["a", "big", "c"]), (10, ["big"]), (100, ["c", "a"]), (1000, ["big"])]:
        optimizer.lr = rate
        for key in pushed:
            kv.push(key, mx.nd.ones(outs[keys.index(key)].shape))
    kv.pull(keys, out=outs)
    for out, expected in zip(outs, (-101, -1011, -101)):
        same(out, expected * kv.num_workers)


def case_a_lone_asynchronous_worker_is_as_one_machine():
    """With two pushes of a key in each step, and a schedule and a multiplier that change."""
    kv = mx.kv.create("dist_async")
    if kv.num_workers > 1:
        return
    optimizer = mx.optimizer.SGD(lr_scheduler=lambda num_update: float(num_update))
    kv.set_optimizer(optimizer)
    ones = {"a": mx.nd.ones(3), "b": mx.nd.ones(600_000)}
    weights = [array * 0 for array in ones.values()]
    kv.init(list(ones), [weight.copy() for weight in weights])
    for key in ("a", "b", "b", "a", "b", "a"):
        kv.push(key, ones[key])
        optimizer.lr_mult["b"] = optimizer.lr_mult.get("b", 1) * 10
    kv.pull(list(ones), out=weights)
    same(weights[0], -(1 + 2 + 3))
    same(weights[1], -(1 * 10 + 2 * 100 + 3 * 10_000))


def case_a_resumed_asynchronous_store_goes_on_with_its_schedule():
    """By rank 0's own pushes, while Adam corrects by those of all."""
    kv = mx.kv.create("dist_async")
    schedule = mx.lr_scheduler.FactorScheduler(step=4, factor=0.5, base_lr=1.0)
    kv.set_optimizer(mx.optimizer.Adam(learning_rate=1.0, lr_scheduler=schedule))
    kv.init("a", mx.nd.zeros(2))
    before, after = mx.nd.zeros(2), mx.nd.zeros(2)
    for _ in range(4):
        kv.pushpull("a", mx.nd.ones(2), out=before)
    before.wait_to_read()
    kv.barrier()
    with tempfile.TemporaryDirectory() as folder:
        kv.save_optimizer_states(f"{folder}/states", dump_optimizer=True)
        kv.load_optimizer_states(f"{folder}/states")
    resumed = kv._optimizer
    assert (resumed.num_update, resumed.learning_rate) == (4, 1.0)
    kv.pull("a", out=before)
    before.wait_to_read()
    kv.barrier()
    kv.pushpull("a", mx.nd.ones(2), out=after)
    after.wait_to_read()
    kv.barrier()
    kv.pull("a", out=after)
    assert np.allclose((after - before).asnumpy(), -0.5 * kv.num_workers, atol=1e-3)


def case_a_changed_rate_reaches_what_a_bucket_has():
    """The key that was pushed first is in some buckets only."""

    def network(bucket):
        net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2, name="shared")
        if bucket == 1:
            net = mx.sym.FullyConnected(net, num_hidden=2, name="a_first")
        label = mx.sym.Variable("softmax_label")
        return mx.sym.LinearRegressionOutput(net, label, name="softmax"), ["data"], [label.name]

    def train(kvstore, size):
        module = mx.mod.BucketingModule(network, default_bucket_key=1)
        shapes = {"provide_data": [("data", (4, 3))], "provide_label": [("softmax_label", (4, 2))]}
        module.bind(*shapes.values())
        module.init_params(mx.init.One())
        optimizer = mx.optimizer.SGD(learning_rate=0.01, momentum=0.5, rescale_grad=1 / 4 / size)
        module.init_optimizer(kvstore, optimizer)
        data, label = [mx.nd.ones((4, 3)) / 10], [mx.nd.ones((4, 2))]
        for step, bucket in enumerate([1, 2, 2, 1, 2, 1]):
            if step == 2:
                optimizer.set_learning_rate(0.1)
            if step == 4:
                optimizer.rescale_grad, optimizer.wd = 1 / 8 / size, 0.1
            module.forward(mx.io.DataBatch(data, label, bucket_key=bucket, **shapes))
            module.backward()
            module.update()
        return module.get_params()[0]

    weights, expected = train("dist_sync", mx.kv.create("dist").num_workers), train("local", 1)
    for name, weight in expected.items():
        np.testing.assert_allclose(weights[name].asnumpy(), weight.asnumpy(), rtol=1e-5)


def dense(number, kvstore="dist_sync", **options):
    """Nets of one weight, 1, whose gradient is 1 on every worker, and a trainer for all."""
    nets = [gluon.nn.Dense(1, in_units=1, use_bias=False) for _ in range(number)]
    for net in nets:
        net.initialize(mx.init.One())
    parameters = [net.weight for net in nets]
    optimizer = options.pop("optimizer", "sgd")
    trainer = gluon.Trainer(parameters, optimizer, options or None, kvstore=kvstore)
    size = mx.kv.create("dist").num_workers

    def step(*used, batch_size=size):
        """Train by these nets."""
        with autograd.record():
            loss = sum(nets[one](mx.nd.ones((1, 1))).sum() for one in used)
        loss.backward()
        trainer.step(batch_size, ignore_stale_grad=True)
        return [net.weight.data().asnumpy().item() for net in nets]

    return nets, trainer, step, size


def case_a_change_needs_no_key_in_particular():
    """Fine-tuning: what is frozen, and perhaps thawed later, is pushed by nobody meanwhile."""
    nets, trainer, step, size = dense(3, learning_rate=0.5)
    assert step(0, 1, 2) == [0.5, 0.5, 0.5]
    nets[0].weight.grad_req = "null"
    trainer.set_learning_rate(0.25)
    assert step(1, 2) == [0.5, 0.25, 0.25]
    nets[1].weight.lr_mult = 2
    assert step(1, 2, batch_size=2 * size) == [0.5, 0, 0.125]
    nets[0].weight.grad_req = "write"
    trainer.set_learning_rate(1)
    assert step(0, 1, 2) == [-0.5, -2, -0.875]


def case_a_schedule_is_in_force_as_the_script_reads_it():
    """Another schedule, or another base rate of one, too; and for a key that is new to it."""
    schedule = mx.lr_scheduler.FactorScheduler(step=2, factor=0.5, base_lr=1)
    nets, trainer, step, _ = dense(2, optimizer=mx.optimizer.SGD(lr_scheduler=schedule))
    nets[1].weight.grad_req = "null"
    expected, other = 1.0, 1.0
    for rate in (1, 1, 0.5, 0.5, 0.25):
        expected -= rate
        assert step(0) == [expected, other]
        assert trainer.learning_rate == rate
    nets[1].weight.grad_req = "write"
    schedule.base_lr = 2.0
    assert step(0, 1) == [expected - 2, other - 2] and trainer.learning_rate == 2
    trainer.optimizer.lr_scheduler = lambda num_update: num_update / 4
    assert step(0, 1) == [expected - 3.75, other - 3.75] and trainer.learning_rate == 1.75
    trainer.optimizer.lr_scheduler = None
    trainer.set_learning_rate(0.5)
    assert step(0, 1) == [expected - 4.25, other - 4.25]


def case_rounds_without_a_worker_count_for_its_schedule():
    factor = mx.lr_scheduler.FactorScheduler(step=2, factor=0.5, base_lr=1)
    _, trainer, step, size = dense(1, optimizer=mx.optimizer.SGD(lr_scheduler=factor))
    rank = mx.kv.create("dist").rank
    for epoch in range(2):
        for _ in range(rank + 1):
            step(0)
        trainer._kvstore.join()
        assert trainer.optimizer.num_update == (epoch + 1) * size
    assert trainer.learning_rate == 0.5 ** ((2 * size - 1) // 2)


def case_another_optimizer_takes_over_with_the_next_step():
    _, trainer, step, _ = dense(1, learning_rate=0.5)
    assert step(0) == [0.5]
    trainer._optimizer = mx.optimizer.SGD(learning_rate=2.0)
    assert step(0) == [-1.5]
    trainer.set_learning_rate(1.0)
    assert step(0) == [-2.5]


def case_setting_a_parameter_leaves_counts_and_states_as_they_are():
    """As on one machine, where a script would write the clipped weights of a GAN so."""

    def optimizers():
        factor = mx.lr_scheduler.FactorScheduler(step=2, factor=0.5, base_lr=0.5)
        yield lambda: mx.optimizer.SGD(momentum=0.5, lr_scheduler=factor)
        yield lambda: mx.optimizer.Adam(learning_rate=0.1)
        yield lambda: mx.optimizer.Nadam(learning_rate=0.1)
        yield lambda: mx.optimizer.LAMB(learning_rate=0.1)

    for make in optimizers():
        weights = []
        for kvstore in ("dist_sync", None):  # None: on one machine
            nets, trainer, step, size = dense(1, kvstore, optimizer=copy.deepcopy(make()))
            values = []
            for number in range(6):
                values += step(0, batch_size=size if kvstore else 1)
                if number in (2, 3):
                    nets[0].weight.set_data(mx.nd.array([[values[-1] / 2]]))
            weights.append(values)
            assert trainer.optimizer.num_update == 6
        np.testing.assert_allclose(*weights, rtol=1e-6)


def case_threads_may_share_a_store():
    kv = mx.kv.create("dist_sync")
    kv.init(0, mx.nd.zeros((50,)))

    def push():
        for _ in range(50):
            kv.push(0, mx.nd.ones((50,)))

    threads = [threading.Thread(target=push) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    out = mx.nd.zeros((50,))
    kv.pull(0, out=out)
    same(out, kv.num_workers)


def case_optimizer_set_after_pushes_leaves_them_alone():
    kv = mx.kv.create("dist_sync")
    kv.init("w", mx.nd.zeros((4,)))
    kv.push("w", mx.nd.full((4,), 50))
    kv.set_optimizer(mx.optimizer.SGD(learning_rate=1.0))
    out = mx.nd.zeros((4,))
    kv.pushpull("w", mx.nd.ones((4,)), out=out)
    same(out, 50 * kv.num_workers - kv.num_workers)


def case_half_precision_with_a_master_copy():
    """1024 + 1/8 is not a half-precision number, and 64 of these steps are 8: only the fp32
    master copy adds them up."""
    kv = mx.kv.create("dist_sync")
    kv.set_optimizer(mx.optimizer.SGD(learning_rate=1.0, multi_precision=True))
    kv.init("w", mx.nd.full((4,), 1024, dtype="float16"))
    out = mx.nd.zeros((4,), dtype="float16")
    step = mx.nd.full((4,), 0.125 / kv.num_workers, dtype="float16")
    for _ in range(64):
        kv.pushpull("w", step, out=out)
    same(out, 1016)


def case_gluon_multipliers_reach_the_servers():
    net = gluon.nn.Dense(2, in_units=3)
    net.initialize(mx.init.One())
    net.weight.lr_mult = 0.5
    net.bias.lr_mult = 0.0
    trainer = gluon.Trainer(
        net.collect_params(), "sgd", {"learning_rate": 1.0}, kvstore="dist_sync"
    )
    with autograd.record():
        loss = net(mx.nd.ones((1, 3))).sum()
    loss.backward()
    trainer.step(
        trainer._kvstore.num_workers if trainer._kvstore else mx.kv.create("dist").num_workers
    )
    same(net.weight.data(), 0.5)
    same(net.bias.data(), 0)


def case_two_trainers_with_keys_of_their_own():
    nets = [gluon.nn.Dense(1, in_units=n) for n in (2, 5)]
    size = mx.kv.create("dist").num_workers
    trainers = []
    for net in nets:
        net.initialize(mx.init.One())
        trainers.append(
            gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 1.0}, "dist_sync")
        )
    for _ in range(2):
        for net, trainer in zip(nets, trainers):
            with autograd.record():
                loss = net(mx.nd.ones((1, net.weight.shape[1]))).sum()
            loss.backward()
            trainer.step(size)
    for net in nets:
        same(net.weight.data(), -1)


def case_parameters_that_appear_later():
    """Deferred initialisation: the second layer's shape is known after the first forward."""
    net = gluon.nn.HybridSequential()
    net.add(gluon.nn.Conv2D(4, 3), gluon.nn.Dense(2))
    net.initialize(mx.init.One())
    net.hybridize()
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.0}, "dist_sync")
    for _ in range(2):
        with autograd.record():
            loss = net(mx.nd.ones((2, 1, 5, 5))).sum()
        loss.backward()
        trainer.step(1)
    same(net[1].weight.data(), 1)


def case_stale_gradients_may_be_ignored():
    """A step in which some parameters have no new gradient completes for the others."""
    used, unused = gluon.nn.Dense(1, in_units=2), gluon.nn.Dense(1, in_units=2)
    parameters = {**used.collect_params(), **unused.collect_params()}
    for net in (used, unused):
        net.initialize(mx.init.One())
    trainer = gluon.Trainer(
        list(parameters.values()), "sgd", {"learning_rate": 1.0}, "dist_sync",
        update_on_kvstore=False,
    )  # fmt: skip
    size = mx.kv.create("dist").num_workers
    with autograd.record():
        loss = used(mx.nd.ones((1, 2))).sum()
    loss.backward()
    trainer.step(size, ignore_stale_grad=True)
    same(used.weight.data(), 0)
    same(unused.weight.data(), 1)


def case_errors_are_named_on_the_worker_that_made_them():
    kv = mx.kv.create("dist_sync")
    kv.init("known", mx.nd.zeros((2, 3)))
    out = mx.nd.zeros((2, 3))
    raises("key 'unknown' has not been initialised", kv.push, "unknown", out)
    raises("key 'unknown' has not been initialised", kv.pull, "unknown", out=out)
    raises("key 'known' is initialised already", kv.init, "known", out)
    raises("float32(2, 3), but the array given is float32(3, 2)", kv.push, "known", out.T)
    raises("array given is float64(2, 3)", kv.push, "known", out.astype("float64"))
    raises("array given is float32(1, 3)", kv.pull, "known", out=out[:1])
    raises("2 keys need as many values, not 1", kv.push, ["known", "known"], [out])
    raises("a key is an int or a string", kv.push, 1.5, out)
    raises("a key is an int or a string", kv.init, None, out)
    raises("not an NDArray", kv.push, "known", np.zeros((2, 3)))
    raises("pull needs the arrays", kv.pull, "known")
    raises("comes with no array", kv.push, "known", [])
    raises("comes with a csr array", kv.init, "sparse", mx.nd.zeros((2, 3)).tostype("csr"))
    raises("'dist_maybe' is not served", mx.kv.create, "dist_maybe")
    kv.pushpull("known", mx.nd.ones((2, 3)), out=out)  # and the store goes on
    same(out, kv.num_workers)


def case_a_script_catches_an_error_as_mxnets_or_as_ours():
    kv = mx.kv.create("dist_sync")
    for caught in (mx.MXNetError, UsageError):
        for call in (
            lambda: kv.pull("unknown", out=mx.nd.ones(1)),
            lambda: kv.broadcast_object(1, root=-1),
        ):
            try:
                call()
            except caught as error:
                assert type(error).__name__ == "UsageError", error
            else:
                raise AssertionError("nothing was raised")


def case_stores_come_and_go():
    for _ in range(20):
        kv = mx.kv.create("dist_sync")
        kv.init(0, mx.nd.ones((1,)))
        del kv
    gc.collect()


def case_barriers():
    kv, other = mx.kv.create("dist_sync"), mx.kv.create("dist_sync")
    for _ in range(3):
        kv._barrier()
        other._barrier()


def case_numpy_interface_arrays():
    kv = mx.kv.create("dist_sync")
    kv.init(0, mx.np.zeros((2, 2)))
    out = mx.np.zeros((2, 2))
    kv.pushpull(0, mx.np.ones((2, 2)), out=out)
    same(out, kv.num_workers)


run_cases(globals())
