"""Optimizer states: nested, in pieces, from a server and back."""

import numpy as np
import pytest

from baryon.ps import states, wire
from baryon.ps.errors import ProtocolError, UsageError
from baryon.ps.optimizer import SliceUpdater
from baryon.ps.plan import Plan
from baryon.ps.states import Arrivals, SliceState, flatten, layout_of, piece_of, pieces, unflatten

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:mxnet.*")


def nested(mx):
    return (mx.nd.ones((2, 3)), None, [mx.nd.array([5], dtype="int64"), 0.5], (None,))


def test_a_nested_state_comes_back(mx):
    layout, arrays = flatten(nested(mx))
    assert layout == ["tuple", 0, None, ["list", 1, {"value": 0.5}], ["tuple", None]]
    again = unflatten(layout, arrays)
    assert flatten(again)[0] == layout and again[0].asnumpy().tolist() == [[1.0] * 3] * 2
    assert again[2][0].dtype == np.int64 and isinstance(again[2], list)


def test_layouts_are_compared_without_the_numbers(mx):
    assert layout_of([0.5, mx.nd.zeros(1)]) == layout_of([7, mx.nd.ones(9)])
    assert layout_of([0.5]) != layout_of((0.5,))


def test_a_state_of_anything_else_is_refused(mx):
    with pytest.raises(UsageError, match="has a dict in it"):
        flatten({"m": mx.nd.zeros(1)})


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(states, "STATE_NBYTES", 16)


def test_a_state_arrives_in_pieces_some_of_them_twice(mx, small_pieces):
    layout, arrays = flatten((mx.nd.arange(10), None, mx.nd.ones((3, 2))))
    spec = wire.StateSpec(layout, tuple((a.dtype.name, a.shape) for a in arrays), 4, {})
    state = SliceState(spec, arrays)
    slice_ = Plan(1).add("w", (10,), "float32").slices[0]
    arrivals, found = Arrivals(), []
    for array, start in pieces(arrays):
        for _ in range(2):
            piece = piece_of(state.arrays, array, start)
            assert piece.nbytes <= 16
            found.append(arrivals.put(slice_, spec, array, start, piece))
            if found[-1] is not None:
                break
    assert [one is not None for one in found] == [False] * (len(found) - 1) + [True]
    assert all((a == b).all() for a, b in zip(found[-1].arrays, arrays))


def test_a_state_without_arrays_arrives_too():
    slice_ = Plan(1).add("w", (10,), "float32").slices[0]
    spec = wire.StateSpec(None, (), 4, {})
    assert Arrivals().put(slice_, spec, 0, 0, np.empty(0, np.uint8)) == SliceState(spec, [])


@pytest.mark.parametrize(
    ("arrays", "array", "start", "nbytes"),
    [
        ((("float32", (10,)),), 1, 0, 40),
        ((("float32", (10,)),), 0, 44, 40),
        ((("float32", (10,)),), 0, -4, 40),
        ((("float32", (10,)),), 0, 0, 36),
        ((("object", (10,)),), 0, 0, 80),
        ((("float32", (-1,)),), 0, 0, 0),
        ((("float32", (1 << 40, 1 << 40)),), 0, 0, 0),
    ],
)
def test_pieces_of_no_possible_state_are_refused(arrays, array, start, nbytes):
    slice_ = Plan(1).add("w", (10,), "float32").slices[0]
    spec = wire.StateSpec(0, arrays, 0, {})
    with pytest.raises(ProtocolError):
        Arrivals().put(slice_, spec, array, start, np.zeros(nbytes, np.uint8))


@pytest.mark.parametrize("name", ["sgd", "adam", "nadam", "ftml", "dcasgd", "rmsprop", "lamb"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_updater_goes_on_from_the_state_of_another(mx, name, dtype):
    key = Plan(1, has_whole_keys=name == "lamb").add("w", (6, 5), dtype)
    chance = np.random.RandomState(0)
    gradients = chance.randn(6, 30).astype(dtype)

    def updater_of():
        options = {"momentum": 0.9} if name == "sgd" else {}
        return SliceUpdater(
            mx.optimizer.create(
                name, learning_rate=0.1, multi_precision=dtype != "float32", **options
            )
        )

    unbroken, value = updater_of(), np.ones(30, dtype)
    for gradient in gradients[:3]:
        unbroken(key.slices[0], gradient, value)
    state, restored, copied = unbroken.state(key.slices[0]), updater_of(), value.copy()
    restored.restore(key.slices[0], copied, state)
    for gradient in gradients[3:]:
        unbroken(key.slices[0], gradient, value)
        restored(key.slices[0], gradient, copied)
    assert value.tolist() == copied.tolist()
    assert updater_of().state(key.slices[0]) is None
