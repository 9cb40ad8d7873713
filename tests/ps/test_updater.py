"""The contract of an updater, which those of every framework pass, and how one is found.

Both kinds are SGD with momentum, so the expected numbers are the same for both.
"""

import sys
from typing import Any, Callable

import msgspec
import numpy as np
import pytest
import zmq

from baryon.ps import ProtocolError, Rows, SliceState, StateSpec, UsageError, wire
from baryon.ps.plan import Plan
from baryon.ps.updater import KINDS, Updater, load_updater

from .conversation import Conversation, answers, is_refused
from .updaters import SGD

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:mxnet.*")

SIZE = 600  # elements: three slices of 256 and less
Load = Callable[..., Updater]


def numpy_blob(lr: float, momentum: float = 0.0) -> bytes:
    return msgspec.json.encode(SGD(lr, momentum))


def mxnet_blob(lr: float, momentum: float = 0.0) -> bytes:
    import mxnet as mx

    from baryon.worker.mxnet.pickled import dump_optimizer

    return dump_optimizer(mx.optimizer.SGD(learning_rate=lr, momentum=momentum, wd=0.0))


BLOBS = {"numpy": numpy_blob, "mxnet": mxnet_blob}


@pytest.fixture(params=sorted(BLOBS))
def load(request: Any, numpy_kind: str, mx: Any) -> Load:
    """``load(lr, momentum)`` makes an updater, as a server does."""
    kind = request.param
    return lambda *options: load_updater(kind, BLOBS[kind](*options), may_run_code=False)


def slices(size: int = SIZE, shape: Any = None) -> Any:
    return Plan(1, 1024).add("w", shape or (size,), "float32").slices


def numbers(seed: int, size: int = SIZE) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal(size).astype("float32")


def hyper(version: int, oldest: int = 0, lr_mult: Any = (), **scalars: Any) -> wire.SetHyper:
    return wire.SetHyper(0, version, version, oldest, scalars, list(lr_mult), [])


# -- the contract ---------------------------------------------------------------------------------


def test_slices_in_any_order_become_what_the_whole_key_would(load: Load) -> None:
    (whole,) = Plan(1).add("w", (SIZE,), "float32").slices
    cut = slices()
    assert len(cut) == 3
    expected, found = numbers(0), numbers(0)
    one, other = load(0.1, 0.9), load(0.1, 0.9)
    assert one.is_elementwise and one.name == "SGD"
    for step in range(1, 5):
        one.update(whole, numbers(step), expected)
    for slice_ in reversed(cut):
        part = slice(slice_.start, slice_.stop)
        for step in range(1, 5):
            other.update(slice_, numbers(step)[part], found[part])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert not np.allclose(found, numbers(0))


def test_a_gradient_is_read_and_no_more(load: Load) -> None:
    """A lone worker's gradient is its message, and MXNet's operators would run on after it."""
    (slice_,) = slices(4)
    gradient, value = np.ones(4, "float32"), np.zeros(4, "float32")
    gradient.flags.writeable = False
    load(0.5).update(slice_, gradient, value)
    assert gradient.tolist() == [1.0] * 4 and value.tolist() == [-0.5] * 4


def test_rows_change_as_if_they_were_all_of_the_gradient(load: Load) -> None:
    (slice_,) = slices(shape=(5, 2))
    value = np.zeros(10, "float32")
    rows = Rows(np.array([1, 4]), np.array([[1, 2], [3, 4]], "float32"))
    load(1.0).update(slice_, rows, value)
    assert value.tolist() == [0, 0, -1, -2, 0, 0, 0, 0, -3, -4]


def test_an_update_has_the_hyper_parameters_of_its_version(load: Load) -> None:
    updater, cut = load(1.0), slices()
    value = np.zeros(SIZE, "float32")

    def rate_of(slice_: Any, version: Any) -> float:
        part = value[slice_.start : slice_.stop]
        part[:] = 0
        updater.update(slice_, np.ones(part.size, "float32"), part, version)
        assert (part == part[0]).all()
        return -float(part[0])

    for version, rate in enumerate((0.5, 0.25, 0.125), 1):
        change = hyper(version, lr=rate)
        updater.check_hyper(change)
        updater.set_hyper(change)
    assert [rate_of(cut[0], version) for version in (0, 1, 3)] == [1.0, 0.5, 0.125]
    assert [rate_of(cut[1], version) for version in (2, 2, None)] == [0.25, 0.25, 0.125]
    updater.set_hyper(hyper(4, lr_mult=[("w", 2.0), ("v", 8.0)]))
    assert [rate_of(cut[2], version) for version in (3, 4)] == [0.125, 0.25]


@pytest.mark.parametrize("name", ["__class__", "__dict__", "a b", "learning rate", "__init__"])
def test_a_name_that_is_no_hyper_parameter_is_refused_whole(load: Load, name: str) -> None:
    updater = load(1.0)
    with pytest.raises(ProtocolError, match=f"{name!r} of .* is not to be set by message"):
        updater.check_hyper(hyper(1, **{"lr": 0.5, name: 1.0}))
    (slice_,) = slices(4)
    value = np.zeros(4, "float32")
    updater.update(slice_, np.ones(4, "float32"), value)
    assert value.tolist() == [-1.0] * 4


def test_another_goes_on_from_the_state_of_one(load: Load) -> None:
    (slice_,) = slices(4)
    unbroken, value = load(0.1, 0.5), numbers(0, 4)
    assert unbroken.state(slice_) is None
    for step in range(1, 4):
        unbroken.update(slice_, numbers(step, 4), value)
    state, copied = unbroken.state(slice_), value.copy()
    assert state is not None and state.spec.count == 3
    assert [(a.dtype.name, a.shape) for a in state.arrays] == list(state.spec.arrays)
    sent = [array.copy() for array in state.arrays]
    restored = load(0.1, 0.5)
    restored.restore(slice_, copied, SliceState(state.spec, sent))
    for step in range(4, 7):
        unbroken.update(slice_, numbers(step, 4), value)
        restored.update(slice_, numbers(step, 4), copied)
    assert value.tolist() == copied.tolist()
    ends = unbroken.state(slice_), restored.state(slice_)
    assert [end is not None and end.spec.count for end in ends] == [6, 6]


def test_a_state_that_was_given_is_of_one_moment(load: Load) -> None:
    """It is sent in pieces while updates go on."""
    (slice_,) = slices(4)
    updater, value = load(0.1, 0.5), numbers(0, 4)
    updater.update(slice_, numbers(1, 4), value)
    state = updater.state(slice_)
    assert state is not None
    before = [array.tolist() for array in state.arrays]
    updater.update(slice_, numbers(2, 4), value)
    assert [array.tolist() for array in state.arrays] == before


def test_a_damaged_blob_is_the_senders_fault(load: Load, request: Any) -> None:
    kind = request.node.callspec.params["load"]
    blob = BLOBS[kind](0.1)
    for damaged in (b"", b"\x80", b"hello", blob[:-1], blob[: len(blob) // 2], b"." * 9):
        with pytest.raises(UsageError, match="cannot be read"):
            load_updater(kind, damaged, may_run_code=False)


# -- on a server ----------------------------------------------------------------------------------


@pytest.fixture
def talk(numpy_kind: str) -> Any:
    context = zmq.Context()
    made = Conversation(context, (0, 0), keys=(wire.KeySpec("w", (4,), "float32"),))
    yield made
    made.close()
    context.destroy(linger=0)


def push(talk: Conversation, child: int, round_: int) -> Any:
    said = wire.Push(0, 0, 0, 1, round_, True)
    return talk.send(child, said, np.full(4, 10.0**child, "float32").tobytes())


def test_a_server_trains_with_an_optimizer_of_another_framework(talk: Conversation) -> None:
    """One module and one line in the table: see the fixture numpy_kind."""
    sent = wire.SetUpdater(0, 1, "numpy", numpy_blob(1.0, 0.5))
    assert answers(talk.send(0, sent)) == [(0, wire.Accepted(0, 1))]
    talk.send(0, wire.Init(0, 0, 0, 1), bytes(16))
    for round_, expected in ((1, -11.0), (2, -27.5)):
        push(talk, 0, round_)
        push(talk, 1, round_)
        assert talk.value().tolist() == [expected] * 4
    (asked,) = talk.send(1, wire.GetState(0, 1, 0, 0, 0, 0))
    assert asked.message == wire.State(1, StateSpec(0, (("float32", (4,)),), 2, {}))
    assert np.frombuffer(asked.payload, "float32").tolist() == [-16.5] * 4


@pytest.mark.parametrize("kind", ["", "no-such-kind", "os", "tests.ps.updaters", "NumPy", "numpy "])
def test_no_module_is_imported_that_is_not_in_the_table(talk: Conversation, kind: str) -> None:
    modules = set(sys.modules)
    for _ in range(2):  # a repeat of what was refused is refused as well
        assert is_refused(talk.send(0, wire.SetUpdater(0, 1, kind, b"")), 0)
    known = ", ".join(sorted(KINDS))
    assert f"no optimizer of the kind {kind!r}; servers know {known}" in str(talk.told[-1])
    assert set(sys.modules) == modules
    push(talk, 0, 1)
    assert push(talk, 1, 1)  # it sums as before


def test_a_framework_that_is_not_installed_ends_the_job_with_the_remedy(
    talk: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KINDS, "numpy", "baryon.nowhere")
    talk.send(0, wire.SetUpdater(0, 1, "numpy", b""))
    (text,) = talk.faults
    assert "needs numpy on the servers" in text and "No module named 'baryon.nowhere'" in text
    assert f"install it in the environment of {sys.executable}" in text


def test_a_split_key_is_not_updated_by_an_optimizer_that_needs_whole_ones(
    numpy_kind: str,
) -> None:
    context = zmq.Context()
    size = 300_000  # two buckets
    made = Conversation(context, (0,), keys=(wire.KeySpec("w", (size,), "float32"),))
    blob = msgspec.json.encode(SGD(1.0, is_elementwise=False))
    made.send(0, wire.SetUpdater(0, 1, "numpy", blob))
    first = made.server._stores[0].plan["w"].slices[0]
    made.send(0, wire.Init(0, 0, 0, 1), bytes(first.nbytes))
    made.send(0, wire.Push(0, 0, 0, 1, 1, True), bytes(first.nbytes))
    (text,) = made.faults
    assert "SGD needs whole parameters, and key 'w' is in pieces" in text
    made.close()
    context.destroy(linger=0)
