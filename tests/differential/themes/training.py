"""A small training on a store, and the same without one on all workers' data."""

from typing import Any, Callable, List, NamedTuple, Optional, Sequence

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon

from tests.differential.case import Answer, Job

BATCH = 4  # samples of each worker in each step
STEPS = 4


def dense() -> Any:
    net = gluon.nn.HybridSequential()
    net.add(gluon.nn.Dense(5, in_units=3, activation="tanh"), gluon.nn.Dense(2, in_units=5))
    return net


def data_of(step: int, rank: int) -> np.ndarray:
    """A batch of (BATCH, 3)."""
    places = np.arange(BATCH * 3).reshape(BATCH, 3)
    return np.sin(places + 5 * step + 11 * rank).astype("float32")


class Plan(NamedTuple):
    """A small training, which `train` does on a store or without one."""

    make_net: Callable[[], Any] = dense
    data: Callable[[int, int], np.ndarray] = data_of
    optimizer: Any = "sgd"  # or a function that makes one
    parameters: Any = {"learning_rate": 0.5, "momentum": 0.9}  # noqa: RUF012
    arguments: Any = {}  # noqa: RUF012 - of Trainer
    devices: int = 1
    prepare: Optional[Callable[[Any], None]] = None  # the net, initialised
    before: Optional[Callable[[int, Any, Any], None]] = None  # step, Trainer, net
    step: Callable[[Any, int, int], None] = lambda trainer, size, step: trainer.step(size)
    steps: int = STEPS


def train(plan: Plan, kvstore: Any, ranks: Sequence[int], workers: int, devices: int) -> List[Any]:
    """The weights after training with the data of ``ranks`` on this worker."""
    mx.random.seed(7)
    contexts = [mx.cpu(device) for device in range(devices)]
    net = plan.make_net()
    net.initialize(mx.init.Xavier(), ctx=contexts)
    if plan.prepare:
        plan.prepare(net)
    optimizer = plan.optimizer if isinstance(plan.optimizer, str) else plan.optimizer()
    parameters = plan.parameters if isinstance(plan.optimizer, str) else None
    arguments = plan.arguments if kvstore is not None else {}
    trainer = gluon.Trainer(
        net.collect_params(), optimizer, parameters, kvstore=kvstore, **arguments
    )  # fmt: skip
    for step in range(plan.steps):
        if plan.before:
            plan.before(step, trainer, net)
        batch = np.concatenate([plan.data(step, rank) for rank in ranks])
        parts = gluon.utils.split_and_load(mx.nd.array(batch), contexts)
        with autograd.record():
            losses = [(net(part) ** 2).sum() for part in parts]
        autograd.backward(losses)
        plan.step(trainer, BATCH * workers, step)
    mx.nd.waitall()
    return [parameter.data(contexts[-1]) for parameter in net.collect_params().values()]


def compared(job: Job, plan: Plan, kvstore: Any = None) -> Answer:
    """``kvstore`` by name has no rank before it exists; so all workers have the same data then."""
    everyone = range(job.num_workers)
    if isinstance(kvstore, str):
        got = train(plan, kvstore, [0], job.num_workers, plan.devices)
        return Answer(got, train(plan, None, [0] * job.num_workers, job.num_workers, 1))
    kv = job.kv()
    got = train(plan, kv, [kv.rank], job.num_workers, plan.devices)
    return Answer(got, train(plan, None, everyone, job.num_workers, 1))
