"""Hyper-parameters: schedules, multipliers, changes while training, classes of the script."""

import sys
from typing import Any

import mxnet as mx

from tests.differential.case import Answer, Job, case

from .optimizers import create, gradient_of, start_of, trained

SHAPE = (4, 3)


@case("optimizers")
def case_rate_changed(job: Job) -> Answer:
    """`optimizer.set_learning_rate` between rounds, on the optimizer given to `set_optimizer`"""

    def change(optimizer: Any, key: int, step: int) -> None:
        optimizer.set_learning_rate(0.1 / (1 + step))

    return trained(job, lambda: create("sgd", learning_rate=0.1), change=change)


@case("optimizers")
def case_rescale_changed(job: Job) -> Answer:
    """`optimizer.rescale_grad` changed between rounds"""

    def change(optimizer: Any, key: int, step: int) -> None:
        optimizer.rescale_grad = 1 / (1 + step)

    return trained(job, lambda: create("sgd", learning_rate=0.1), change=change)


@case("optimizers")
def case_momentum_and_wd_changed(job: Job) -> Answer:
    """`optimizer.momentum` and `.wd` changed between rounds"""

    def change(optimizer: Any, key: int, step: int) -> None:
        optimizer.momentum, optimizer.wd = 0.9 - step / 10, step / 10

    return trained(job, lambda: create("sgd", learning_rate=0.1, momentum=0.9), change=change)


@case("optimizers")
def case_multipliers_changed(job: Job) -> Answer:
    """`optimizer.set_lr_mult`, `.set_wd_mult` between rounds"""

    def change(optimizer: Any, key: int, step: int) -> None:
        optimizer.set_lr_mult({key: step / 2})
        optimizer.set_wd_mult({key: step})

    return trained(job, lambda: create("sgd", learning_rate=0.1, wd=0.1), change=change)


def multiplied(key: Any) -> Any:
    optimizer = create("sgd", learning_rate=0.1, wd=0.1)
    optimizer.set_lr_mult({key: 0.5})
    optimizer.set_wd_mult({key: 3.0})
    return optimizer


@case("optimizers")
def case_multipliers_by_key(job: Job) -> Answer:
    """`set_lr_mult({k: 0.5})`, `set_wd_mult({k: 3})` before `set_optimizer`"""
    key = job.key()
    return trained(job, lambda: multiplied(key), key=key)


@case("strings")
def case_multipliers_by_string_key(job: Job) -> Answer:
    """The same with a string key"""
    key = job.names(1)[0]
    return trained(job, lambda: multiplied(key), key=key)


@case("optimizers")
def case_multipliers_by_name(job: Job) -> Answer:
    """`param_idx2name={k: 'a_bias'}` and `set_lr_mult({'a_bias': 0.5})`; no wd for a bias"""
    key = job.key()

    def make() -> Any:
        optimizer = create("sgd", learning_rate=0.1, wd=0.5, param_idx2name={key: "a_bias"})
        optimizer.set_lr_mult({"a_bias": 0.5})
        return optimizer

    return trained(job, make, key=key)


@case("optimizers")
def case_rescale(job: Job) -> Answer:
    """`rescale_grad=1/8`, `begin_num_update=10`"""
    return trained(
        job,
        lambda: create("adam", learning_rate=0.1, rescale_grad=0.125, begin_num_update=10),
    )


def scheduled(job: Job, make_scheduler: Any, rounds: int = 6) -> Answer:
    return trained(job, lambda: create("sgd", lr_scheduler=make_scheduler()), rounds=rounds)


@case("optimizers")
def case_scheduler_factor(job: Job) -> Answer:
    """`lr_scheduler=FactorScheduler`"""
    return scheduled(job, lambda: mx.lr_scheduler.FactorScheduler(2, 0.5, base_lr=0.1))


@case("optimizers")
def case_scheduler_multi_factor(job: Job) -> Answer:
    """`lr_scheduler=MultiFactorScheduler`"""
    return scheduled(job, lambda: mx.lr_scheduler.MultiFactorScheduler([2, 4], 0.5, base_lr=0.1))


@case("optimizers")
def case_scheduler_poly(job: Job) -> Answer:
    """`lr_scheduler=PolyScheduler` with warm-up"""
    return scheduled(
        job, lambda: mx.lr_scheduler.PolyScheduler(6, base_lr=0.1, warmup_steps=2)
    )  # fmt: skip


@case("optimizers")
def case_scheduler_cosine(job: Job) -> Answer:
    """`lr_scheduler=CosineScheduler`"""
    return scheduled(job, lambda: mx.lr_scheduler.CosineScheduler(6, base_lr=0.1))


@case("optimizers")
def case_scheduler_two_keys(job: Job) -> Answer:
    """`FactorScheduler`, two keys updated in each round, 6 rounds"""

    def make() -> Any:
        return create("sgd", lr_scheduler=mx.lr_scheduler.FactorScheduler(2, 0.5, base_lr=0.1))

    kv, keys = job.kv(make()), job.keys(2)
    weights = [mx.nd.array(start_of(SHAPE)) for _ in keys]
    kv.init(keys, weights)
    updater, rights = mx.optimizer.get_updater(make()), [mx.nd.array(start_of(SHAPE)) for _ in keys]
    for step in range(6):
        for key, weight, right in zip(keys, weights, rights):
            kv.pushpull(key, mx.nd.array(gradient_of(step, kv.rank, SHAPE)), out=weight)
            total = job.total(lambda rank: gradient_of(step, rank, SHAPE))  # noqa: B023
            updater(key, mx.nd.array(total), right)
        mx.nd.waitall()
    return Answer(weights, rights)


@case("optimizers")
def case_optimizer_set_after_pushes(job: Job) -> Answer:
    """`push` without an optimizer on it yet, then `set_optimizer`, then `push`"""
    key = job.key()
    kv = job.kv(create("test"))  # the store that cases share has some optimizer, w += g
    kv.init(key, mx.nd.zeros(SHAPE))
    weight = mx.nd.zeros(SHAPE)
    kv.pushpull(key, mx.nd.full(SHAPE, 50), out=weight)
    weight.wait_to_read()
    kv._barrier()
    kv.set_optimizer(create("sgd", learning_rate=1.0))
    kv._barrier()
    kv.pushpull(key, mx.nd.ones(SHAPE), out=weight)
    return Answer(weight, mx.nd.full(SHAPE, 49 * job.num_workers))


@case("optimizers")
def case_optimizer_set_again(job: Job) -> Answer:
    """`set_optimizer(SGD)`, two rounds, `set_optimizer(Adam)`, two rounds"""
    key = job.key()
    sgd, adam = (lambda: create("sgd", learning_rate=0.1)), (lambda: create("adam"))
    kv = job.kv(sgd())
    kv.init(key, mx.nd.array(start_of(SHAPE)))
    weight, right = mx.nd.zeros(SHAPE), mx.nd.array(start_of(SHAPE))
    for number, make in enumerate((sgd, adam)):
        if number:
            kv.set_optimizer(make())
            kv._barrier()
        updater = mx.optimizer.get_updater(make())
        for step in range(2):
            kv.pushpull(key, mx.nd.array(gradient_of(step, kv.rank, SHAPE)), out=weight)
            weight.wait_to_read()
            total = job.total(lambda rank: gradient_of(step, rank, SHAPE))  # noqa: B023
            updater(key, mx.nd.array(total), right)
        kv._barrier()
    return Answer(weight, right)


@case(refused=True)
def case_optimizer_that_is_none(job: Job) -> Answer:
    """`set_optimizer('sgd')`: a name instead of an optimizer"""
    return Answer(job.kv().set_optimizer("sgd"), "refused")


class HalfStep(mx.optimizer.Optimizer):
    """w -= lr * g / 2, with a count of updates as its state."""

    def create_state(self, index, weight):
        return mx.nd.zeros(weight.shape)

    def update(self, index, weight, grad, state):
        self._update_count(index)
        state += 1
        weight -= self._get_lr(index) * grad * self.rescale_grad / 2 / state


class EveryOther(mx.lr_scheduler.LRScheduler):
    def __call__(self, num_update):
        return self.base_lr * (num_update % 2)


def of_the_script(cls: type) -> type:
    """As if ``cls`` had been defined in the script itself, where no server finds it."""
    cls.__module__ = "__main__"
    setattr(sys.modules["__main__"], cls.__name__, cls)
    return cls


@case()
def case_optimizer_of_the_script(job: Job) -> Answer:
    """An Optimizer subclass that the script defines"""
    cls = of_the_script(HalfStep)
    return trained(job, lambda: cls(learning_rate=0.1))


@case()
def case_scheduler_of_the_script(job: Job) -> Answer:
    """An LRScheduler subclass that the script defines"""
    cls = of_the_script(EveryOther)
    return scheduled(job, lambda: cls(base_lr=0.1))


@case(refused=True, ends_job=True)
def case_optimizer_that_raises(job: Job) -> Answer:
    """An optimizer whose update raises on the server: the script is told"""
    kv, key = job.kv(create("groupadagrad", learning_rate=0.1, wd=1.0)), job.key()  # it refuses wd
    kv.init(key, mx.nd.ones(SHAPE))
    weight = mx.nd.zeros(SHAPE)
    kv.pushpull(key, mx.nd.ones(SHAPE), out=weight)
    weight.wait_to_read()
    return Answer(weight, "refused")
