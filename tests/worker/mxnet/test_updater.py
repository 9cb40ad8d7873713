"""MXNet's optimizers on a server: which are loaded, and that slices are updated as whole arrays."""

import collections
import os
import pickle
import re
import warnings

import numpy as np
import pytest

from baryon.ps import wire
from baryon.ps.errors import ProtocolError, UsageError
from baryon.ps.plan import Plan
from baryon.ps.rows import Rows, put, rows_in, rows_of
from baryon.ps.states import SliceState
from baryon.worker.mxnet.compat import import_mxnet

from ...ps.updaters import mxnet_blob

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MXNet's own
    import_mxnet()

from baryon.worker.mxnet.pickled import dump_optimizer, load_optimizer
from baryon.worker.mxnet.updater import MXNetUpdater

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:mxnet.*")


@pytest.fixture(scope="module")
def mx():
    return import_mxnet()


SHAPE = (10, 25)  # 1000 bytes
STEPS = 6


def load(optimizer, lr_mult=(), wd_mult=()):
    return load_optimizer(dump_optimizer(optimizer, lr_mult, wd_mult))


def refused(pickled, says):
    with pytest.raises(UsageError, match=says):
        load_optimizer(mxnet_blob(pickled))


# -- loading ------------------------------------------------------------------------------------


def test_every_optimizer_of_mxnet_is_loaded(mx):
    refusals = {}
    for name, cls in mx.optimizer.Optimizer.opt_registry.items():
        optimizer = cls(learning_rate=0.25, wd=0.125)
        try:
            loaded = load(optimizer)
        except UsageError as error:
            refusals[name] = str(error)
            continue
        assert type(loaded) is cls
        assert (loaded.lr, loaded.wd) == (0.25, 0.125)
    assert refusals == {}
    assert len(mx.optimizer.Optimizer.opt_registry) > 10


@pytest.mark.parametrize("number", [np.float32(0.1), np.float64(0.1), np.int64(1)], ids=repr)
def test_hyper_parameters_may_be_numpys_numbers(mx, number):
    assert load(mx.optimizer.SGD(learning_rate=number)).lr == number


def test_a_schedule_stays_with_the_script_whatever_it_is(mx):
    """The servers are told the rates."""
    for schedule in (mx.lr_scheduler.FactorScheduler(2), lambda num_update: 0.5):
        optimizer = mx.optimizer.SGD(lr_scheduler=schedule)
        blob = dump_optimizer(optimizer)
        assert optimizer.lr_scheduler is schedule
        updater = MXNetUpdater(load_optimizer(blob, may_run_code=False))
        updater.set_hyper(wire.SetHyper(0, 1, 1, 1, {"lr": 0.25}, [], []))
        value = np.zeros(4, "float32")
        updater.update(Plan(1).add(0, (4,), "float32").slices[0], np.ones(4, "float32"), value)
        assert (value == -0.25).all()


def test_an_array_of_made_up_objects_is_refused():
    """Eight bytes of the sender's choice, taken for a pointer to an object."""
    objects = np.ndarray((1,), np.dtype("O"))
    for pickled in (pickle.dumps(objects), pickle.dumps(np.dtype("O"))):
        refused(pickled, "numpy")


class RunsACommand:
    def __reduce__(self):
        return os.system, ("exit 1",)


class RunsPython:
    def __reduce__(self):
        return eval, ("1",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("attack", "says"), [(RunsACommand(), "posix.system"), (RunsPython(), r"builtin.*\.eval")]
)
def test_a_pickle_that_calls_something_is_refused_before_it_does(mx, attack, says, protocol):
    refused(pickle.dumps(attack, protocol), says)
    optimizer = mx.optimizer.SGD()
    optimizer.hidden = attack
    if protocol >= 2:  # older ones name what an object is made of by Python 2's names
        refused(pickle.dumps(optimizer, protocol), says)


@pytest.mark.parametrize(
    "name",
    [
        "mxnet.optimizer.optimizer\npickle",
        "mxnet.optimizer.optimizer\nlogging",
        "mxnet.optimizer.optimizer\nget_updater",
        "mxnet.optimizer.optimizer\nUpdater",
        "mxnet.optimizer.optimizer\nSGD.update",
        "mxnet.optimizer.nothing\nSGD",
        "mxnet.optimizers\nSGD",
        "mxnet.gluon\nTrainer",
        "builtins\ngetattr",
        "collections\nnamedtuple",
        "numpy\nload",
    ],
)
def test_a_name_outside_the_allow_list_is_refused(mx, name):
    """Also what MXNet's optimizer modules merely import or define besides optimizers."""
    refused(b"c" + name.encode() + b"\n.", "servers do not load|cannot be read: No module named")


def test_a_users_own_optimizer_is_refused_with_the_remedy(mx):
    class Mine(mx.optimizer.SGD):
        pass

    Mine.__qualname__, Mine.__module__ = "Mine", __name__
    globals()["Mine"] = Mine
    try:
        refused(pickle.dumps(Mine()), rf"{__name__}\.Mine.*update_on_kvstore=False")
    finally:
        del globals()["Mine"]


@pytest.mark.parametrize(
    "thing", [None, 7, "sgd", {"lr": 1}, {1}, collections.OrderedDict()], ids=repr
)
def test_what_is_not_an_optimizer_is_refused(mx, thing):
    refused(pickle.dumps(thing), f"{type(thing).__name__}, not an optimizer")


def test_a_schedule_alone_or_a_class_is_not_an_optimizer(mx):
    refused(pickle.dumps(mx.lr_scheduler.FactorScheduler(2)), "FactorScheduler, not an optimizer")
    refused(pickle.dumps(mx.optimizer.SGD), "type, not an optimizer")


def test_a_damaged_pickle_is_refused(mx):
    pickled = pickle.dumps(mx.optimizer.Adam())
    for damaged in (b"", b"\x80", b"hello", pickled[:-1], pickled[: len(pickled) // 2], b"." * 9):
        refused(damaged, "cannot be read")


# -- updating -----------------------------------------------------------------------------------


def optimizers(mx):
    return {
        "sgd": mx.optimizer.SGD(learning_rate=0.1, momentum=0.9, wd=0.01, rescale_grad=0.5),
        "adam": mx.optimizer.Adam(learning_rate=0.1, wd=0.01),
    }


OPTIMIZERS = ["sgd", "adam"]


def numbers(seed, shape=SHAPE):
    return np.random.RandomState(seed).standard_normal(shape).astype("float32")


def gradient(name, step):
    return numbers(1000 * step + len(str(name)))


def weights_of_mxnet(mx, optimizer, names, steps=STEPS):
    """What MXNet's own updater makes of whole arrays."""
    update = mx.optimizer.get_updater(pickle.loads(pickle.dumps(optimizer)))
    weights = {name: mx.nd.array(numbers(0)) for name in names}
    for step in range(1, steps + 1):
        for name in names:
            mx.random.seed(step)
            update(name, mx.nd.array(gradient(name, step)), weights[name])
    return {name: weight.asnumpy() for name, weight in weights.items()}


class Sliced:
    """Keys in a server's memory, cut into slices of at most ``bucket_nbytes``."""

    def __init__(self, mx, optimizer, names, bucket_nbytes, lr_mult=(), wd_mult=()):
        plan = Plan(1, bucket_nbytes)
        self.keys = [plan.add(name, SHAPE, "float32") for name in names]
        self.values = {name: numbers(0).ravel() for name in names}
        self._mx = mx
        self._updater = MXNetUpdater(load(optimizer, lr_mult, wd_mult))

    def step(self, slice_, round_):
        name, part = slice_.key.name, slice(slice_.start, slice_.stop)
        merged = gradient(name, round_).ravel()[part]
        merged.flags.writeable = False  # a lone worker's gradient is its message
        self._mx.random.seed(round_)
        self._updater.update(slice_, merged, self.values[name][part])

    def update_rows(self, slice_, rows):
        part = slice(slice_.start, slice_.stop)
        self._updater.update(slice_, rows, self.values[slice_.key.name][part])

    def run(self, slices, steps=STEPS):
        for round_ in range(1, steps + 1):
            for slice_ in slices:
                self.step(slice_, round_)

    def assert_equals(self, expected):
        for name, value in self.values.items():
            np.testing.assert_allclose(value.reshape(SHAPE), expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bucket_nbytes", [1024, 256], ids=["whole", "4 slices"])
@pytest.mark.parametrize("which", OPTIMIZERS)
def test_slices_are_updated_as_mxnet_updates_whole_arrays(mx, which, bucket_nbytes):
    optimizer, names = optimizers(mx)[which], [0, "fc_weight"]
    sliced = Sliced(mx, optimizer, names, bucket_nbytes)
    sliced.run([slice_ for key in sliced.keys for slice_ in key.slices])
    sliced.assert_equals(weights_of_mxnet(mx, optimizer, names))


def test_every_optimizer_updates_a_whole_key_as_mxnet_does(mx):
    for name, cls in mx.optimizer.Optimizer.opt_registry.items():
        sliced = Sliced(mx, cls(), [name], 1024)
        sliced.run(sliced.keys[0].slices)
        sliced.assert_equals(weights_of_mxnet(mx, cls(), [name]))


@pytest.mark.parametrize("bucket_nbytes", [1024, 256], ids=["whole", "4 slices"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sgd", {"lazy_update": True, "wd": 0.1}),
        ("sgd", {"lazy_update": False, "wd": 0.1}),
        ("sgd", {"lazy_update": True, "wd": 0.1, "momentum": 0.9}),
        ("sgd", {"lazy_update": False, "wd": 0.1, "momentum": 0.9}),
        ("adam", {"lazy_update": True, "wd": 0.1}),
        ("adam", {"lazy_update": False, "wd": 0.1}),
        ("adagrad", {}),
        ("ftrl", {"wd": 0.1}),
    ],
)
def test_rows_are_updated_as_mxnet_updates_row_sparse_weights(mx, name, options, bucket_nbytes):
    """Which rows change is the optimizer's to say: lazily those of the gradient alone."""
    make = mx.optimizer.Optimizer.create_optimizer
    reference = mx.optimizer.get_updater(make(name, **options))
    expected = mx.nd.array(numbers(0)).tostype("row_sparse")
    sliced = Sliced(mx, make(name, **options), ["w"], bucket_nbytes)
    (key,) = sliced.keys
    for step, chosen in enumerate([[0, 2, SHAPE[0] - 1], [], [1, 2], [2]]):
        values = gradient("w", step)[np.array(chosen, int)]
        rows = Rows(np.array(chosen, np.int64), values)
        sparse = mx.nd.array(scattered(rows)).tostype("row_sparse")
        reference("w", sparse, expected)
        for slice_, payload in rows_in(key, rows).items():
            sliced.update_rows(slice_, rows_of(slice_, payload))
    sliced.assert_equals({"w": expected.tostype("default").asnumpy()})


def scattered(rows):
    whole = np.zeros(SHAPE, "float32")
    put(rows, whole.reshape(-1))
    return whole


@pytest.mark.parametrize("which", ["sgd", "adam"])
def test_slices_may_run_ahead_of_each_other(mx, which):
    optimizer, names = optimizers(mx)[which], [0, 11]
    sliced = Sliced(mx, optimizer, names, 256)
    for key in sliced.keys:
        for slice_ in key.slices:  # each goes through all of its rounds before the next begins
            sliced.run([slice_])
    sliced.assert_equals(weights_of_mxnet(mx, optimizer, names))


@pytest.mark.parametrize("which", ["lamb", "lars", "groupadagrad"])
def test_an_optimizer_that_needs_whole_arrays_is_right_on_a_split_key_or_refused(mx, which):
    """These use norms over all, or rows, of a parameter, which a slice does not have."""
    optimizer = mx.optimizer.create(which)
    if not MXNetUpdater(optimizer).is_elementwise:
        return  # the store refuses a split key
    sliced = Sliced(mx, optimizer, [0], 256)
    sliced.run(sliced.keys[0].slices)
    sliced.assert_equals(weights_of_mxnet(mx, optimizer, [0]))


def test_multipliers_are_applied_per_key(mx):
    """``weight -= lr * lr_mult * (gradient + wd * wd_mult * weight)``, for SGD."""
    optimizer = mx.optimizer.SGD(learning_rate=0.5, wd=0.1)
    names, lr_mult, wd_mult = [0, "bias", "frozen"], {0: 0.5, "frozen": 0.0}, {"bias": 0.0, 0: 3.0}
    sliced = Sliced(mx, optimizer, names, 256, lr_mult.items(), wd_mult.items())
    sliced.run([slice_ for key in sliced.keys for slice_ in key.slices], steps=1)
    expected = {}
    for name in names:
        decay = 0.1 * wd_mult.get(name, 1.0) * numbers(0)
        expected[name] = numbers(0) - 0.5 * lr_mult.get(name, 1.0) * (gradient(name, 1) + decay)
    sliced.assert_equals(expected)


def test_attributes_that_an_optimizer_is_not_to_be_given_are_refused(mx):
    optimizer = mx.optimizer.LARS(learning_rate=0.5)
    updater = MXNetUpdater(load(optimizer))
    bad = [
        "update",
        "__class__",
        "__doc__",
        "__module__",
        "learning_rate",
        "_index_update_count",
        "lr_mult",
        "lr_scheduler",
        "a b",
        "idx2name",
    ]
    names = ", ".join(map(repr, bad))
    with pytest.raises(ProtocolError, match=f"^{re.escape(names)} of LARS is not to be set"):
        updater.check_hyper(
            wire.SetHyper(0, 1, 1, 1, {"lr": 0.1, **dict.fromkeys(bad, 1), "wd": 0.2}, [], [])
        )
    with pytest.raises(ProtocolError, match="'eps' of LARS"):
        updater.check_hyper(wire.SetHyper(0, 1, 1, 1, {"eps": [1]}, [], []))
    key = Plan(1, has_whole_keys=True).add(0, (4,), "float32")
    spec = wire.StateSpec(None, (), 3, {"update": 1, "last_lr": 0.5})
    with pytest.raises(ProtocolError, match="'update' of LARS"):
        updater.restore(key.slices[0], np.zeros(4, "float32"), SliceState(spec, []))
    updater.check_hyper(
        wire.SetHyper(
            0, 1, 1, 1, {"last_lr": 0.1, "wd": 0.2, "momentum": None, "mine": "new"}, [], []
        )
    )


def test_an_attribute_may_have_its_default_in_the_class(mx):
    class Mine(mx.optimizer.Optimizer):
        alpha = 0.5
        steps = 0

        def create_state(self, index, weight):
            return None

        def update(self, index, weight, grad, state):
            self.steps += 1
            weight -= self.alpha * self.steps * grad

    slice_ = Plan(1, has_whole_keys=True).add(0, (4,), "float32").slices[0]
    updater, value = MXNetUpdater(Mine()), np.zeros(4, "float32")
    change = wire.SetHyper(0, 1, 1, 1, {"alpha": 1.0}, [], [])
    updater.check_hyper(change)
    updater.set_hyper(change)
    updater.update(slice_, np.ones(4, "float32"), value)
    state = updater.state(slice_)
    assert state.spec.scalars == {"steps": 1}
    other = MXNetUpdater(Mine())
    other.restore(slice_, value, state)
    other.update(slice_, np.ones(4, "float32"), value)
    assert value.tolist() == [-1.0 - 0.5 * 2] * 4


def test_a_state_says_nothing_of_what_the_script_has_set(mx):
    updater = MXNetUpdater(load(mx.optimizer.Nadam(learning_rate=0.5)))
    slice_ = Plan(1).add(0, (4,), "float32").slices[0]
    updater.set_hyper(wire.SetHyper(0, 1, 1, 1, {"lr": 0.1, "wd": 0.2}, [(0, 0.5)], []))
    updater.update(slice_, np.ones(4, "float32"), np.ones(4, "float32"), 1)
    updater.set_hyper(wire.SetHyper(0, 1, 2, 1, {"lr": 0.3}, [], []))
    assert list(updater.state(slice_).spec.scalars) == ["m_schedule"]


def test_a_key_that_has_not_been_pushed_lately_does_not_keep_its_old_rate(mx):
    updater = MXNetUpdater(load(mx.optimizer.SGD(learning_rate=1.0)))
    slice_, value = Plan(1).add(0, (4,), "float32").slices[0], np.zeros(4, "float32")
    updater.set_hyper(wire.SetHyper(0, 1, 1, 1, {"lr": 0.5, "wd": 0.0}, [], []))
    updater.update(slice_, np.ones(4, "float32"), value, 1)
    for version in (2, 3):  # which other keys are pushed with: the first is forgotten
        updater.set_hyper(wire.SetHyper(0, 1, version, version, {"lr": 0.5**version}, [], []))
    state = updater.state(slice_)
    assert state.spec.scalars == {}
    other = MXNetUpdater(load(mx.optimizer.SGD(learning_rate=0.125)))
    other.restore(slice_, value, state)
    other.update(slice_, np.ones(4, "float32"), value)
    assert value.tolist() == [-0.625] * 4


def test_float16_weights_may_have_a_float32_copy(mx):
    optimizer = load(mx.optimizer.SGD(learning_rate=1.0, multi_precision=True))
    key = Plan(1).add(0, (4,), "float16")
    value = np.ones(4, "float16")
    updater = MXNetUpdater(optimizer)
    for _ in range(8):  # each step alone is lost in float16 beside 1
        updater.update(key.slices[0], np.full(4, -1e-4, "float16"), value)
    assert (value > 1).all()


@pytest.mark.parametrize("name", ["sgd", "nag", "lars", "adam", "lbsgd"])
def test_a_float32_copy_follows_a_value_that_was_set(mx, name):
    optimizer = mx.optimizer.create(name, learning_rate=2**-14, multi_precision=True)
    slice_ = Plan(1, has_whole_keys=True).add(0, (4,), "float16").slices[0]
    updater, value = MXNetUpdater(load(optimizer)), np.ones(4, "float16")
    for _ in range(3):
        updater.update(slice_, np.full(4, 0.5, "float16"), value)
    state = updater.state(slice_)
    value[2:] = 100
    other = MXNetUpdater(load(optimizer))
    other.restore(slice_, value, state)
    (found,) = [a for a in other.state(slice_).arrays if a[2:].tolist() == [100, 100]]
    assert any(found[:2].tolist() == array[:2].tolist() for array in state.arrays)
    assert (found[:2] != value[:2]).all()  # they keep the bits that float16 has no room for
    other.update(slice_, np.full(4, 0.5, "float16"), value)
    assert (abs(value[2:] - 100) < 1).all()


def test_what_an_operator_raises_is_raised(mx):
    updater = MXNetUpdater(load(mx.optimizer.SGD()))
    slice_ = Plan(1).add(0, (4,), "float32").slices[0]
    with pytest.raises(mx.base.MXNetError):
        updater.update(slice_, np.ones(4, "float64"), np.ones(4, "float32"))


@pytest.mark.parametrize("name", ["sgd", "adam", "nadam", "ftml", "dcasgd", "rmsprop", "lamb"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_updater_goes_on_from_the_state_of_another(mx, name, dtype):
    key = Plan(1, has_whole_keys=name == "lamb").add("w", (6, 5), dtype)
    chance = np.random.RandomState(0)
    gradients = chance.randn(6, 30).astype(dtype)

    def updater_of():
        options = {"momentum": 0.9} if name == "sgd" else {}
        return MXNetUpdater(
            mx.optimizer.create(
                name, learning_rate=0.1, multi_precision=dtype != "float32", **options
            )
        )

    unbroken, value = updater_of(), np.ones(30, dtype)
    for gradient in gradients[:3]:
        unbroken.update(key.slices[0], gradient, value)
    state, restored, copied = unbroken.state(key.slices[0]), updater_of(), value.copy()
    restored.restore(key.slices[0], copied, state)
    for gradient in gradients[3:]:
        unbroken.update(key.slices[0], gradient, value)
        restored.update(key.slices[0], gradient, copied)
    assert value.tolist() == copied.tolist()
    assert updater_of().state(key.slices[0]) is None
