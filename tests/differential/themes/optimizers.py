"""set_optimizer with every optimizer of MXNet, against a local updater on the summed gradients."""

from typing import Any, Callable, Dict, Optional, Tuple

import mxnet as mx
import numpy as np

from tests.differential.case import RTOL, Answer, Job, case

ROUNDS = 4
BIG = (1100, 1001)  # natively, arrays of a million elements and more are split over the servers

create = mx.optimizer.create


def start_of(shape, dtype: str = "float32") -> np.ndarray:
    """Multiples of 1/4, the last ones four times the first: a part has another norm than all."""
    places = np.arange(np.prod(shape)).reshape(shape)
    return ((1 + places % 7 / 4) * (1 + places * 4 // places.size)).astype(dtype)


def gradient_of(step: int, rank: int, shape, dtype: str = "float32") -> np.ndarray:
    """Multiples of 1/8, no two workers' or steps' the same, the first ones four times the last."""
    places = np.arange(np.prod(shape)).reshape(shape)
    signs = np.where(places % 3 == 0, -1, 1)
    sizes = (1 + (places + step) % 5 + rank) * (4 - places * 4 // places.size)
    return (signs * sizes / 8).astype(dtype)


def trained(
    job: Job,
    make: Callable[[], Any],
    shape=(4, 3),
    dtype: str = "float32",
    change: Optional[Callable[[Any, int, int], None]] = None,
    rounds: int = ROUNDS,
    key: Any = None,
) -> Answer:
    """The weight after some rounds, on the store and by a local updater.

    ``change(optimizer, key, step)`` changes the optimizer that the script holds before a round.
    """
    key = job.key() if key is None else key
    optimizer = make()
    kv = job.kv(optimizer)
    kv.init(key, mx.nd.array(start_of(shape, dtype), dtype=dtype))
    weight = mx.nd.zeros(shape, dtype=dtype)
    for step in range(rounds):
        if change is not None:
            change(optimizer, key, step)
        gradient = gradient_of(step, kv.rank, shape, dtype)
        kv.pushpull(key, mx.nd.array(gradient, dtype=dtype), out=weight)
        weight.wait_to_read()
    return Answer(weight, local(job, make, shape, dtype, change, rounds, key))


def local(job: Job, make, shape, dtype, change, rounds, key) -> mx.nd.NDArray:
    """What `trained` should come to."""
    optimizer = make()
    updater = mx.optimizer.get_updater(optimizer)
    weight = mx.nd.array(start_of(shape, dtype), dtype=dtype)
    for step in range(rounds):
        if change is not None:
            change(optimizer, key, step)
        total = job.total(lambda rank: gradient_of(step, rank, shape, dtype))  # noqa: B023
        updater(key, mx.nd.array(total, dtype=dtype), weight)
    return weight


# name: what it is, its name in MXNet, its arguments
OPTIMIZERS: Dict[str, Tuple[str, str, Dict[str, Any]]] = {
    "sgd": ("SGD", "sgd", {}),
    "sgd_momentum": ("SGD, momentum", "sgd", {"momentum": 0.9}),
    "sgd_wd_clip": ("SGD, wd, clip_gradient", "sgd", {"wd": 0.1, "clip_gradient": 0.5}),
    "nag": ("NAG", "nag", {"momentum": 0.9, "wd": 0.01}),
    "adam": ("Adam", "adam", {"wd": 0.01}),
    "adagrad": ("AdaGrad", "adagrad", {"wd": 0.01}),
    "adadelta": ("AdaDelta", "adadelta", {"wd": 0.01}),
    "adamax": ("Adamax", "adamax", {}),
    "nadam": ("Nadam", "nadam", {}),
    "rmsprop": ("RMSProp", "rmsprop", {}),
    "rmsprop_centered": ("RMSProp, centered", "rmsprop", {"centered": True}),
    "ftrl": ("Ftrl", "ftrl", {"wd": 0.01}),
    "ftml": ("FTML", "ftml", {}),
    "signum": ("Signum", "signum", {"momentum": 0.9}),
    "dcasgd": ("DCASGD", "dcasgd", {}),
    "ccsgd": ("ccSGD", "ccsgd", {"momentum": 0.9}),
    "lars": ("LARS", "lars", {"momentum": 0.9, "wd": 0.01, "eta": 1.0}),
    "lamb": ("LAMB", "lamb", {"wd": 0.01}),
    "lbsgd": ("LBSGD, LARS", "lbsgd", {"momentum": 0.9, "warmup_strategy": "lars"}),
    "test": ("`mx.optimizer.Test`", "test", {"rescale_grad": 0.5}),
    "group_adagrad": ("contrib.GroupAdaGrad", "groupadagrad", {}),
}
ALONE = ("group_adagrad",)  # natively the server ends
SPLIT = ("sgd_momentum", "adam", "lars", "lamb", "lbsgd")


def register(
    prefix: str, which: str, shape: Tuple[int, ...], suffix: str = "", rtol: float = RTOL
) -> None:
    what, name, arguments = OPTIMIZERS[which]
    group = None if which in ALONE else "optimizers"
    case(group, name=f"{prefix}_{which}", what=what + suffix, rtol=rtol)(
        lambda job: trained(job, lambda: create(name, learning_rate=0.1, **arguments), shape)
    )


for name_ in OPTIMIZERS:
    register("optimizer", name_, (4, 3))
for name_ in SPLIT:
    # In float32, a norm of so many elements depends on the order in which they are added.
    rtol_ = RTOL if name_ in ("sgd_momentum", "adam") else 1e-2
    register("split", name_, BIG, ", 1.1 million elements", rtol_)


@case("optimizers")
def case_optimizer_sgld(job: Job) -> Answer:
    """SGLD: every element moves, by noise of the size that the learning rate says"""
    key, rate = job.key(), 0.01
    kv = job.kv(create("sgld", learning_rate=rate))
    kv.init(key, mx.nd.zeros(1000))
    weight = mx.nd.zeros(1000)
    kv.pushpull(key, mx.nd.zeros(1000), out=weight)
    moved = weight.asnumpy()
    is_noise = 0.8 * rate**0.5 < moved.std() < 1.2 * rate**0.5
    return Answer([bool((moved != 0).all()), bool(is_noise)], [True, True])


@case("optimizers")
def case_half_precision_sgd(job: Job) -> Answer:
    """SGD on float16 without a master copy"""
    return trained(job, lambda: create("sgd", learning_rate=0.125), dtype="float16")


@case()
def case_half_precision_master_copy(job: Job) -> Answer:
    """SGD on float16 with `multi_precision`: 64 steps of 1/8 from 1024, which is too fine for it"""
    kv, key = job.kv(create("sgd", learning_rate=1.0, multi_precision=True)), job.key()
    kv.init(key, mx.nd.full(4, 1024, dtype="float16"))
    weight = mx.nd.zeros(4, dtype="float16")
    for _ in range(64):
        kv.pushpull(key, mx.nd.full(4, 0.125 / job.num_workers, dtype="float16"), out=weight)
        weight.wait_to_read()
    return Answer(weight, mx.nd.full(4, 1016, dtype="float16"))


@case()
def case_half_precision_adam(job: Job) -> Answer:
    """Adam on float16 with `multi_precision`"""
    return trained(
        job, lambda: create("adam", learning_rate=0.1, multi_precision=True), dtype="float16"
    )


@case("optimizers")
def case_double_precision_sgd(job: Job) -> Answer:
    """SGD with momentum on float64"""
    return trained(
        job, lambda: create("sgd", learning_rate=0.1, momentum=0.9), dtype="float64"
    )  # fmt: skip


@case("strings")
def case_optimizer_string_key(job: Job) -> Answer:
    """SGD with momentum on a string key"""
    return trained(
        job, lambda: create("sgd", learning_rate=0.1, momentum=0.9), key=job.names(1)[0]
    )  # fmt: skip


@case("optimizers")
def case_optimizer_devices(job: Job) -> Answer:
    """Adam, gradients from two devices"""
    kv, key = job.kv(create("adam", learning_rate=0.1)), job.key()
    kv.init(key, mx.nd.array(start_of((4, 3))))
    outs = [mx.nd.zeros((4, 3), ctx=mx.cpu(device)) for device in range(2)]
    for step in range(ROUNDS):
        half = gradient_of(step, kv.rank, (4, 3)) / 2
        kv.pushpull(key, [mx.nd.array(half, ctx=mx.cpu(device)) for device in range(2)], out=outs)
    right = local(
        job, lambda: create("adam", learning_rate=0.1), (4, 3), "float32", None, ROUNDS, key
    )
    return Answer(outs, [right, right])


@case("optimizers")
def case_optimizer_push_then_pull(job: Job) -> Answer:
    """Adam, `push` four times, then one `pull`"""
    make = lambda: create("adam", learning_rate=0.1)  # noqa: E731
    kv, key = job.kv(make()), job.key()
    kv.init(key, mx.nd.array(start_of((4, 3))))
    for step in range(ROUNDS):
        kv.push(key, mx.nd.array(gradient_of(step, kv.rank, (4, 3))))
    weight = mx.nd.zeros((4, 3))
    kv.pull(key, out=weight)
    return Answer(weight, local(job, make, (4, 3), "float32", None, ROUNDS, key))
