"""What a script changes in its optimizer, against MXNet's updater on one machine. Pure."""

import math
import random
import warnings

import numpy as np
import pytest

from baryon.ps import UsageError, wire
from baryon.ps.plan import Plan
from baryon.worker.mxnet.compat import import_mxnet

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MXNet's own
    mx = import_mxnet()

from baryon.worker.mxnet.hyper import LiveHyper
from baryon.worker.mxnet.pickled import dump_optimizer
from baryon.worker.mxnet.updater import load_updater

KEYS = {"a": (10, 25), 1: (7,), "b": (4, 30)}


class Clocked(mx.optimizer.Optimizer):
    """Looks at the clock that all keys share, and at its schedule, itself."""

    def create_state(self, index, weight):
        return None

    def update(self, index, weight, grad, state):
        self._update_count(index)
        rate = self.lr if self.lr_scheduler is None else self.lr_scheduler(self.num_update)
        weight -= rate * grad * self.rescale_grad / math.sqrt(self.num_update)


class Countdown:
    """A schedule that is no schedule of MXNet's, and keeps state."""

    def __init__(self, base_lr):
        self.base_lr = base_lr
        self.seen = 0

    def __call__(self, num_update):
        self.seen = max(self.seen, num_update)
        return self.base_lr / (1 + self.seen)


OPTIMIZERS = {
    "sgd": lambda: mx.optimizer.SGD(learning_rate=0.1, momentum=0.9, wd=0.1),
    "adam": lambda: mx.optimizer.Adam(learning_rate=0.1, wd=0.1),
    "named": lambda: mx.optimizer.SGD(learning_rate=0.1, param_idx2name={1: "c_bias"}, wd=0.1),
    "clocked": lambda: Clocked(learning_rate=0.1),
    "clocked schedule": lambda: Clocked(lr_scheduler=Countdown(0.5)),
    "factor": lambda: mx.optimizer.SGD(lr_scheduler=schedules()[0], momentum=0.9),
    "factor of adam": lambda: mx.optimizer.Adam(lr_scheduler=schedules()[0]),
    "begun": lambda: mx.optimizer.Adam(lr_scheduler=schedules()[0], begin_num_update=7),
}


def schedules():
    return [
        mx.lr_scheduler.FactorScheduler(step=2, factor=0.5, base_lr=0.1),
        mx.lr_scheduler.MultiFactorScheduler(step=[2, 4], factor=0.5, base_lr=0.1),
        mx.lr_scheduler.PolyScheduler(max_update=40, base_lr=0.1),
        mx.lr_scheduler.CosineScheduler(max_update=40, base_lr=0.1, warmup_steps=1),
        lambda num_update: np.float64(0.1 / num_update),
        Countdown(0.2),
    ]


def changes(chance):
    """One of the things that scripts do to an optimizer."""
    number = round(chance.random() + 0.1, 3)
    which = chance.randrange(9)
    if which == 0:
        return lambda opt: opt.lr_scheduler is None and opt.set_learning_rate(number)
    if which in (1, 2, 3):
        name = ("wd", "rescale_grad", "clip_gradient")[which - 1]
        return lambda opt: setattr(opt, name, number)
    if which == 4:
        key = chance.choice([*KEYS, "c_bias"])
        return lambda opt: opt.lr_mult.update({key: number})
    if which == 5:
        return lambda opt: opt.set_wd_mult({chance.choice(list(KEYS)): 0.0} if number > 0.5 else {})
    if which == 6:
        index = chance.randrange(6)
        return lambda opt: setattr(opt, "lr_scheduler", schedules()[index])
    if which == 7:
        return lambda opt: setattr(opt.lr_scheduler, "base_lr", number) if opt.lr_scheduler else 0
    return lambda opt: (setattr(opt, "lr_scheduler", None), setattr(opt, "lr", number))


class Servers:
    """An updater whose slices are updated at any time after their pushes."""

    def __init__(self, optimizer, has_whole_keys, values):
        self.hyper = LiveHyper(optimizer)
        blob = dump_optimizer(optimizer, *self.hyper.multipliers)
        self.updater = load_updater(blob, may_run_code=True)
        plan = Plan(1, 256, has_whole_keys=has_whole_keys)
        self.keys = {n: plan.add(n, shape, "float32") for n, shape in KEYS.items()}
        self.values = {name: value.copy().ravel() for name, value in values.items()}
        self.under_way = {}  # slice -> what is pushed of it, in that order
        self._is_whole = has_whole_keys
        for key in self.keys.values():
            self.under_way.update((s, []) for s in key.slices[: 1 if has_whole_keys else None])

    def push(self, name, gradient):
        self.hyper.count(name)
        change = self.hyper.take_change(name)
        if change is not None:
            named = [version for queue in self.under_way.values() for version, _ in queue]
            version, *rest = change
            oldest = min(named, default=version)
            self.updater.set_hyper(wire.SetHyper(0, version, version, oldest, *rest))
        for slice_, queue in self.under_way.items():
            if slice_.key.name == name:
                part = slice(None) if self._is_whole else slice(slice_.start, slice_.stop)
                queue.append((self.hyper.version, gradient.ravel()[part]))

    def apply(self, slice_):
        version, gradient = self.under_way[slice_].pop(0)
        value = self.values[slice_.key.name]
        part = slice(None) if self._is_whole else slice(slice_.start, slice_.stop)
        self.updater.update(slice_, gradient, value[part], version)


@pytest.mark.parametrize("which", OPTIMIZERS)
@pytest.mark.parametrize("seed", range(6))
def test_every_push_is_applied_by_what_held_when_it_was_made(which, seed):
    chance, data = random.Random(seed), np.random.RandomState(seed)
    reference, optimizer = OPTIMIZERS[which](), OPTIMIZERS[which]()
    values = {name: data.randn(*shape).astype("float32") for name, shape in KEYS.items()}
    weights = {name: mx.nd.array(value) for name, value in values.items()}
    update = mx.optimizer.get_updater(reference)
    servers = Servers(optimizer, isinstance(optimizer, Clocked), values)
    for _ in range(60):
        if chance.random() < 0.4:
            change = changes(chance)
            state = chance.getstate()
            change(reference)
            chance.setstate(state)
            change(optimizer)
        name = chance.choice(["a", "a", 1, "b"])  # "a" is pushed more often than the others
        gradient = data.randn(*KEYS[name]).astype("float32")
        update(name, mx.nd.array(gradient), weights[name])
        servers.push(name, gradient)
        while chance.random() < 0.7:
            pushed = [slice_ for slice_, queue in servers.under_way.items() if queue]
            if pushed:
                servers.apply(chance.choice(pushed))
        assert optimizer.learning_rate == reference.learning_rate
    for slice_, queue in servers.under_way.items():
        while queue:
            servers.apply(slice_)
    for name, weight in weights.items():
        got = servers.values[name].reshape(KEYS[name])
        np.testing.assert_allclose(got, weight.asnumpy(), rtol=1e-4, atol=1e-5)
    histories = [
        servers.updater._versions._scalars,
        *servers.updater._versions._multipliers.values(),
    ]
    assert optimizer.num_update > 7 and servers.hyper.version > 7
    assert all(len(e) <= 60 for history in histories for e in history._values.values())


def test_what_nobody_will_ask_for_is_forgotten():
    optimizer = mx.optimizer.SGD(lr_scheduler=lambda num_update: 1 / num_update)
    zeros = {name: np.zeros(shape, "float32") for name, shape in KEYS.items()}
    servers = Servers(optimizer, False, zeros)
    for _ in range(100):
        optimizer.lr_mult["a"] = 1 / (1 + optimizer.num_update)
        servers.push("a", np.ones(KEYS["a"], "float32"))
        for slice_ in servers.keys["a"].slices:
            servers.apply(slice_)
    versions = servers.updater._versions
    assert versions.last == 100
    assert [len(entries) for entries in versions._scalars._values.values()] == [1]
    assert [len(entries) for entries in versions._multipliers["a"]._values.values()] == [1, 1]


def test_an_optimizer_that_has_counted_goes_on_counting_on_other_servers():
    """As after `set_data`, which leads to a new store."""
    reference, optimizer = (mx.optimizer.Adam(lr_scheduler=schedules()[0]) for _ in range(2))
    values = {name: np.zeros(shape, "float32") for name, shape in KEYS.items()}
    weights = {name: mx.nd.array(value) for name, value in values.items()}
    for steps in (5, 2):
        update = mx.optimizer.get_updater(reference)  # its states are new, its counts are not
        servers = Servers(optimizer, False, values)
        for _ in range(steps):
            for name, value in weights.items():
                gradient = np.ones(KEYS[name], "float32")
                update(name, mx.nd.array(gradient), value)
                servers.push(name, gradient)
        for slice_, queue in servers.under_way.items():
            while queue:
                servers.apply(slice_)
        values = {name: value.asnumpy() for name, value in weights.items()}
    for name, value in values.items():
        np.testing.assert_allclose(servers.values[name].reshape(value.shape), value, rtol=1e-5)


@pytest.mark.parametrize("given", [{}, {"learning_rate": 1.0}])
def test_a_schedule_has_a_rate_before_rank_0_has_pushed(given):
    """As when another worker of an asynchronous store is first: its pushes name no version."""
    schedule = mx.lr_scheduler.FactorScheduler(step=4, factor=0.5, base_lr=1.0, warmup_steps=8)
    optimizer = mx.optimizer.SGD(lr_scheduler=schedule, **given)
    optimizer.num_update = 3  # it goes on from a file
    before = dict(vars(schedule))
    updater, value = load_updater(dump_optimizer(optimizer), False), np.zeros(4, "float32")
    updater.update(Plan(1).add("a", (4,), "float32").slices[0], np.ones(4, "float32"), value)
    assert value.tolist() == [-0.5] * 4
    assert vars(schedule) == before and optimizer.num_update == 3


def test_nothing_is_told_while_nothing_changes():
    optimizer = mx.optimizer.Adam(learning_rate=0.1)
    hyper = LiveHyper(optimizer)
    for _ in range(3):
        for name in KEYS:
            hyper.count(name)
            optimizer.rescale_grad = float("1.0")  # the same number, as Trainer sets it each step
            assert hyper.take_change(name) is None
    assert hyper.version == 0


def test_a_change_that_cannot_be_told_is_warned_of_once():
    optimizer = Clocked(learning_rate=0.1)
    optimizer.table = [1.0]
    hyper = LiveHyper(optimizer)
    hyper.count("a")
    optimizer.table = [2.0]
    with pytest.warns(UserWarning, match="'table' was set to a list.*Call kv.set_optimizer"):
        assert hyper.take_change("a") is None
    optimizer.table = [3.0]
    optimizer.mode = "fast"
    assert hyper.take_change("a").scalars == {"mode": "fast"}


def test_a_rate_that_is_no_number_is_refused():
    optimizer = mx.optimizer.SGD(lr_scheduler=lambda num_update: [0.1])
    hyper = LiveHyper(optimizer)
    hyper.count("a")
    with pytest.raises(UsageError, match=r"learning rate is \[0.1\], which is not a number"):
        hyper.take_change("a")
