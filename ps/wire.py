"""The data plane's messages: what travels between a worker and a server.

A message is one *header* frame and, for some types, one *payload* frame. The header is a
MessagePack array ``[tag, field, ...]``. The payload is raw little-endian array bytes, never pickled
and never copied into the header. A *shared* link joins two tasks of a host that share its memory
(memory.py): there is no payload frame, because the bytes are in that memory, and several headers
may travel as one `Batch`. docs/protocol-data.md describes the same for other implementations.

Slices are named by position: ``(bucket, first, count)`` is a run of consecutive slices of one
bucket in the store's plan (plan.py), which worker and server compute alike. A contribution is named
by (sender, store, slice, round), so a repeat is recognised.

Nothing in this module does I/O.
"""

from typing import Any, Dict, List, Optional, Tuple, Type, Union

import msgspec

from .errors import ProtocolError

__all__ = [
    "VERSION",
    "MAX_HEADER_NBYTES",
    "MAX_PAYLOAD_NBYTES",
    "Accepted",
    "Answer",
    "AnswerRows",
    "Batch",
    "Close",
    "Codec",
    "Declare",
    "Fault",
    "GetState",
    "Hello",
    "Init",
    "Join",
    "Joined",
    "KeySpec",
    "Multipliers",
    "Open",
    "Pull",
    "PullRows",
    "Push",
    "PushRows",
    "PutState",
    "Scalar",
    "SetCompression",
    "SetHyper",
    "SetUpdater",
    "State",
    "StateSpec",
    "Stored",
    "DATA",
]

VERSION = 9
# An optimizer travels in a header: a big one holds a table of multipliers, not weights.
MAX_HEADER_NBYTES = 16 << 20
# A payload is a run of slices of one bucket (about 1 MiB).
MAX_PAYLOAD_NBYTES = 64 << 20
STATE_NBYTES = 4 << 20  # of one array of an optimizer's state, in one message

Multipliers = List[Tuple[Union[int, str], float]]
"""Factors of the learning rate or the weight decay, by key."""
Scalar = Union[bool, int, float, str, None]
"""A value that an optimizer's attribute may be given."""


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of every message of both planes; its tag on the wire is the class name.

    No message refers to itself, so Python's garbage collector can skip them all (``gc``).
    """


class KeySpec(msgspec.Struct, frozen=True, array_like=True):
    """One key of a store: ``name`` as the user gave it, shape, NumPy dtype name."""

    name: Union[int, str]
    shape: Tuple[int, ...]
    dtype: str


class Hello(Message, frozen=True, tag=True):
    """First message of a worker on each connection to a server, which answers with a Hello.

    ``connection`` counts the worker's connections to this server; the server listens to the latest.
    On a shared link, ``member`` is the number of the worker's area in the host's memory; otherwise
    it is 0.
    """

    version: int
    connection: int = 1  # absent in version 1
    member: int = 0  # absent before version 3, as is the next
    token: str = ""  # proves who it is, without encryption


class Open(Message, frozen=True, tag=True):
    """Begin to use store number ``store``. Each worker counts its stores in order of creation.

    ``kind`` is "sync" or "async"; ``staleness`` is that of an asynchronous store (async_store.py),
    and its plan is made with ``has_whole_keys`` (plan.py).
    """

    store: int
    kind: str
    has_whole_keys: bool = False
    staleness: Optional[int] = None


class Close(Message, frozen=True, tag=True):
    """The sender will not use a store again, has nothing under way and reads none of its values.

    It has forgotten the store: of this store, only Close is repeated on a new connection. Answered
    by Accepted. A server drops the store when every child has closed it or left. ``serial``
    continues the count of the sender's settings.
    """

    store: int
    serial: int


class Declare(Message, frozen=True, tag=True):
    """The sender's keys number ``first``, ``first + 1``, ... of a store, in its own order.

    A key may be declared again, and must be the same.
    """

    store: int
    first: int
    keys: Tuple[KeySpec, ...]


class Init(Message, frozen=True, tag=True):
    """Rank 0's initial value of a run of slices. Payload: the values. Answered without payload."""

    store: int
    bucket: int
    first: int
    count: int


class Push(Message, frozen=True, tag=True):
    """A contribution to round ``round`` of a run of slices. Payload: the values; if
    ``is_compressed``, those of a single slice, encoded by the store's codec.

    Answered when the round is complete, with the new values as payload if ``want_value``. Rank 0
    names the ``version`` of the hyper-parameters (`SetHyper`) for the round.
    """

    store: int
    bucket: int
    first: int
    count: int
    round: int
    want_value: bool
    is_compressed: bool = False
    version: Optional[int] = None


class Pull(Message, frozen=True, tag=True):
    """Ask for the values of a run of slices. Answered with payload once they exist."""

    store: int
    bucket: int
    first: int
    count: int


class PushRows(Message, frozen=True, tag=True):
    """A contribution to round ``round`` of one slice: some of its rows, perhaps none; the others
    are zero. Payload, also on a shared link: the rows' ids in the slice, int64, ascending without
    repeats, then the rows' elements. Answered like a Push that wants no value."""

    store: int
    bucket: int
    position: int
    round: int
    version: Optional[int] = None  # as in Push


class PullRows(Message, frozen=True, tag=True):
    """Ask for rows of one slice. Payload, also on a shared link: the ids, as in PushRows. Answered
    by AnswerRows once there is a value."""

    store: int
    bucket: int
    position: int


class SetUpdater(Message, frozen=True, tag=True):
    """From rank 0: update the weights with this optimizer instead of replacing them.

    ``kind`` names the framework, and ``blob`` is what that framework's code reads (updater.py).
    ``serial`` counts the SetUpdater and SetHyper of a store from 1, so that a repeat is recognised.
    """

    store: int
    serial: int
    kind: str
    blob: bytes


class SetHyper(Message, frozen=True, tag=True):
    """From rank 0: change hyper-parameters (``lr``, ``wd``, ...) and keys' multipliers.

    Each change makes the next version: a store's first change makes version 1. An optimizer begins
    with the last version, and the store's first one with version 0. A round is applied by the
    version that rank 0's Push has named, and by no newer one. No unanswered Push names a version
    older than ``oldest``.
    """

    store: int
    serial: int
    version: int
    oldest: int
    scalars: Dict[str, Scalar]
    lr_mult: Multipliers
    wd_mult: Multipliers


class StateSpec(msgspec.Struct, frozen=True, array_like=True):
    """An optimizer's state of a slice, without its arrays' elements (states.py).

    ``layout`` is None, the number of an array, ``["tuple" or "list", *layouts]``, or
    ``{"value": number}``. ``arrays`` has each array's (dtype, shape). ``count`` is the number of
    updates. ``scalars`` has the attributes that the optimizer itself has changed.
    """

    layout: Any
    arrays: Tuple[Tuple[str, Tuple[int, ...]], ...]
    count: int
    scalars: Dict[str, Any]


class Join(Message, frozen=True, tag=True):
    """The sender has no more data in this epoch of a store, the ``epoch``-th from 1.

    Rounds end without it until all have joined. Then Join is answered by Joined, and rounds are
    counted from 1 again.
    """

    store: int
    serial: int
    epoch: int


class Joined(Message, frozen=True, tag=True):
    """Answers Join number ``serial``."""

    serial: int


class GetState(Message, frozen=True, tag=True):
    """From a worker to an owner: ask for the optimizer's state of a slice, or of the whole key that
    begins with it; for the bytes of array number ``array`` from ``start`` on. Answered by State."""

    store: int
    serial: int
    bucket: int
    position: int
    array: int
    start: int


class State(Message, frozen=True, tag=True):
    """Answers GetState number ``serial``. ``spec`` is None if there is no state yet, or if it
    cannot be sent; then ``error`` says why. Payload: the bytes, at most `STATE_NBYTES`."""

    serial: int
    spec: Optional[StateSpec]
    error: str = ""  # absent before version 6


class PutState(Message, frozen=True, tag=True):
    """From worker 0 to an owner: bytes of an array of a state, named as in GetState.

    When all bytes of all arrays have come, the state replaces the present one. Payload: the bytes,
    perhaps none. Answered by Stored.
    """

    store: int
    serial: int
    bucket: int
    position: int
    array: int
    start: int
    spec: StateSpec


class Stored(Message, frozen=True, tag=True):
    """Answers PutState number ``serial``."""

    serial: int


class SetCompression(Message, frozen=True, tag=True):
    """From every worker, before its first Push: how to compress the payloads of a store
    (compression/setting.py). All workers must say the same; a repeat changes nothing."""

    store: int
    params: Dict[str, Union[bool, int, float, str]]


class Accepted(Message, frozen=True, tag=True):
    """The server has carried out the sender's SetUpdater, SetHyper or Close number ``serial``."""

    store: int
    serial: int


class Answer(Message, frozen=True, tag=True):
    """Completes Init, Push or Pull for a run of slices. Payload: the values, if ``has_value``.

    If ``is_compressed``, the payload is a single slice, encoded: the value or, if ``is_change``,
    the difference from the value that the receiver was sent last.
    """

    store: int
    bucket: int
    first: int
    count: int
    has_value: bool
    is_compressed: bool = False
    is_change: bool = False


class AnswerRows(Message, frozen=True, tag=True):
    """Completes PullRows. Payload, also on a shared link: the rows' elements, in their order."""

    store: int
    bucket: int
    position: int


Run = Union[Init, Push, Pull]
"""The messages that ask for something for a run of slices."""


class Batch(Message, frozen=True, tag=True):
    """Several small messages as one, to be handled in this order. A shared link may carry any of
    these types; other links only those of rows, and answers without a value. Payloads: those of
    PushRows, PullRows and AnswerRows, in order."""

    messages: Tuple[Union[Init, Push, Pull, PushRows, PullRows, Answer, AnswerRows], ...]


class Fault(Message, frozen=True, tag=True):
    """The server cannot go on (or cannot serve the receiver); ``text`` is for the user."""

    text: str


class Codec:
    """Encodes and decodes the headers of one closed set of message types.

    A plane is a list of types. Any other type, and a known type with wrong fields, raises a
    `ProtocolError` that says what is wrong.
    """

    def __init__(self, types: Tuple[Type[Message], ...]) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: Any = msgspec.msgpack.Decoder(Union[types])

    def encode(self, message: Message) -> bytes:
        return self._encoder.encode(message)

    def decode(self, header: Any) -> Any:
        """The message in ``header`` (bytes or a buffer); raises ProtocolError."""
        try:
            return self._decoder.decode(header)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(f"malformed header of {len(header)} bytes: {error}") from error


DATA = Codec(
    (
        Hello,
        Open,
        Close,
        Declare,
        Init,
        Push,
        Pull,
        PushRows,
        PullRows,
        SetUpdater,
        SetHyper,
        SetCompression,
        Join,
        Joined,
        GetState,
        State,
        PutState,
        Stored,
        Accepted,
        Answer,
        AnswerRows,
        Batch,
        Fault,
    )
)
