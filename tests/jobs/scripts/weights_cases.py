"""All workers have the same weights, also where each updates its own; see cases.py."""

import os
from unittest import mock

import mxnet as mx
import numpy as np
from cases import raises, run_cases
from mxnet import gluon

BATCH = 4
kv = mx.kv.create("dist_sync")


def all_same(values):
    """Whether all workers have these arrays, given by name."""
    mine = {name: value.asnumpy() for name, value in sorted(values.items())}
    for theirs in kv.allgather(mine):
        for name, array in mine.items():
            np.testing.assert_array_equal(array, theirs[name], err_msg=name)


def samples():
    """Of this worker's own."""
    random = np.random.RandomState(kv.rank)
    return mx.nd.array(random.rand(2 * BATCH, 3) + kv.rank), mx.nd.array([0, 1] * BATCH)


def module(has_batch_norm=True):
    """A module that has other weights on each worker."""
    mx.random.seed(kv.rank)
    data = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=5, name="f1")
    data = mx.sym.BatchNorm(data, name="bn") if has_batch_norm else data
    data = mx.sym.FullyConnected(data, num_hidden=2, name="f2")
    built = mx.mod.Module(mx.sym.SoftmaxOutput(data, name="out"), label_names=["out_label"])
    built.bind([("data", (BATCH, 3))], [("out_label", (BATCH,))])
    built.init_params(mx.init.Normal())
    return built


def batches():
    return mx.io.NDArrayIter(*samples(), BATCH, label_name="out_label")


def case_a_module_begins_with_rank_0s_values_wherever_updates_are():
    for where in ("0", "1"):
        with mock.patch.dict(os.environ, MXNET_UPDATE_ON_KVSTORE=where):
            trained = module()
            first = kv.broadcast_object(trained.get_params()[0]["f1_weight"].asnumpy())
            trained.init_optimizer(kvstore="dist_sync", optimizer_params={"learning_rate": 0.5})
            weight = trained._exec_group.param_arrays[0][0]
            np.testing.assert_array_equal(weight.asnumpy(), first)
            trained.fit(batches(), num_epoch=2, kvstore="dist_sync")
            assert trained._update_on_kvstore == (where == "1")
            all_same(trained.get_params()[0])


def case_running_statistics_of_a_module_become_the_mean():
    trained = module()
    trained.fit(batches(), num_epoch=1, kvstore="dist_sync")
    has_mean_of_all(trained, lambda: trained.get_params()[1])
    weights = trained.get_params()[0]
    kv.sync_aux(trained)
    all_same(weights)


def has_mean_of_all(net, statistics):
    before = [value.asnumpy() for _, value in sorted(statistics().items())]
    assert len(before) == 2
    given = kv.allgather(before)
    assert not np.array_equal(given[0][0], given[1][0])
    kv.sync_aux(net)
    for number, (_, value) in enumerate(sorted(statistics().items())):
        np.testing.assert_allclose(
            value.asnumpy(), np.mean([one[number] for one in given], axis=0), rtol=1e-6
        )
    all_same(statistics())


def network():
    mx.random.seed(kv.rank)
    net = gluon.nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(gluon.nn.Dense(5), gluon.nn.BatchNorm(), gluon.nn.Dense(2))
    net.initialize()
    return net


def train(net, trainer, steps, batch_size=BATCH, branch=None):
    data, label = samples()
    for _ in range(steps):
        with mx.autograd.record():
            out = net(data) if branch is None else branch(data)
            loss = gluon.loss.SoftmaxCrossEntropyLoss()(out, label)
        loss.backward()
        trainer.step(batch_size, ignore_stale_grad=branch is not None)


def case_running_statistics_of_a_network_become_the_mean_and_training_goes_on():
    for on_kvstore in (True, False):
        net = network()
        trainer = gluon.Trainer(
            net.collect_params(), "sgd", kvstore="dist_sync", update_on_kvstore=on_kvstore
        )
        train(net, trainer, 3)
        store = trainer._kvstore
        has_mean_of_all(
            net,
            lambda net=net: {
                name: parameter.data()
                for name, parameter in net.collect_params().items()
                if "running" in name
            },
        )
        train(net, trainer, 2)
        assert trainer._kvstore is store
    kv.sync_aux(gluon.nn.Dense(2))  # has none
    raises("needs a Gluon block or a Module, not a int", kv.sync_aux, 3)


def on_workers(net):
    return gluon.Trainer(net.collect_params(), "sgd", kvstore="dist_sync", update_on_kvstore=False)


def case_workers_that_scale_steps_in_another_way_are_named():
    net = network()
    text = "net_batchnorm0_beta of worker 1 is"
    raises(text, train, net, on_workers(net), 5, batch_size=BATCH * (1 + kv.rank))


def case_workers_with_stale_gradients_of_their_own_are_named():
    shared, branches = gluon.nn.Dense(4, in_units=3), [gluon.nn.Dense(2, in_units=4) for _ in "ab"]
    net = gluon.nn.Sequential(prefix="branched_")
    net.add(shared, *branches)
    net.initialize()
    trainer = on_workers(net)
    chosen = branches[kv.rank % 2]
    name = branches[0].bias.name
    raises(
        f"{name} of worker 1 is",
        train, net, trainer, 5, branch=lambda data: chosen(shared(data)),
    )  # fmt: skip


def case_weights_that_are_set_on_one_worker_are_named():
    net = network()
    trainer = on_workers(net)
    train(net, trainer, 5)
    if kv.rank == 1:
        net[2].weight.set_data(net[2].weight.data() * 1.01)
    text = (
        f"after 8 steps, workers no longer have the same weights: {net[2].weight.name} of worker 1"
    )
    raises(text, train, net, trainer, 10)


def case_noise_of_each_workers_own_is_no_drift():
    net = network()
    trainer = gluon.Trainer(
        net.collect_params(), "sgld", kvstore="dist_sync", update_on_kvstore=False
    )
    mx.random.seed(kv.rank)
    train(net, trainer, 3)


def case_a_module_that_has_drifted_apart_is_named():
    with mock.patch.dict(os.environ, MXNET_UPDATE_ON_KVSTORE="0"):
        raises(
            "f1_weight of worker 1 is",
            module().fit, batches(), num_epoch=4, kvstore="dist_sync",
            optimizer_params={"learning_rate": 0.1, "rescale_grad": 0.1 * (1 + kv.rank)},
        )  # fmt: skip


if __name__ == "__main__":
    run_cases(globals())
