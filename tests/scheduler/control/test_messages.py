"""The control plane's bytes: what goes in comes out, and nothing else is let in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baryon.ps import Message, ProtocolError
from baryon.scheduler.control import messages
from baryon.scheduler.control.messages import CONTROL

SPEC = messages.TaskSpec(
    "worker-0", "program", ("python", "", "日本", "a b"), "/", {"A": "1"}, b"\x00\xff"
)
EXAMPLES = [
    messages.AgentHello("0.1.0", "host.example", 1 << 22, "10.0.0.1", "tcp://10.0.0.9:1"),
    messages.Output("worker-0", True, False, b"caf\xe9\n\x00"),
    messages.Exited("worker-0", -9, 1.25, ""),
    messages.Exited("worker-0", 137, 1.25, "", 0, True),
    messages.Exited("worker-0", 127, 0.0, "no such file: 'ü'"),
    messages.Alive(),
    messages.Alive(("worker-0", "server-1")),
    messages.Alive(positions=(messages.Position(0, 2, "initialised key 'w'", (0, 3), (1, 0)),)),
    messages.Gone(),
    messages.Gone(3),
    messages.Join(7, "tcp://127.0.0.1:5000"),
    messages.Gather("call 3 of store 0", "barrier 'the end of epoch 3\n'", b""),
    messages.Gather("ü", "allgather", b"\x00\xff"),
    messages.Failed("why\nwhere"),
    messages.StartTasks((SPEC, SPEC)),
    messages.StartTasks(()),
    messages.StopTasks("worker", 15, 5.0),
    messages.EndProcess("worker-0", 7, 5.0),
    messages.Release(),
    messages.Suspend(1800.0),
    messages.Suspended(),
    messages.Resume(),
    messages.Roster((messages.Peer("tcp://h:1", "k" * 40), messages.Peer("tcp://g:2", "l" * 40))),
    messages.Gathered("x", ((0, b""), (2, b"\x00\xff"))),
    messages.Gathered("x", ()),
    messages.Abort("worker 1 has ended"),
    messages.Left(3),
]


def name(message):
    return type(message).__name__


@pytest.mark.parametrize("message", EXAMPLES, ids=name)
def test_every_message_survives_the_wire(message):
    assert CONTROL.decode(CONTROL.encode(message)) == message
    assert CONTROL.decode(memoryview(CONTROL.encode(message))) == message


def test_every_message_has_an_example_here():
    parts = {"TaskSpec", "Peer", "Position"}  # travel inside others
    public = {getattr(messages, name) for name in messages.__all__ if name not in parts}
    kinds = {kind for kind in public if isinstance(kind, type) and issubclass(kind, Message)}
    assert kinds == {type(example) for example in EXAMPLES}


@pytest.mark.parametrize("message", EXAMPLES, ids=name)
def test_what_is_cut_off_is_an_error(message):
    encoded = CONTROL.encode(message)
    for size in range(len(encoded)):
        with pytest.raises(ProtocolError):
            CONTROL.decode(encoded[:size])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"hello",
        b"\x90",  # []
        b"\x91\xa5Hello",  # ["Hello"], which belongs to the data plane
        b"\x92\xa5Alive\x90x",  # ["Alive", []] and something behind it
        b"\x91\xa4Left",  # no rank
        b"\x92\xa4Left\xa1x",  # its rank a text
        b"\x94\xa6Gather\xa2\xff\xfe\xa1c\xc4\x00",  # its name not UTF-8
        b"\x94\xa6Gather\xa1n\xa1c\xa1v",  # its value a text
        b"\x93\xa6Gather\xa1n\xa1c",  # no value
        b"\x93\xa8Gathered\xa1x\x91\x91\x00",  # a rank without a value
        b"\x93\xa8Gathered\xa1x\x91\x92\xa10\xc4\x00",  # a text for a rank
        b"\x81\xa4type\xa5Alive",  # an object instead of an array
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=repr,
)
def test_what_is_not_a_message_is_an_error_that_says_so(data):
    with pytest.raises(ProtocolError, match=f"malformed header of {len(data)} bytes: ."):
        CONTROL.decode(data)


def test_nesting_without_end_is_an_error_too():
    with pytest.raises(ProtocolError):
        CONTROL.decode(b"\x92\xa5Alive" + b"\x91" * 100_000 + b"\xc0")


@given(data=st.binary(max_size=64))
def test_no_bytes_do_worse_than_a_protocol_error(data):
    try:
        message = CONTROL.decode(data)
    except ProtocolError:
        return
    assert isinstance(message, Message)


@given(index=st.integers(0, len(EXAMPLES) - 1), place=st.integers(0, 200), byte=st.integers(0, 255))
def test_no_damaged_message_does_worse_either(index, place, byte):
    data = bytearray(CONTROL.encode(EXAMPLES[index]))
    data[place % len(data)] = byte
    try:
        message = CONTROL.decode(bytes(data))
    except ProtocolError:
        return
    assert isinstance(message, Message)
