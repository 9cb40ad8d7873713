"""Headers on the wire: what is sent is what is read, and nothing else can be read."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baryon.ps import wire
from baryon.ps.errors import ProtocolError
from baryon.ps.wire import DATA

TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)
NUMBER = st.integers(-(2**63), 2**64 - 1)
NAME = st.one_of(NUMBER, TEXT)
WHERE = dict.fromkeys(("store", "bucket", "first", "count"), NUMBER)
MULTIPLIERS = st.lists(st.tuples(NAME, st.floats(allow_nan=False)), max_size=3)
SPECS = st.builds(wire.KeySpec, NAME, st.lists(NUMBER, max_size=4).map(tuple), TEXT)
SCALARS = st.dictionaries(TEXT, st.none() | st.booleans() | st.floats(allow_nan=False))
STATES = st.builds(
    wire.StateSpec,
    st.recursive(st.none() | NUMBER, lambda inner: st.lists(inner, max_size=3), max_leaves=5),
    st.lists(st.tuples(TEXT, st.lists(NUMBER, max_size=3).map(tuple)), max_size=2).map(tuple),
    NUMBER,
    SCALARS,
)
PARAMS = st.dictionaries(TEXT, st.booleans() | NUMBER | st.floats(allow_nan=False) | TEXT)
PLACE = dict.fromkeys(("store", "serial", "bucket", "position", "array", "start"), NUMBER)
SPEC = wire.StateSpec(["tuple", 0, None], (("float32", (2, 3)),), 4, {"m_schedule": 0.5})
STRATEGIES = [
    st.builds(wire.Hello, version=NUMBER, connection=NUMBER),
    st.builds(
        wire.Open,
        store=NUMBER,
        kind=TEXT,
        has_whole_keys=st.booleans(),
        staleness=st.none() | NUMBER,
    ),
    st.builds(wire.Close, store=NUMBER, serial=NUMBER),
    st.builds(wire.Join, store=NUMBER, serial=NUMBER, epoch=NUMBER),
    st.builds(wire.Joined, serial=NUMBER),
    st.builds(wire.GetState, **PLACE),
    st.builds(wire.State, NUMBER, st.none() | STATES, TEXT),
    st.builds(wire.PutState, spec=STATES, **PLACE),
    st.builds(wire.Stored, NUMBER),
    st.builds(
        wire.Declare, store=NUMBER, first=NUMBER, keys=st.lists(SPECS, max_size=3).map(tuple)
    ),
    st.builds(wire.Init, **WHERE),
    st.builds(
        wire.Push,
        round=NUMBER,
        want_value=st.booleans(),
        is_compressed=st.booleans(),
        version=st.none() | NUMBER,
        **WHERE,
    ),
    st.builds(wire.Pull, **WHERE),
    st.builds(
        wire.PushRows,
        store=NUMBER,
        bucket=NUMBER,
        position=NUMBER,
        round=NUMBER,
        version=st.none() | NUMBER,
    ),
    st.builds(wire.PullRows, store=NUMBER, bucket=NUMBER, position=NUMBER),
    st.builds(wire.AnswerRows, store=NUMBER, bucket=NUMBER, position=NUMBER),
    st.builds(
        wire.SetUpdater,
        store=NUMBER,
        serial=NUMBER,
        kind=TEXT,
        blob=st.binary(max_size=20),
    ),
    st.builds(
        wire.SetHyper,
        NUMBER,
        NUMBER,
        NUMBER,
        NUMBER,
        st.dictionaries(TEXT, st.none() | st.booleans() | st.floats(allow_nan=False) | TEXT),
        MULTIPLIERS,
        MULTIPLIERS,
    ),
    st.builds(wire.Accepted, store=NUMBER, serial=NUMBER),
    st.builds(wire.SetCompression, NUMBER, PARAMS),
    st.builds(
        wire.Answer,
        **dict.fromkeys(("has_value", "is_compressed", "is_change"), st.booleans()),
        **WHERE,
    ),
    st.builds(
        wire.Batch,
        st.lists(
            st.builds(wire.Init, **WHERE)
            | st.builds(wire.Pull, **WHERE)
            | st.builds(wire.PushRows, st.just(0), st.just(1), st.just(2), st.just(3)),
            max_size=3,
        ).map(tuple),
    ),
    st.builds(wire.Fault, text=TEXT),
]
MESSAGES = st.one_of(STRATEGIES)
SAMPLES = [
    wire.Hello(1, 2),
    wire.Batch((wire.Pull(0, 1, 2, 3), wire.Answer(0, 1, 2, 3, True))),
    wire.Open(0, "sync"),
    wire.Open(1, "async", True, 3),
    wire.Close(1, 3),
    wire.Join(0, 5, 1),
    wire.Joined(5),
    wire.GetState(0, 1, 2, 3, 0, 4096),
    wire.State(1, None),
    wire.State(1, SPEC),
    wire.PutState(0, 1, 2, 3, 1, 0, SPEC),
    wire.Stored(1),
    wire.Declare(0, 3, (wire.KeySpec("w", (2, 3), "float32"), wire.KeySpec(7, (), "int8"))),
    wire.Init(0, 1, 2, 3),
    wire.Push(0, 1, 2, 3, 4, True),
    wire.Pull(0, 1, 2, 3),
    wire.PushRows(0, 1, 2, 7),
    wire.PullRows(0, 1, 2),
    wire.AnswerRows(0, 1, 2),
    wire.SetUpdater(0, 1, "mxnet", b"\x80"),
    wire.Accepted(2, 3),
    wire.SetHyper(1, 2, 1, 0, {"lr": 0.5, "clip_gradient": None}, [(0, 2.0)], [("w", 0.0)]),
    wire.SetCompression(0, {"type": "topk", "ratio": 0.5, "min_size": 4096, "answers": True}),
    wire.Answer(0, 1, 2, 3, False),
    wire.Fault("no"),
]


class Foreign(wire.Message, frozen=True, tag=True):
    """A message of some other plane."""

    version: int


def refused(header):
    with pytest.raises(ProtocolError, match="malformed header"):
        DATA.decode(header)


def test_the_cases_here_are_all_messages_of_the_data_plane():
    ours = {t for t in wire.Message.__subclasses__() if t.__module__ == wire.__name__}
    assert {type(sample) for sample in SAMPLES} == ours
    assert len(STRATEGIES) == len(ours)


@given(MESSAGES)
def test_every_message_survives_the_way(message):
    header = DATA.encode(message)
    assert DATA.decode(header) == message
    assert DATA.decode(memoryview(bytearray(header))) == message


@pytest.mark.parametrize("message", SAMPLES, ids=lambda m: type(m).__name__)
def test_a_header_is_its_tag_and_its_fields_in_order(message):
    """The format that docs/protocol.md promises to those who speak it from elsewhere."""
    tag, *fields = msgspec.msgpack.decode(DATA.encode(message))
    assert tag == type(message).__name__
    assert len(fields) == len(message.__struct_fields__)
    for value, name in zip(fields, message.__struct_fields__):
        if isinstance(getattr(message, name), (int, str, bytes)):
            assert value == getattr(message, name)


@pytest.mark.parametrize("message", SAMPLES, ids=lambda m: type(m).__name__)
def test_a_truncated_header_is_refused(message):
    header = DATA.encode(message)
    for length in range(len(header)):
        refused(header[:length])


@pytest.mark.parametrize("message", SAMPLES, ids=lambda m: type(m).__name__)
def test_bytes_after_the_header_are_refused(message):
    refused(DATA.encode(message) + b"\xc0")


@given(st.binary(max_size=64))
def test_random_bytes_give_a_message_or_a_protocol_error(data):
    decode_or_refuse(data)


@given(MESSAGES, st.data())
def test_a_damaged_header_gives_a_message_or_a_protocol_error(message, data):
    header = bytearray(DATA.encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        header[data.draw(st.integers(0, len(header) - 1))] = data.draw(st.integers(0, 255))
    decode_or_refuse(bytes(header))


PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBER, st.floats(), TEXT, st.binary(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=6), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=12,
)


@given(st.sampled_from(SAMPLES), st.lists(PLAIN, max_size=6))
def test_any_fields_behind_a_known_tag_give_a_message_or_a_protocol_error(sample, fields):
    decode_or_refuse(msgspec.msgpack.encode([type(sample).__name__, *fields]))


def decode_or_refuse(data):
    try:
        message = DATA.decode(data)
    except ProtocolError:
        return
    assert type(message) in {type(sample) for sample in SAMPLES}


@pytest.mark.parametrize(
    "content",
    [
        None, 7, "Hello", [], {}, ["Hello"], ["Nothing", 1], [1, 1], ["Hello", "1"], ["Hello", 1.5],
        ["Hello", None], ["hello", 1], ["Push", 0, 1, 2, 3, 4, 1], ["Push", 0, 1, 2, 3, 4],
        ["Declare", 0, 0, 5], ["Declare", 0, 0, [["w", [2.5], "float32"]]],
        ["Declare", 0, 0, [["w", "22", "float32"]]], ["Declare", 0, 0, [[None, [2], "float32"]]],
        ["SetUpdater", 0, 1, "mxnet", 5], ["SetUpdater", 0, 1, b"", b""],
        ["SetUpdater", 0, 1, "mxnet"], ["SetUpdater", 0, "mxnet", b""],
        {"type": "Hello", "version": 1},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_tags_and_wrong_fields_are_refused(content):
    refused(msgspec.msgpack.encode(content))


def test_text_that_is_not_utf8_is_refused():
    refused(b"\x92\xa5Fault\xa2\xff\xfe")


def test_a_header_that_claims_more_than_it_has_is_refused():
    refused(DATA.encode(wire.Declare(0, 0, ()))[:-1] + b"\xdd\x00\xff\xff\xff")


def test_a_header_that_nests_without_end_is_refused():
    """What lies behind the last field is skipped, however deep it nests."""
    refused(b"\x93\xa5Hello\x01" + b"\x91" * 100_000 + b"\x01")


def test_a_message_of_another_plane_is_refused():
    other = wire.Codec((Foreign,))
    refused(other.encode(Foreign(1)))
    with pytest.raises(ProtocolError):
        other.decode(DATA.encode(wire.Hello(1)))
    assert other.decode(other.encode(Foreign(1))) == Foreign(1)
