"""Module.fit and gluon's Estimator.fit, against the same without a store on all workers' data."""

from typing import Any, List, Sequence

import mxnet as mx
import numpy as np
from mxnet import gluon

from tests.differential.case import Answer, Job, case

BATCH = 4
BATCHES = 3


def data_of(ranks: Sequence[int]) -> Any:
    """Inputs and labels, batch by batch: each batch has ``ranks``' samples one after the other."""
    inputs, labels = [], []
    for batch in range(BATCHES):
        for rank in ranks:
            places = np.arange(BATCH * 3).reshape(BATCH, 3)
            inputs.append(np.sin(places + 5 * batch + 11 * rank))
            labels.append((np.arange(BATCH) + batch + rank) % 2)
    return np.concatenate(inputs).astype("float32"), np.concatenate(labels).astype("float32")


def symbol() -> Any:
    data = mx.sym.Variable("data")
    hidden = mx.sym.Activation(mx.sym.FullyConnected(data, num_hidden=5, name="f1"), "tanh")
    return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(hidden, num_hidden=2, name="f2"), name="out")


def weights() -> Any:
    shapes = {"f1_weight": (5, 3), "f1_bias": (5,), "f2_weight": (2, 5), "f2_bias": (2,)}
    return {
        name: mx.nd.array(np.cos(np.arange(np.prod(shape))).reshape(shape))
        for name, shape in shapes.items()
    }


def fitted(kvstore: Any, ranks: Sequence[int], **arguments: Any) -> List[Any]:
    inputs, labels = data_of(ranks)
    samples = mx.io.NDArrayIter(inputs, labels, BATCH * len(ranks), label_name="out_label")
    module = mx.mod.Module(symbol(), label_names=["out_label"], context=mx.cpu())
    module.fit(
        samples,
        kvstore=kvstore,
        arg_params=weights(),
        num_epoch=2,
        **{
            "optimizer": "sgd",
            "optimizer_params": {"learning_rate": 0.5, "momentum": 0.9},
            **arguments,
        },
    )
    found, _ = module.get_params()
    return [found[name] for name in sorted(found)]


def compared(job: Job, kvstore: Any, **arguments: Any) -> Answer:
    if isinstance(kvstore, str):  # no rank before it exists: the same data on all workers
        own: Sequence[int] = [0]
        everyone: Sequence[int] = [0] * job.num_workers
    else:
        own, everyone = [kvstore.rank], range(job.num_workers)
    return Answer(fitted(kvstore, own, **arguments), fitted(None, everyone, **arguments))


@case()
def case_module_fit_by_name(job: Job) -> Answer:
    """`Module.fit(kvstore='dist_sync')`, SGD with momentum"""
    return compared(job, "dist_sync")


@case()
def case_module_fit(job: Job) -> Answer:
    """`Module.fit(kvstore=kv)`, other data on each worker"""
    return compared(job, job.kv())


@case()
def case_module_fit_adam(job: Job) -> Answer:
    """`Module.fit(kvstore=kv, optimizer='adam')`"""
    return compared(
        job, job.kv(), optimizer="adam", optimizer_params={"learning_rate": 0.1}
    )  # fmt: skip


@case()
def case_module_states(job: Job) -> Answer:
    """`Module.save_optimizer_states` after `fit(kvstore='dist_sync')`"""
    inputs, labels = data_of([0])
    samples = mx.io.NDArrayIter(inputs, labels, BATCH, label_name="out_label")
    module = mx.mod.Module(symbol(), label_names=["out_label"], context=mx.cpu())
    module.fit(
        samples,
        kvstore="dist_sync",
        arg_params=weights(),
        num_epoch=1,
        optimizer_params={"learning_rate": 0.5, "momentum": 0.9},
    )
    file = job.file("module")
    module.save_optimizer_states(file)
    module.load_optimizer_states(file)
    return Answer("saved and loaded", "saved and loaded")


@case()
def case_estimator_fit(job: Job) -> Answer:
    """`gluon.contrib.estimator.Estimator.fit`, Trainer with `kvstore=kv`"""

    def fit(kvstore: Any, ranks: Sequence[int]) -> List[Any]:
        inputs, labels = data_of(ranks)
        samples = gluon.data.DataLoader(
            gluon.data.ArrayDataset(inputs, labels), batch_size=BATCH * len(ranks)
        )
        net = gluon.nn.HybridSequential()
        net.add(gluon.nn.Dense(5, in_units=3, activation="tanh"), gluon.nn.Dense(2, in_units=5))
        net.initialize(mx.init.Constant(0.1))
        net[0].weight.set_data(weights()["f1_weight"])
        # Estimator calls trainer.step with its batch's size, so the rate is for a worker's batch.
        rate = 0.5 * len(ranks)
        trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": rate}, kvstore)
        estimator = gluon.contrib.estimator.Estimator(
            net,
            gluon.loss.SoftmaxCrossEntropyLoss(),
            train_metrics=mx.metric.Accuracy(),
            trainer=trainer,
            context=mx.cpu(),
        )
        estimator.fit(samples, epochs=2)
        mx.nd.waitall()
        return [parameter.data() for parameter in net.collect_params().values()]

    kv = job.kv()
    return Answer(fit(kv, [kv.rank]), fit(None, range(job.num_workers)))
