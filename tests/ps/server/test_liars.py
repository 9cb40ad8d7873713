"""Children that say what is not so: each lie is answered to the liar, and changes nobody's numbers.

One server hears several children; what a lie has done is looked for on that server.
"""

import numpy as np
import pytest
import zmq

from baryon.ps import Child, wire
from baryon.worker.mxnet.pickled import dump_optimizer

from ..conversation import Conversation, answers, is_refused

# They lie in bucket 0, at positions 0 and 1.
KEYS = (wire.KeySpec("a", (4,), "float32"), wire.KeySpec("b", (4,), "float32"))


@pytest.fixture
def context():
    made = zmq.Context()
    yield made
    made.destroy(linger=0)


@pytest.fixture
def converse(context):
    made = []

    def make(**options):
        made.append(Conversation(context, **{"keys": KEYS, **options}))
        assert made[-1].faults == []
        return made[-1]

    yield make
    for conversation in made:
        conversation.close()


def values(number):
    return np.full(4, number, "float32").tobytes()


def push(talk, child, number, round_=1, position=0):
    return talk.send(child, wire.Push(0, 0, position, 1, round_, True), values(number))


def assert_round(talk, round_=1, position=0, children=(0, 1, 2)):
    """A round of those children gives all of them their sum."""
    for child in children:
        told = push(talk, child, 10.0**child, round_, position)
    total = values(sum(10.0**child for child in children))
    assert sorted((one.child, type(one.message), one.payload) for one in told) == [
        (child, wire.Answer, total) for child in children
    ]
    assert talk.faults == []


# -- who it is ----------------------------------------------------------------------------------


@pytest.mark.parametrize("member", [1, 2, 4, 5, 1023, 1024, 5000, 1 << 40, -1])
def test_nobody_speaks_as_another_member_of_the_hosts_memory(converse, member):
    """Neither as another child, whose memory would be read, nor as one that there is not."""
    talk = converse(members=(2, 3, 4))
    for child in range(3):
        talk.place(child)[:] = 10.0**child
    for child in (0, 2):
        assert talk.send(child, wire.Push(0, 0, 0, 1, 1, True)) == []
    lie = wire.Hello(wire.VERSION, 2, member, "token 1")
    assert is_refused(talk.send(1, lie, route="new"), 1)
    assert talk.send(1, wire.Push(0, 0, 0, 1, 1, True), route="new") == []
    told = talk.send(1, wire.Push(0, 0, 0, 1, 1, True))  # the one before is not given up
    assert {(one.child, one.message) for one in told} == {
        (child, wire.Answer(0, 0, 0, 1, True)) for child in range(3)
    }
    assert (talk.value() == 111.0).all() and talk.faults == []


@pytest.mark.parametrize("member", [1, 2, 5000])
def test_nobody_shares_memory_with_a_server_elsewhere(converse, member):
    talk = converse(members=(2, 0, 3))
    assert is_refused(talk.send(1, wire.Hello(wire.VERSION, 2, member, "token 1"), route="new"), 1)


@pytest.mark.parametrize("connection", [0, -1, 2])
def test_a_connection_says_hello_once(converse, connection):
    talk = converse()
    assert answers(talk.send(1, wire.Hello(wire.VERSION, 1, 0, "token 1"))) == [
        (1, wire.Hello(wire.VERSION, 1))
    ]
    assert is_refused(talk.send(1, wire.Hello(wire.VERSION, connection, 0, "token 1")), 1)
    assert_round(talk)


def test_a_shared_link_does_not_become_another_half_way(converse):
    talk = converse(members=(2, 3, 4))
    assert is_refused(talk.send(1, wire.Hello(wire.VERSION, 1, 0, "token 1")), 1)
    assert is_refused(talk.send(1, wire.Push(0, 0, 0, 1, 1, True), values(1.0)), 1)


def test_nothing_is_taken_from_who_has_not_said_hello_or_in_another_version(converse):
    talk = converse(members=(0, 0, 0, 0), introduces=3)
    late = wire.Open(0, "sync")
    first = wire.Hello(wire.VERSION - 1, 1, 0, "token 3")
    for message in (first, late, wire.Declare(0, 0, KEYS), wire.Pull(0, 0, 0, 1)):
        assert is_refused(talk.send(3, message), 3)
    talk.send(3, wire.Hello(wire.VERSION, 1, 0, "token 3"))
    assert talk.send(3, late) == talk.send(3, wire.Declare(0, 0, KEYS)) == []
    assert_round(talk, children=(0, 1, 2, 3))


# -- a batch ------------------------------------------------------------------------------------

GOOD = wire.Push(0, 0, 0, 1, 1, True)
WRONG = [
    wire.Pull(0, 7, 0, 1),  # no such bucket
    wire.Pull(9, 0, 0, 1),  # no such store
    wire.Push(0, 0, 1, 1, 9, True),  # a round to come
    wire.Init(0, 0, 0, 1),  # only worker 0's counts
    wire.Answer(0, 0, 0, 1, True),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda message: type(message).__name__)
@pytest.mark.parametrize("first", [True, False])
def test_what_is_wrong_in_a_batch_keeps_no_answer_from_others(converse, wrong, first):
    talk = converse(members=(2, 3, 4))
    for child in range(3):
        talk.place(child)[:] = 10.0**child
    for child in (0, 2):
        assert talk.send(child, GOOD) == []
    told = talk.send(1, wire.Batch((wrong, GOOD) if first else (GOOD, wrong)))
    assert [(one.child, one.message) for one in sorted(told[:3])] == [
        (child, wire.Answer(0, 0, 0, 1, True)) for child in range(3)
    ]
    assert is_refused(told[3:], 1)
    assert (talk.value() == 111.0).all() and talk.faults == []


def test_all_that_is_wrong_in_a_batch_is_said_at_once(converse):
    talk = converse()
    wrong = wire.PushRows(0, 0, 0, 7)
    told = talk.send(1, wire.Batch((wrong, wire.PullRows(0, 9, 0), wrong)), *[bytes(8)] * 3)
    assert is_refused(told, 1) and "; and 2 more of its batch" in told[0].message.text
    assert_round(talk)


# -- stores and keys ----------------------------------------------------------------------------

SPEC = wire.StateSpec(0, (("float32", (4,)),), 1, {})
NUMBERS = [-1, -(1 << 40), 8192, 1 << 40, (1 << 63) - 1]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("members", [(0, 0, 0), (2, 3, 4)])
def test_a_store_that_cannot_be_is_neither_opened_nor_used(converse, members, number):
    talk = converse(members=members)
    payload = () if any(members) else (values(1.0),)
    for message in (
        wire.Open(number, "sync"),
        wire.Close(number, 1),
        wire.Declare(number, 0, KEYS),
        wire.Pull(number, 0, 0, 1),
        wire.Join(number, 1, 1),
        wire.SetCompression(number, {"type": "fp16"}),
        wire.SetHyper(number, 1, 1, 1, {}, [], []),
    ):
        assert is_refused(talk.send(1, message), 1), message
    assert is_refused(talk.send(1, wire.Push(number, 0, 0, 1, 1, True), *payload), 1)
    assert is_refused(talk.send(1, wire.PutState(number, 1, 0, 0, 0, 0, SPEC), b""), 1)
    assert not talk.server._stores.closed and not talk.server._areas and talk.faults == []


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_staleness_below_zero_is_refused(converse, kind):
    talk = converse()
    assert is_refused(talk.send(1, wire.Open(1, kind, False, -1)), 1)
    assert talk.send(0, wire.Open(1, "async", False, 1)) == [] == talk.faults


IMPOSSIBLE = {
    "dtype": [("x", (2,), "complex64")],
    "below zero": [("x", (-2,), "float32")],
    "two below zero": [("x", (-2, -2), "float32")],
    "too big": [("x", (1 << 62,), "float32")],
    "too big, and empty": [("x", (0, 1 << 62, 1 << 62), "float32")],
    "dimensions": [("x", (1,) * 33, "float32")],
    "a name twice": [("x", (2,), "float32"), ("x", (2,), "float32")],
    "a name that is known": [("a", (2,), "float32")],
    "after one that is possible": [("x", (2,), "float32"), ("y", (2,), "object")],
}


@pytest.mark.parametrize("which", IMPOSSIBLE)
def test_a_key_that_cannot_be_is_refused_with_all_of_its_message(converse, which):
    talk = converse()
    specs = tuple(wire.KeySpec(*spec) for spec in IMPOSSIBLE[which])
    assert is_refused(talk.send(1, wire.Declare(0, 2, specs)), 1)
    assert len(talk.server._stores[0].plan.keys) == 2
    for child in (0, 2):  # others are not told that theirs is another
        assert talk.send(child, wire.Declare(0, 2, (wire.KeySpec("c", (4,), "float32"),))) == []
    assert_round(talk)


def test_who_has_not_declared_a_key_does_not_use_it(converse):
    talk = converse(members=(0, 0, 0, 0), introduces=3)
    talk.send(3, wire.Hello(wire.VERSION, 1, 0, "token 3"))
    where = (0, 0, 0)
    for opened in (False, True):
        assert is_refused(push(talk, 3, 1000.0), 3)
        assert is_refused(talk.send(3, wire.PushRows(*where, 1), bytes(8) + values(1)[:4]), 3)
        assert is_refused(talk.send(3, wire.Pull(*where, 1)), 3)
        assert is_refused(talk.send(3, wire.PullRows(*where), bytes(8)), 3)
        if not opened:
            talk.send(3, wire.Open(0, "sync"))
            assert talk.send(3, wire.Declare(0, 0, ())) == []
    assert talk.send(3, wire.Declare(0, 0, KEYS[:1])) == []
    assert is_refused(push(talk, 3, 1000.0, position=1), 3)
    assert_round(talk, children=(0, 1, 2, 3))


GUESTS = (Child("", "worker 9", (9,), "token 9", True),)
BELOW = (Child("", "server 9", (9,), "token 9", False),)


def test_a_guest_has_no_part_in_a_synchronous_store(converse):
    talk = converse(guests=GUESTS)
    guest = 3
    talk.send(guest, wire.Hello(wire.VERSION, 1, 0, "token 9"))
    talk.send(guest, wire.Open(0, "sync"))
    for message in (
        wire.Declare(0, 0, KEYS),
        wire.Declare(0, 0, ()),
        wire.Pull(0, 0, 0, 1),
        wire.Join(0, 1, 1),
        wire.SetCompression(0, {"type": "fp16"}),
        wire.SetUpdater(0, 1, "mxnet", b""),
    ):
        assert is_refused(talk.send(guest, message), guest), message
    assert is_refused(push(talk, guest, 1.0), guest)
    assert is_refused(talk.send(guest, wire.Init(0, 0, 0, 1), values(1.0)), guest)
    assert_round(talk)


def test_a_server_below_has_no_part_in_an_asynchronous_store(converse):
    """It would wait, and the look for waits would not find its rounds."""
    talk = converse(guests=BELOW, stores=(wire.Open(0, "async"),))
    below = 3
    talk.send(below, wire.Hello(wire.VERSION, 1, 0, "token 9"))
    talk.send(below, wire.Open(0, "async"))
    for message in (wire.Declare(0, 0, KEYS), wire.Pull(0, 0, 0, 1), wire.Join(0, 1, 1)):
        assert is_refused(talk.send(below, message), below), message
    talk.server._look_for_stalls()
    assert talk.faults == []


# -- what is closed -----------------------------------------------------------------------------


def test_who_has_closed_a_store_does_not_use_it(converse):
    talk = converse()
    assert answers(talk.send(1, wire.Close(0, 1))) == [(1, wire.Accepted(0, 1))]
    assert is_refused(push(talk, 1, 1.0), 1)
    for message in (wire.Open(0, "sync"), wire.Declare(0, 0, KEYS), wire.Pull(0, 0, 0, 1)):
        assert is_refused(talk.send(1, message), 1), message
    assert answers(talk.send(1, wire.Close(0, 1))) == [(1, wire.Accepted(0, 1))]
    talk.server.worker_left(1)
    assert_round(talk, children=(0, 2))


def test_a_store_that_all_have_closed_does_not_come_back(converse):
    talk = converse()
    for child in range(3):
        talk.send(child, wire.Close(0, 1))
    assert talk.server._stores == {}
    assert is_refused(talk.send(1, wire.Open(0, "sync")), 1)
    assert answers(talk.send(1, wire.Close(0, 1))) == [(1, wire.Accepted(0, 1))]
    assert talk.server._stores == {} == talk.server._stores.closed


@pytest.mark.parametrize("under_way", [wire.Push(0, 0, 0, 1, 1, True), wire.Pull(0, 0, 0, 1)])
def test_nobody_closes_what_it_has_something_under_way_in(converse, under_way):
    talk = converse()
    is_push = isinstance(under_way, wire.Push)
    assert talk.send(1, under_way, *([values(10.0)] if is_push else [])) == []
    assert is_refused(talk.send(1, wire.Close(0, 1)), 1)
    if not is_push:
        talk.send(0, wire.Init(0, 0, 0, 1), values(0))
    assert_round(talk)
    assert answers(talk.send(1, wire.Close(0, 1))) == [(1, wire.Accepted(0, 1))]


def test_an_answer_from_above_to_who_has_left_ends_nothing(converse):
    """The store may have been closed by all others meanwhile."""
    talk = converse(members=(0, 0), first_rank=1, has_parent=True)
    assert talk.send(1, wire.Pull(0, 0, 0, 1)) == []
    talk.run_posted()
    talk.server.worker_left(2)
    talk.send(0, wire.Close(0, 1))
    assert talk.server._stores == {}
    talk.run_posted()
    talk.from_above(wire.Answer(0, 0, 0, 1, True), values(1.0))
    for _ in range(3):
        talk.run_posted()
    talk.above.raise_if_failed()
    assert talk.above._core._stores == {} and talk.faults == []
    assert talk.server._failure is None


# -- what is under way --------------------------------------------------------------------------


def test_nothing_is_asked_for_twice_at_once(converse):
    """Or a child could have a server keep any number of questions."""
    talk = converse()
    ids = np.arange(2).tobytes()
    assert talk.send(1, wire.Pull(0, 0, 0, 1)) == talk.send(2, wire.PullRows(0, 0, 0), ids) == []
    for child in (1, 2):
        assert is_refused(talk.send(child, wire.Pull(0, 0, 0, 2)), child)
        assert is_refused(talk.send(child, wire.PullRows(0, 0, 0), ids), child)
    told = talk.send(0, wire.Init(0, 0, 0, 1), values(5.0))
    assert [(one.child, one.payload) for one in sorted(told)] == [
        (0, b""), (1, values(5.0)), (2, values(5.0)[:8]),
    ]  # fmt: skip
    assert talk.send(1, wire.Pull(0, 0, 1, 1)) == []  # refused with the first, so not asked before


def test_nobody_joins_with_a_contribution_under_way(converse, mx):
    """In a store of whole keys a part of a key would be added up in the next epoch."""
    big = (wire.KeySpec("a", (700, 600), "float32"),)  # two buckets
    talk = converse(stores=(wire.Open(0, "sync", True),), keys=big)
    first, second = talk.server._stores[0].plan.keys[0].slices
    optimizer = dump_optimizer(mx.optimizer.SGD(learning_rate=-1.0))
    talk.send(0, wire.SetUpdater(0, 1, "mxnet", optimizer))

    def part(child, slice_, number):
        payload = np.full(slice_.stop - slice_.start, number, "float32").tobytes()
        where = (0, slice_.bucket.index, slice_.position, 1)
        return talk.send(child, wire.Push(*where, 1, False), payload)

    assert part(1, first, 1000.0) == []
    assert is_refused(talk.send(1, wire.Join(0, 1, 1)), 1)
    talk.server.worker_left(1)
    for child in (0, 2):
        told = talk.send(child, wire.Join(0, 1, 1))
    assert answers(told) == [(child, wire.Joined(1)) for child in (0, 2)]
    for child in (0, 2):
        assert part(child, first, 10.0**child) == []
        told = part(child, second, 10.0**child)
    assert {(one.child, type(one.message)) for one in told} == {(0, wire.Answer), (2, wire.Answer)}
    value = talk.server._stores[0]._memory.key(talk.server._stores[0].plan.keys[0])
    assert (value == 101.0).all() and talk.faults == []


def test_a_refused_push_is_no_reason_to_refuse_compression(converse):
    talk = converse()
    assert is_refused(push(talk, 1, 1.0, round_=7), 1)
    assert is_refused(talk.send(1, wire.Push(0, 0, 0, 1, 1, True), b"short"), 1)
    for child in range(3):
        assert talk.send(child, wire.SetCompression(0, {"type": "fp16"})) == []
    assert_round(talk)


# -- states -------------------------------------------------------------------------------------

ARRAYS = SPEC.arrays
IMPOSSIBLE_STATES = {
    "no such array": (1, ARRAYS, 1),
    "an array below zero": (-1, ARRAYS, 1),
    "an array twice": (["tuple", 0, 0], ARRAYS, 1),
    "an array that is not used": (None, ARRAYS, 1),
    "an array that is a flag": (False, ARRAYS, 1),
    "another kind of sequence": (["set", 0], ARRAYS, 1),
    "an empty one": ([], ARRAYS, 1),
    "text": ("0", ARRAYS, 1),
    "a number": (0.0, ARRAYS, 1),
    "a value without its name": (["tuple", 0, {"number": 1}], ARRAYS, 1),
    "a value that is none": (["tuple", 0, {"value": [1]}], ARRAYS, 1),
    "a count below zero": (0, ARRAYS, -1),
    "a dtype": (0, (("object", (4,)),), 1),
    "a shape below zero": (0, (("float32", (-4,)),), 1),
    "too many dimensions": (0, (("float32", (1,) * 65),), 1),
    "too big, and empty": (0, (("float32", (0, 1 << 62, 1 << 62)),), 1),
    "too big": (0, (("float32", (1 << 62,)),), 1),
    "too big together": (["tuple", *range(4000)], (("float64", (1 << 34,)),) * 4000, 1),
}


@pytest.mark.parametrize("which", IMPOSSIBLE_STATES)
def test_a_state_that_cannot_be_is_refused(converse, mx, which):
    talk = converse()
    optimizer = dump_optimizer(mx.optimizer.SGD(learning_rate=-1.0, momentum=0.5))
    talk.send(0, wire.SetUpdater(0, 1, "mxnet", optimizer))
    talk.send(0, wire.Init(0, 0, 0, 1), values(0.0))
    spec = wire.StateSpec(*IMPOSSIBLE_STATES[which], {})
    for serial, payload in ((1, values(7.0)), (2, b"")):
        assert is_refused(talk.send(0, wire.PutState(0, serial, 0, 0, 0, 0, spec), payload), 0)
    assert_round(talk)


def nested(depth):
    layout = 0
    for _ in range(depth):
        layout = ["tuple", layout]
    return layout


def test_a_state_nested_without_end_is_refused(converse, mx):
    talk = converse()
    optimizer = dump_optimizer(mx.optimizer.SGD(learning_rate=-1.0, momentum=0.5))
    talk.send(0, wire.SetUpdater(0, 1, "mxnet", optimizer))
    talk.send(0, wire.Init(0, 0, 0, 1), values(0.0))
    for depth in (100, 500, 900):  # MessagePack's reader has a limit of its own beyond
        put = wire.PutState(0, depth, 0, 0, 0, 0, wire.StateSpec(nested(depth), ARRAYS, 1, {}))
        assert is_refused(talk.send(0, put, values(7.0)), 0)
    assert_round(talk)


def test_versions_of_attributes_are_rank_0s_to_make_and_to_name(converse, mx):
    talk = converse()
    optimizer = dump_optimizer(mx.optimizer.SGD(learning_rate=-1.0))

    def set_hyper(child, serial, version, oldest=0, **scalars):
        return talk.send(child, wire.SetHyper(0, serial, version, oldest, scalars, [], []))

    def name(child, version, number=1, position=0):
        push = wire.Push(0, 0, position, 1, number, True, False, version)
        return talk.send(child, push, values(10.0**child))

    assert is_refused(set_hyper(0, 1, 1), 0)  # of no optimizer
    talk.send(0, wire.SetUpdater(0, 1, "mxnet", optimizer))
    for key in range(2):
        talk.send(0, wire.Init(0, 0, key, 1), values(0))
    assert is_refused(set_hyper(1, 2, 1, lr=9.0), 1)
    assert is_refused(set_hyper(0, 2, 1, update=1), 0)
    assert is_refused(name(1, 0), 1)
    assert is_refused(name(0, 1), 0)
    assert is_refused(name(0, -1), 0)
    assert answers(set_hyper(0, 2, 1, lr=-2.0)) == [(0, wire.Accepted(0, 2))]
    name(0, 1)
    name(0, 0, position=1)  # it was made before
    assert answers(set_hyper(0, 3, 2, lr=-3.0)) == [(0, wire.Accepted(0, 3))]
    for child in (1, 2):
        for position in range(2):
            name(child, None, position=position)
    assert [talk.value(key=key)[0] for key in range(2)] == [222.0, 111.0]
    talk.send(0, wire.SetUpdater(0, 4, "mxnet", optimizer))  # and the numbers go on
    for child, version in ((0, 1), (1, None), (2, None)):
        name(child, version, 2)
    assert talk.value()[0] == 333.0
    for version, oldest in ((4, 0), (2, 0), (3, 4), (3, -1)):
        serial = talk.server._stores[0].settings.last + 1
        assert is_refused(set_hyper(0, serial, version, oldest), 0)
    assert talk.faults == []
