"""Children that say what is not so: each lie is answered to the liar, and changes nobody's numbers.

One server hears several children; what a lie has done is looked for on that server.
"""

import numpy as np
import pytest
import zmq

from baryon.ps import wire

from .conversation import Conversation, answers, is_refused

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
        made.append(Conversation(context, keys=KEYS, **options))
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
    assert is_refused(talk.send(1, wire.Open(0, "sync"), route="new"), 1)
    assert is_refused(talk.send(1, wire.Push(0, 0, 0, 1, 1, True), route="new"), 1)
    truth = wire.Hello(wire.VERSION, 3, 3, "token 1")
    assert answers(talk.send(1, truth, route="newer")) == [(1, wire.Hello(wire.VERSION, 3))]
    told = talk.send(1, wire.Push(0, 0, 0, 1, 1, True), route="newer")
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
