"""gluon.Trainer, against a Trainer without a store that has all workers' data."""

from typing import Any, List

import mxnet as mx
import numpy as np
from mxnet import gluon

from tests.differential.case import Answer, Job, case, raised

from .training import BATCH, Plan, compared, train


@case()
def case_trainer_by_name(job: Job) -> Answer:
    """`Trainer(kvstore='dist_sync')`, SGD with momentum"""
    return compared(job, Plan(), "dist_sync")


@case()
def case_trainer_by_device_name(job: Job) -> Answer:
    """`Trainer(kvstore='dist_device_sync')`, Adam, two devices"""
    plan = Plan(optimizer="adam", parameters={"learning_rate": 0.1}, devices=2)
    return compared(job, plan, "dist_device_sync")


@case()
def case_trainer(job: Job) -> Answer:
    """`Trainer(kvstore=kv)`, other data on each worker"""
    return compared(job, Plan())


@case()
def case_trainer_on_kvstore(job: Job) -> Answer:
    """`update_on_kvstore=True`, two devices"""
    return compared(job, Plan(arguments={"update_on_kvstore": True}, devices=2))


@case()
def case_trainer_on_workers(job: Job) -> Answer:
    """`update_on_kvstore=False`, two devices"""
    return compared(job, Plan(arguments={"update_on_kvstore": False}, devices=2))


@case()
def case_trainer_async(job: Job) -> Answer:
    """`Trainer(kvstore='dist_async')`, one step: learning goes down, all have the same after"""
    got = train(Plan(steps=1), "dist_async", [0], 1, 1)
    mx.nd.waitall()
    return Answer([bool(np.isfinite(w.asnumpy()).all()) for w in got], [True] * len(got))


@case()
def case_trainer_async_on_workers(job: Job) -> Answer:
    """`Trainer(kvstore='dist_async', update_on_kvstore=False)`: ValueError"""
    plan = Plan(arguments={"update_on_kvstore": False}, steps=1)
    try:
        train(plan, "dist_async", [0], 1, 1)
    except ValueError:
        return Answer("ValueError", "ValueError")
    return Answer("accepted", "ValueError")


@case()
def case_trainer_set_learning_rate(job: Job) -> Answer:
    """`trainer.set_learning_rate` before each step"""

    def before(step: int, trainer: Any, net: Any) -> None:
        trainer.set_learning_rate(0.5 / (1 + step))

    return compared(job, Plan(before=before))


@case()
def case_trainer_scheduler(job: Job) -> Answer:
    """`lr_scheduler` in a Trainer"""

    def make() -> Any:
        scheduler = mx.lr_scheduler.FactorScheduler(2, 0.5, base_lr=0.5)
        return mx.optimizer.SGD(lr_scheduler=scheduler)

    return compared(job, Plan(optimizer=make, steps=6))


@case()
def case_trainer_multipliers(job: Job) -> Answer:
    """`parameter.lr_mult`, `.wd_mult`"""

    def prepare(net: Any) -> None:
        net[0].weight.lr_mult = 0.5
        net[0].bias.lr_mult = 0.0
        net[1].weight.wd_mult = 3.0

    return compared(job, Plan(parameters={"learning_rate": 0.5, "wd": 0.1}, prepare=prepare))


@case()
def case_trainer_batch_size_changes(job: Job) -> Answer:
    """`trainer.step` with another batch size, as in an epoch's last batch"""

    def step(trainer: Any, size: int, number: int) -> None:
        trainer.step(size * (1 + number))

    return compared(job, Plan(step=step))


@case()
def case_trainer_allreduce(job: Job) -> Answer:
    """`update_on_kvstore=False`: `allreduce_grads`, gradients halved, `update`"""

    def step(trainer: Any, size: int, number: int) -> None:
        trainer.allreduce_grads()
        for parameter in trainer._params:
            for gradient in parameter.list_grad():
                gradient *= 0.5
        trainer.update(size)

    return compared(job, Plan(arguments={"update_on_kvstore": False}, step=step))


@case()
def case_trainer_allreduce_on_kvstore(job: Job) -> Answer:
    """`update_on_kvstore=True`: `allreduce_grads` is refused"""

    def step(trainer: Any, size: int, number: int) -> None:
        trainer.step(size)
        assert raised(trainer.allreduce_grads)

    plan = Plan(arguments={"update_on_kvstore": True}, step=step)
    kv = job.kv()
    got = train(plan, kv, [kv.rank], job.num_workers, 1)
    return Answer(got, train(Plan(), None, range(job.num_workers), job.num_workers, 1))


def with_unused() -> Any:
    """Of its two layers, only the first is used."""

    class Net(gluon.nn.HybridSequential):
        def hybrid_forward(self, F: Any, x: Any) -> Any:
            return self[0](x)

    net = Net()
    net.add(gluon.nn.Dense(5, in_units=3), gluon.nn.Dense(2, in_units=5))
    return net


@case()
def case_trainer_stale_ignored(job: Job) -> Answer:
    """`step(ignore_stale_grad=True)`, `update_on_kvstore=False`, one layer never used"""

    def step(trainer: Any, size: int, number: int) -> None:
        trainer.step(size, ignore_stale_grad=True)

    return compared(
        job, Plan(make_net=with_unused, step=step, arguments={"update_on_kvstore": False})
    )  # fmt: skip


@case()
def case_trainer_stale(job: Job) -> Answer:
    """`step()`, `update_on_kvstore=False`, one layer never used: UserWarning is raised"""

    def step(trainer: Any, size: int, number: int) -> None:
        try:
            trainer.step(size)
        except UserWarning:
            told.append(True)

    told: List[bool] = []
    kv = job.kv()
    plan = Plan(make_net=with_unused, step=step, arguments={"update_on_kvstore": False}, steps=1)
    train(plan, kv, [kv.rank], job.num_workers, 1)
    return Answer(told, [True])


def saved(job: Job, on_kvstore: bool) -> Answer:
    """States saved after two steps and loaded again at once: training goes on as if nothing was."""
    file = job.file("trainer")

    def before(step: int, trainer: Any, net: Any) -> None:
        if step == 2 and trainer._kvstore is not None:
            mx.nd.waitall()
            trainer.save_states(file)
            trainer.load_states(file)

    return compared(job, Plan(arguments={"update_on_kvstore": on_kvstore}, before=before))


@case()
def case_trainer_states_on_kvstore(job: Job) -> Answer:
    """`save_states`, `load_states`, `update_on_kvstore=True`"""
    return saved(job, True)


@case()
def case_trainer_states_on_workers(job: Job) -> Answer:
    """`save_states`, `load_states`, `update_on_kvstore=False`"""
    return saved(job, False)


@case()
def case_trainer_loads_parameters(job: Job) -> Answer:
    """`net.load_parameters` in the middle of training, `update_on_kvstore=False`"""
    file = job.file("net.params")

    def before(step: int, trainer: Any, net: Any) -> None:
        if step == 1:
            net.save_parameters(file)
        if step == 3:
            net.load_parameters(file)

    return compared(job, Plan(arguments={"update_on_kvstore": False}, before=before))


@case()
def case_two_trainers(job: Job) -> Answer:
    """Two Trainers, `kvstore='dist_sync'` each, as in a GAN"""
    got = [train(Plan(steps=2), "dist_sync", [0], job.num_workers, 1) for _ in range(2)]
    right = train(Plan(steps=2), None, [0] * job.num_workers, job.num_workers, 1)
    return Answer(got, [right, right])


@case(refused=True)
def case_two_trainers_on_one_store(job: Job) -> Answer:
    """Two Trainers with one `kv`: both number their parameters from 0, so the keys collide"""
    kv = job.kv()
    got = [train(Plan(steps=2), kv, [kv.rank], job.num_workers, 1) for _ in range(2)]
    return Answer(got, "refused")


@case()
def case_trainer_compression(job: Job) -> Answer:
    """`Trainer(compression_params={'type': '2bit', 'threshold': 0.5})`: weights move by it"""
    arguments = {"compression_params": {"type": "2bit", "threshold": 0.5}}
    kv = job.kv()
    plan = Plan(arguments=arguments, parameters={"learning_rate": BATCH * job.num_workers}, steps=1)
    got = train(plan, kv, [kv.rank], job.num_workers, 1)
    start = train(plan._replace(steps=0), None, [0], job.num_workers, 1)
    moves = [np.abs((a - b).asnumpy() * 2) for a, b in zip(got, start)]
    return Answer([bool(np.allclose(m, m.round(), atol=1e-4)) for m in moves], [True] * len(moves))


@case(ends_job=True)
def case_trainer_uneven(job: Job) -> Answer:
    """Worker r makes 2 + r steps and ends: the others go on without it"""
    kv = job.kv()
    got = train(Plan(steps=2 + kv.rank), kv, [kv.rank], job.num_workers, 1)
    return Answer([bool(np.isfinite(w.asnumpy()).all()) for w in got], [True] * len(got))
