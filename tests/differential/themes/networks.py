"""gluon.Trainer with nets of several kinds, sparse embeddings among them."""

from typing import Any, Callable, Sequence

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon

from tests.differential.case import Answer, Job, case

from .training import BATCH, Plan, compared, train


@case()
def case_trainer_deferred(job: Job) -> Answer:
    """Shapes that are known after the first forward pass; hybridized"""

    def make_net() -> Any:
        net = gluon.nn.HybridSequential()
        net.add(gluon.nn.Dense(5, activation="tanh"), gluon.nn.Dense(2))
        net.hybridize()
        return net

    return compared(job, Plan(make_net=make_net))


@case()
def case_trainer_convolution(job: Job) -> Answer:
    """Convolution, batch normalisation without statistics of the batch, pooling, Dense"""

    def make_net() -> Any:
        net = gluon.nn.HybridSequential()
        net.add(
            gluon.nn.Conv2D(16, 3, in_channels=1, activation="relu"),
            gluon.nn.BatchNorm(in_channels=16, use_global_stats=True),
            gluon.nn.MaxPool2D(),
            gluon.nn.Dense(3, in_units=16 * 9),
        )
        return net

    def data(step: int, rank: int) -> np.ndarray:
        places = np.arange(BATCH * 64).reshape(BATCH, 1, 8, 8)
        return np.sin(places + 5 * step + 11 * rank)

    parameters = {"learning_rate": 0.01, "momentum": 0.9}
    return compared(job, Plan(make_net=make_net, data=data, parameters=parameters))


@case()
def case_trainer_grad_add(job: Job) -> Answer:
    """`grad_req='add'`, gradients set to zero every other step"""

    def prepare(net: Any) -> None:
        net.collect_params().setattr("grad_req", "add")

    def before(step: int, trainer: Any, net: Any) -> None:
        if step % 2 == 0:
            net.collect_params().zero_grad()

    return compared(job, Plan(prepare=prepare, before=before))


@case()
def case_trainer_frozen(job: Job) -> Answer:
    """A layer with `grad_req='null'`"""

    def prepare(net: Any) -> None:
        net[0].collect_params().setattr("grad_req", "null")

    return compared(job, Plan(prepare=prepare))


def embedding(sparse_weight: bool) -> Callable[[], Any]:
    def make_net() -> Any:
        net = gluon.nn.HybridSequential()
        net.add(gluon.nn.Embedding(20, 3, sparse_grad=True), gluon.nn.Dense(2, in_units=15))
        return net

    def make_sparse_net() -> Any:
        net = gluon.nn.Sequential()
        net.add(gluon.contrib.nn.SparseEmbedding(20, 3), gluon.nn.Dense(2, in_units=15))
        return net

    return make_sparse_net if sparse_weight else make_net


def words(step: int, rank: int) -> np.ndarray:
    """(BATCH, 5) numbers of words, other ones on each worker, some twice."""
    return (np.arange(BATCH * 5).reshape(BATCH, 5) * (3 + rank) + step) % 17


@case()
def case_trainer_sparse_gradients(job: Job) -> Answer:
    """`Embedding(sparse_grad=True)`: dense weight, row_sparse gradients"""
    plan = Plan(make_net=embedding(False), data=words, parameters={"learning_rate": 0.5})
    return compared(job, plan)


@case()
def case_trainer_sparse_gradients_devices(job: Job) -> Answer:
    """`Embedding(sparse_grad=True)`, Adam, two devices"""
    plan = Plan(make_net=embedding(False), data=words, devices=2)
    return compared(job, plan._replace(optimizer="adam", parameters={"learning_rate": 0.1}))


@case()
def case_trainer_sparse_gradients_on_workers(job: Job) -> Answer:
    """`Embedding(sparse_grad=True)`, `update_on_kvstore=False`: ValueError"""
    plan = Plan(
        make_net=embedding(False), data=words, arguments={"update_on_kvstore": False}, steps=1
    )
    kv = job.kv()
    try:
        train(plan, kv, [kv.rank], job.num_workers, 1)
    except ValueError:
        return Answer("ValueError", "ValueError")
    return Answer("accepted", "ValueError")


def embedded(make_net: Callable[[], Any], kvstore: Any, ranks: Sequence[int], size: int) -> Any:
    """The net after two steps. Pulling rows begins the Trainer's store before its first step, and
    then it takes no other batch size than 1; so the learning rate has it."""
    net = make_net()
    net.initialize(mx.init.Constant(0.5))
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 1 / size}, kvstore)
    for step in range(2):
        batch = np.concatenate([words(step, rank) for rank in ranks])
        with autograd.record():
            loss = (net(mx.nd.array(batch)) ** 2).sum()
        loss.backward()
        trainer.step(1)
    return net


@case()
def case_trainer_sparse_weight(job: Job) -> Answer:
    """`contrib.nn.SparseEmbedding`: row_sparse weight, rows are pulled before each step"""
    kv, size = job.kv(), BATCH * job.num_workers
    net = embedded(embedding(True), kv, [kv.rank], size)
    local = embedded(embedding(False), None, range(job.num_workers), size)
    rows = net[0].weight.row_sparse_data(mx.nd.arange(20, dtype="int64"))
    return Answer(
        [rows.tostype("default"), net[1].weight.data()],
        [local[0].weight.data(), local[1].weight.data()],
    )
