"""Optimizer states: nested, in pieces, from a server and back."""

import numpy as np
import pytest
import zmq

from baryon.ps import compression_of, states, wire
from baryon.ps.errors import ProtocolError, UsageError
from baryon.ps.plan import Plan
from baryon.ps.states import Arrivals, SliceState, piece_of, pieces
from baryon.worker.mxnet.pickled import dump_optimizer

from .conversation import Conversation

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:mxnet.*")


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(states, "STATE_NBYTES", 16)


def test_a_state_arrives_in_pieces_some_of_them_twice(small_pieces):
    arrays = [np.arange(10, dtype="float32"), np.ones((3, 2), "float32")]
    spec = wire.StateSpec(
        ["tuple", 0, None, 1], tuple((a.dtype.name, a.shape) for a in arrays), 4, {}
    )
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


# -- on a server ---------------------------------------------------------------------------------


KEY = wire.KeySpec("w", (4,), "float32")


@pytest.fixture
def harness(mx):
    """A server with two workers, an SGD with momentum, and key "w" of four zeros."""
    context = zmq.Context()
    made = Conversation(context, (0, 0), keys=(KEY,))
    optimizer = dump_optimizer(mx.optimizer.SGD(learning_rate=1.0, momentum=0.5))
    made.send(0, wire.SetUpdater(0, 1, "mxnet", optimizer))
    made.send(0, wire.Init(0, 0, 0, 1), bytes(16))
    yield made
    made.close()
    context.destroy(linger=0)


def assert_serves(harness):
    """A first round of both workers is completed."""
    for worker in range(2):
        push = wire.Push(0, 0, 0, 1, 1, True)
        said = harness.send(worker, push, np.ones(4, np.float32).tobytes())
    assert [type(one.message) for one in said] == [wire.Answer] * 2


def spec_of(*arrays, layout=0, count=1):
    return wire.StateSpec(layout, tuple((a.dtype.name, a.shape) for a in arrays), count, {})


def put(harness, serial, momentum, start=0):
    """Send the piece of momentum that begins at a byte."""
    payload = piece_of([momentum], 0, start).tobytes()
    harness.send(0, wire.PutState(0, serial, 0, 0, 0, start, spec_of(momentum)), payload)


def state_of(harness):
    slice_ = harness.server._stores[0].plan["w"].slices[0]
    state = harness.server._stores[0].updater.state(slice_)
    return None if state is None else state.arrays[0].tolist()


def told(harness):
    found = [one.message for one in harness.told]
    harness.told.clear()
    return found


def test_a_piece_that_comes_again_once_the_state_is_there_is_answered_only(harness):
    put(harness, 1, np.full(4, 8.0, np.float32))
    assert_serves(harness)
    assert state_of(harness) == [2.0] * 4  # 8 / 2 - 2
    told(harness)
    put(harness, 1, np.full(4, 8.0, np.float32))
    assert told(harness) == [wire.Stored(1)]
    assert state_of(harness) == [2.0] * 4


def test_the_next_state_has_nothing_of_a_piece_that_came_again(harness, small_pieces):
    old, new = (np.full(8, number, np.float32) for number in (1, 2))
    for serial, start, momentum in [(1, 0, old), (2, 16, old), (2, 16, old), (3, 0, new)]:
        put(harness, serial, momentum, start)
    assert state_of(harness) == [1.0] * 8
    put(harness, 4, new, 16)
    assert state_of(harness) == [2.0] * 8


def test_an_optimizer_ends_what_has_come_in_part(harness, mx, small_pieces):
    put(harness, 1, np.full(8, 1, np.float32))
    optimizer = dump_optimizer(mx.optimizer.SGD(momentum=0.5))
    harness.send(0, wire.SetUpdater(0, 2, "mxnet", optimizer))
    put(harness, 2, np.full(8, 2, np.float32), 16)
    assert state_of(harness) is None
    put(harness, 3, np.full(8, 2, np.float32))
    assert state_of(harness) == [2.0] * 8


def test_there_is_no_state_before_there_is_an_optimizer(harness):
    ask_for = wire.GetState(1, 5, 0, 0, 0, 0)
    harness.send(1, ask_for)  # worker 0 has not got as far as opening this store
    for worker in range(2):
        harness.send(worker, wire.Open(1, "sync"))
        harness.send(worker, wire.Declare(1, 0, (KEY,)))
    told(harness)
    harness.send(1, ask_for)
    assert told(harness) == [wire.State(5, None)]


def test_who_asks_before_the_first_value_does_not_make_it_zeros(harness, mx):
    compression = compression_of({"type": "fp16", "min_size": 1, "answers": True})
    for worker in range(2):
        harness.send(worker, wire.Open(1, "sync"))
        harness.send(worker, wire.Declare(1, 0, (KEY,)))
        harness.send(worker, wire.SetCompression(1, compression.params))
    optimizer = dump_optimizer(mx.optimizer.SGD(learning_rate=1.0))
    harness.send(0, wire.SetUpdater(1, 1, "mxnet", optimizer))
    told(harness)
    harness.send(1, wire.GetState(1, 5, 0, 0, 0, 0))
    harness.send(0, wire.PutState(1, 6, 0, 0, 0, 0, spec_of(np.ones(4, np.float32))), bytes(16))
    no_state, refusal = told(harness)
    assert no_state == wire.State(5, None) and "has no value yet" in refusal.text
    harness.send(0, wire.Init(1, 0, 0, 1), np.full(4, 7, np.float32).tobytes())
    for worker in range(2):
        push = wire.Push(1, 0, 0, 1, 1, True)
        harness.send(worker, push, np.ones(4, np.float32).tobytes())
    assert harness.server._stores[1]._slots[0][0].value.tolist() == [5.0] * 4


def test_a_piece_of_what_is_not_on_its_way_is_refused(harness):
    put(harness, 1, np.ones(4, np.float32))
    told(harness)
    harness.send(1, wire.GetState(0, 1, 0, 0, 0, 8))
    (fault,) = told(harness)
    assert "server 0 refused a message: worker 1 asked for the rest of a state" in fault.text
    assert_serves(harness)
    assert harness.faults == []


def test_a_state_that_cannot_travel_is_told_to_who_asks(harness, mx):
    store = harness.server._stores[0]
    slice_ = store.plan["w"].slices[0]
    put(harness, 1, np.ones(4, np.float32))
    store.updater._slices[slice_].state = {"m": mx.nd.zeros(4)}
    told(harness)
    harness.send(1, wire.GetState(0, 1, 0, 0, 0, 0))
    (answer,) = told(harness)
    assert answer.spec is None and "key 'w': an optimizer's state has a dict in it" in answer.error
    assert harness.faults == []


def test_an_error_in_place_of_a_state_is_raised_where_it_was_asked_for(job):
    made = job(num_workers=1)
    worker, server = made.worker(0), made.servers[0]

    def answer(child, message):
        server._reply(child, wire.State(message.serial, None, "no dicts"))
        return []

    made.in_server(server._handlers.update, {wire.GetState: answer})
    with pytest.raises(UsageError, match="server 0: no dicts"):
        worker.client.ask(0, lambda serial: wire.GetState(0, serial, 0, 0, 0, 0))
