"""The data plane's messages: what travels between a worker and a server.

A message is one *header* frame and, where its type says so, one *payload* frame. The header is a
MessagePack array ``[tag, field, ...]``; the payload is raw little-endian array bytes, never
pickled and never copied into the header. On a *shared* link, between two tasks of a host that
share its memory (memory.py), there is no payload frame: the bytes lie where both find them, and
several headers may go as one `Batch`. docs/protocol.md describes the same for readers who want to
speak it from elsewhere.

Slices are named by position: ``(bucket, first, count)`` is a run of consecutive slices of one
bucket in the store's plan (plan.py), which worker and server compute alike. Every contribution is
named by (sender, store, slice, round), so that a repeat is recognised.

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
    """Base of every message of either plane; its tag on the wire is the class name.

    No message refers to itself, so Python need not look for such (``gc``), and that often.
    """


class KeySpec(msgspec.Struct, frozen=True, array_like=True):
    """One key of a store: ``name`` as the user gave it, shape, NumPy dtype name."""

    name: Union[int, str]
    shape: Tuple[int, ...]
    dtype: str


class Hello(Message, frozen=True, tag=True):
    """First message of a worker on each connection to a server, which answers with the same.

    ``connection`` counts the worker's connections to this server. A server listens to the latest.
    ``member`` is the number of the worker's area in the memory of their common host, if the link
    is a shared one, and 0 otherwise.
    """

    version: int
    connection: int = 1  # absent in version 1
    member: int = 0  # absent before version 3, as is the next
    token: str = ""  # who it is, if nothing is encrypted


class Open(Message, frozen=True, tag=True):
    """Begin to use store number ``store`` (counted per worker, in order of creation).

    ``kind`` is "sync" or "async"; ``staleness`` is that of an asynchronous store (async_store.py),
    and its plan is made with ``has_whole_keys`` (plan.py).
    """

    store: int
    kind: str
    has_whole_keys: bool = False
    staleness: Optional[int] = None


class Close(Message, frozen=True, tag=True):
    """The sender will never use a store again, has nothing under way and reads none of its values.

    It has forgotten the store: on a new connection it says no more than this. Answered by Accepted;
    a server gives the store up when all its children have said so or left. ``serial`` is the next
    after those of the sender's settings.
    """

    store: int
    serial: int


class Declare(Message, frozen=True, tag=True):
    """The sender's keys number ``first``, ``first + 1``, ... of a store, in its own order.

    What was declared before may be declared again, and must be the same.
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
    """A contribution to round ``round`` of a run of slices. Payload: the values, or of a single
    slice, if ``is_compressed``, what the store's codec has made of them.

    Answered when the round is complete, with the new values as payload if ``want_value``. Rank 0
    says by which ``version`` of the optimizer's attributes (`SetHyper`) the round is to be applied.
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
    """A contribution to round ``round`` of one slice: some of its rows, perhaps none, all others
    being zero. Payload, also on a shared link: their ids in the slice, int64, ascending, each there
    once; then their elements. Answered as a Push that wants no value."""

    store: int
    bucket: int
    position: int
    round: int
    version: Optional[int] = None  # as of a Push


class PullRows(Message, frozen=True, tag=True):
    """Ask for rows of one slice. Payload, also on a shared link: their ids, as in PushRows.
    Answered by AnswerRows once there is a value."""

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
    """From rank 0: change attributes of the optimizer (``lr``, ``wd``, ...) and keys' multipliers.

    That makes version ``version`` of them: of a store's first change it is 1, then the next; an
    optimizer as it was set has the last version till then, and 0 if it is the first. A round is
    applied by the version that rank 0's Push has named, so by this one and by none that is newer.
    No push that is not answered names one older than ``oldest``.
    """

    store: int
    serial: int
    version: int
    oldest: int
    scalars: Dict[str, Scalar]
    lr_mult: Multipliers
    wd_mult: Multipliers


class StateSpec(msgspec.Struct, frozen=True, array_like=True):
    """What an optimizer's state of a slice is, but for its arrays' elements (states.py).

    ``layout`` is None, the number of an array, ``["tuple" or "list", *layouts]``, or
    ``{"value": number}``; ``arrays`` are (dtype, shape); ``count`` is how many updates there were;
    ``scalars`` are the attributes that the optimizer itself has changed.
    """

    layout: Any
    arrays: Tuple[Tuple[str, Tuple[int, ...]], ...]
    count: int
    scalars: Dict[str, Any]


class Join(Message, frozen=True, tag=True):
    """The sender has no more data in this epoch of a store, the ``epoch``-th from 1.

    Rounds end without it until all have joined, which is answered by Joined; then rounds are
    counted from 1 again.
    """

    store: int
    serial: int
    epoch: int


class Joined(Message, frozen=True, tag=True):
    """Answers Join number ``serial``."""

    serial: int


class GetState(Message, frozen=True, tag=True):
    """From a worker to an owner: the optimizer's state of a slice, or of the whole key that begins
    with it; of array number ``array`` the bytes from ``start`` on. Answered by a State."""

    store: int
    serial: int
    bucket: int
    position: int
    array: int
    start: int


class State(Message, frozen=True, tag=True):
    """Answers GetState number ``serial``; ``spec`` is None if there is no state yet, or if it
    cannot be sent: then ``error`` says why. Payload: the bytes, at most `STATE_NBYTES`."""

    serial: int
    spec: Optional[StateSpec]
    error: str = ""  # absent before version 6


class PutState(Message, frozen=True, tag=True):
    """From worker 0 to an owner: bytes of an array of a state, as GetState names it.

    Once all bytes of all arrays are there the state replaces the one that was. Payload: the bytes,
    perhaps none. Answered by a Stored.
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
    """From every worker, before its first Push: this is how the payloads of a store are compressed
    (compression/setting.py). All say the same; a repeat changes nothing."""

    store: int
    params: Dict[str, Union[bool, int, float, str]]


class Accepted(Message, frozen=True, tag=True):
    """The server has carried out the sender's SetUpdater, SetHyper or Close number ``serial``."""

    store: int
    serial: int


class Answer(Message, frozen=True, tag=True):
    """Completes Init, Push or Pull for a run of slices. Payload: the values, if ``has_value``.

    If ``is_compressed`` it is a single slice's, encoded: its value or, if ``is_change``, what is to
    be added to the value that the receiver was sent before.
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
"""What concerns a run of slices and is answered."""


class Batch(Message, frozen=True, tag=True):
    """Several small messages as one, to be taken in this order: on a shared link any of these, on
    others those of rows and answers without a value. Payloads: those of PushRows, PullRows and
    AnswerRows, one after the other."""

    messages: Tuple[Union[Init, Push, Pull, PushRows, PullRows, Answer, AnswerRows], ...]


class Fault(Message, frozen=True, tag=True):
    """The server cannot go on (or cannot serve the receiver); ``text`` is for the user."""

    text: str


class Codec:
    """Encodes and decodes the headers of one closed set of message types.

    A plane is a list of types; anything else, or a known type with wrong fields, is a
    `ProtocolError` that says what was wrong with it.
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
