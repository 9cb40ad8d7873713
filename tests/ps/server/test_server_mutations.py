"""Messages that lie, field by field and bit by bit, in the midst of a conversation of several
children: afterwards, on the same server, the others' rounds end with the right values.

A lie may be refused (its sender is told), be nothing but another thing that its sender may say, or
show that children disagree about what they must agree on, which ends the job with their names. What
else it may do to others is listed, and why: `AGREEMENTS`, `THEIR_OWN`, and other rows of its own
gradient. BARYON_TEST_LIES says how many are tried of each child, 100000 is all.
"""

import logging
import os
import random
import re
from collections import Counter

import msgspec
import numpy as np
import pytest
import zmq

from baryon.ps import Child, SliceState, wire
from baryon.worker.mxnet.pickled import dump_optimizer
from baryon.worker.mxnet.updater import MXNetUpdater

from ..conversation import Conversation

KEYS = (
    wire.KeySpec("a", (4,), "float32"),
    wire.KeySpec("b", (4,), "float32"),
    wire.KeySpec("r", (5, 2), "float32"),
)
DENSE, ROWS = (0, 1), 2  # positions in bucket 0
IDS = [0, 3]
# A plain store, one with an optimizer, and an asynchronous one.
STORES = (wire.Open(0, "sync"), wire.Open(1, "sync"), wire.Open(2, "async"))
WORKERS, GUEST = (0, 1, 2), 3
SPEC = wire.StateSpec(0, (("float32", (4,)),), 1, {})

# What worker 0 alone decides, for all: the optimizer, its attributes and its state.
THEIR_OWN = {0: {"SetUpdater", "SetHyper", "PutState"}}
# Other values of its own: where memory is shared, a Push of the slice of rows is all of it.
GRADIENTS = {"Push", "PushRows", "Batch"}
# What makes a job end since its children do not agree, or since worker 0's optimizer is none.
AGREEMENTS = [
    r"kvstore number \d+ is .* on worker \d and .* on worker \d",
    r"gradient compression is .* on worker \d",
    r"set gradient compression when worker \d had pushed",
    r"the optimizer (cannot be read|refers to|is a class of the script's own)|set_optimizer got",
]


def values(child, size=4):
    return np.full(size, 10.0**child, "float32")


class Adder(MXNetUpdater):
    """Adds gradients to weights in NumPy, since MXNet takes its time; the rest is the real one."""

    def update(self, unit, gradient, value, version=None):
        value += gradient


class World(Conversation):
    """Stores that are in the same round everywhere, and what their values must be."""

    def __init__(self, context, mx, members):
        guests = (Child("", "worker 9", (9,), "token 9", True),)
        super().__init__(context, members, guests, STORES, KEYS)
        logging.disable(logging.CRITICAL)
        self.round = 0
        self.routes = {}
        self.apart = set()  # who has said that it shares no memory
        self.blob = dump_optimizer(mx.optimizer.SGD(), [("a", 0.5)])
        self.before = {}  # (store, key) -> value, where it grows
        for store in (1, 2):
            adder = Adder(mx.optimizer.SGD(learning_rate=-1.0, momentum=0.5))
            self.server._stores[store].set_updater(adder)
            self.server._stores[store].settings.is_new(1)
        for store in (1, 2):
            if members[0]:
                self.place(0, store)[:] = 0
            self.send(0, wire.Init(store, 0, 0, 1), *([] if members[0] else [bytes(16)]))
        self.send(GUEST, wire.Hello(wire.VERSION, 1, 0, "token 9"))
        self.send(GUEST, wire.Open(2, "async"))
        adder = self.server._stores[1].updater
        slice_ = self.server._stores[1].plan.keys[0].slices[0]
        state = SliceState(SPEC, [np.zeros(4, "float32")])
        adder.restore(slice_, self.value(1), state)
        self.play(None, [])  # so that every slice has a value

    def payload(self, child, *parts):
        """Of a Push: nothing where memory is shared."""
        if child < len(self._members) and self._members[child] and child not in self.apart:
            return []
        data = b"".join(part.tobytes().ljust(64, b"\0") for part in parts[:-1])
        return [data + parts[-1].tobytes()]

    def pushes(self, child):
        """The contributions of a child to the present round."""
        one, round_ = values(child), self.round
        rows = np.array(IDS, np.int64).tobytes() + values(child, 4).tobytes()
        return [
            (wire.Push(0, 0, 0, 2, round_, True), *self.payload(child, one, one)),
            (wire.PushRows(0, 0, ROWS, round_), rows),
            (wire.Push(1, 0, 0, 1, round_, True), *self.payload(child, one)),
            (wire.Push(2, 0, 0, 1, round_, True), *self.payload(child, one)),
        ]

    def contribute(self, child):
        for push in self.pushes(child):
            self.hand_over(
                child, [wire.DATA.encode(push[0]), *push[1:]], self.routes.get(child, "")
            )

    def play(self, liar, frames, is_last=True, route="", is_out=lambda told: False):
        """A round in which somebody also says something else; returns what the liar was told of
        that, and what was wrong with what others were told and with the values."""
        self.round += 1
        others = [child for child in WORKERS if child != liar]
        self.told.clear()
        for child, member in enumerate(self._members):  # sums may have grown there
            for store, key in ((0, 0), (0, 1), (1, 0), (2, 0)) if member else ():
                self.place(child, store, key)[:] = values(child)
        for child in others if is_last else ():
            self.contribute(child)
        told = self.hand_over(liar, frames, route) if frames else []
        if self.server._failure is not None:
            return told, []
        takes_part = liar in WORKERS
        if is_out(told):
            takes_part = False
            self.server.worker_left(liar)
        for child in () if is_last else others:
            self.contribute(child)
        if takes_part:
            self.contribute(liar)
        return told, self.wrong(others, others + [liar] * takes_part)

    def wrong(self, others, contributors):
        total = sum(10.0**child for child in contributors)
        expected = [(0, 0), (0, 1), (1, 0), (2, 0)]
        wrong = []
        for name in expected:
            value, before = self.value(*name), self.before.get(name, 0.0)
            if not (value - before == total).all():
                wrong.append((name, value.tolist()))
            if name[0]:
                self.before[name] = value.copy()
        rows = self.value(0, ROWS).reshape(5, 2)
        if not (rows[IDS] == total).all() or rows.sum() != 4 * total:
            wrong.append(((0, ROWS), rows.tolist()))
        return wrong + [one for child in others for one in self.wrongly_told(child, total)]

    def wrongly_told(self, child, total):
        """What a child should not have been told in this round, or in another way."""
        told = [one for one in self.told if one.child == child]
        wrong = [one for one in told if not isinstance(one.message, wire.Answer)]
        answered = Counter()
        for _, m, payload in (one for one in told if one not in wrong):
            run = range(m.first, m.first + m.count)
            answered.update((m.store, position, m.has_value) for position in run)
            for at in range(0, len(payload) if m.store == 0 else 0, 64):
                if payload[at : at + 16] != np.full(4, total, "float32").tobytes():
                    wrong.append((child, m, payload))
        expected = [(0, 0, True), (0, 1, True), (0, ROWS, False), (1, 0, True), (2, 0, True)]
        return wrong if answered == Counter(expected) else [*wrong, (child, answered)]


def sayings(world, liar):
    """One of everything that a child may say, and of what is not for a server."""
    member = 0 if liar == GUEST else world._members[liar]
    token = "token 9" if liar == GUEST else f"token {liar}"
    ids = np.array(IDS, np.int64).tobytes()
    one = values(liar)
    said = [
        (wire.Hello(wire.VERSION, 2, member, token),),
        (wire.Open(3, "sync"),),
        (wire.Open(3, "async", False, 3),),
        (wire.Open(0, "sync"),),
        (wire.Close(0, 1),),
        (wire.Declare(0, 3, (wire.KeySpec("v", (2, 3), "float16"),)),),
        (wire.Declare(0, 0, KEYS),),
        (wire.Init(0, 0, 0, 1), *world.payload(liar, one)),
        *world.pushes(liar),
        (wire.Pull(0, 0, 0, 2),),
        (wire.PullRows(0, 0, ROWS), ids),
        (wire.Batch((wire.Pull(0, 0, 0, 1), wire.PullRows(0, 0, ROWS), world.pushes(liar)[1][0])),
         ids, world.pushes(liar)[1][1]),
        (wire.SetUpdater(1, 2, "mxnet", world.blob),),
        (wire.SetHyper(1, 2, 1, 0, {"lr": 0.5}, [("a", 0.5)], []),),
        (wire.SetCompression(0, {"type": "2bit", "threshold": 0.5}),),
        (wire.Join(0, 1, 1),),
        (wire.GetState(1, 1, 0, 0, 0, 0),),
        (wire.PutState(1, world.round + 1, 0, 0, 0, 0, SPEC), one.tobytes()),
        (wire.Accepted(0, 1),),
        (wire.Answer(0, 0, 0, 1, True), one.tobytes()),
        (wire.AnswerRows(0, 0, ROWS), one.tobytes()),
        (wire.Joined(1),),
        (wire.State(1, SPEC), one.tobytes()),
        (wire.Stored(1),),
        (wire.Fault("text"),),
    ]  # fmt: skip
    return [[wire.DATA.encode(message), *payload] for message, *payload in said]


HOSTILE = [
    None, True, False, -1, 0, 1, 2, 3, 5, 255, 1023, 5000, 1 << 31, 1 << 40, (1 << 63) - 1,
    -(1 << 63), (1 << 64) - 1, 0.5, -1e300, float("nan"), float("inf"), "", "a", "sync", "async",
    "x" * 5000, b"", bytes(9), [], [0], [[]], [["a", [4], "float32"]], {}, {"a": 1}, {"lr": -1},
]  # fmt: skip


def places(node, path=()):
    """Of all that a header consists of, but for its tag."""
    items = enumerate(node) if isinstance(node, list) else node.items()
    for place, inner in items:
        if path or place:
            yield (*path, place)
        if isinstance(inner, (list, dict)):
            yield from places(inner, (*path, place))


def changed(node, path, value):
    if not path:
        return value
    copy = list(node) if isinstance(node, list) else dict(node)
    copy[path[0]] = changed(node[path[0]], path[1:], value)
    return copy


def lies_of(frames):
    """(place, lie): every lie in one place, and headers and payloads too long or short. A lie makes
    other frames of any of that kind of message."""
    told = msgspec.msgpack.decode(frames[0])

    def header_with(change):
        def lie(frames):
            return [msgspec.msgpack.encode(change(msgspec.msgpack.decode(frames[0]))), *frames[1:]]

        return lie

    for place in places(told):
        for value in HOSTILE:
            yield place, header_with(lambda told, p=place, v=value: changed(told, p, v))
    for change in (
        lambda told: told[:-1], lambda told: [*told, 0], lambda told: [], lambda told: ["Nothing"],
        lambda told: told[0], lambda told: told[1:], lambda told: [told],
    ):  # fmt: skip
        yield "fields", header_with(change)
    for at in range(1, len(frames)):
        for change in (
            lambda payload: b"", lambda payload: payload[:-1], lambda payload: payload[:-8],
            lambda payload: payload + b"x", lambda payload: payload + bytes(16),
        ):  # fmt: skip
            yield "payload", lambda f, n=at, c=change: [*f[:n], c(f[n]), *f[n + 1 :]]
    for change in (
        lambda f: f[:1], lambda f: [f[0], *f[2:]], lambda f: [*f, b""], lambda f: [*f, bytes(16)],
        lambda f: [],
    ):  # fmt: skip
        yield "frames", change


def bit_by_bit(chance, frames):
    """One to three changes: bits, bytes and length of the header, frames that are more or fewer."""
    frames = [bytearray(frame) for frame in frames]
    for _ in range(chance.randrange(1, 4)):
        how, header = chance.randrange(6), frames[0] if frames else bytearray()
        if how <= 2 and header:
            at = chance.randrange(min(len(header), 200))
            header[at] = chance.choice(
                [header[at] ^ 1 << chance.randrange(8), chance.randrange(256)]
            )
        elif how == 3 and header:
            del header[chance.randrange(len(header)) :]
        elif frames and how == 4:
            del frames[chance.randrange(len(frames))]
        else:
            noise = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 40)))
            frames.insert(chance.randrange(len(frames) + 1), bytearray(noise))
    return [bytes(frame) for frame in frames]


class Trial:
    """Lies of one child, each told to a server that has heard others before, as far as these have
    left it as it was."""

    def __init__(self, context, mx, members, liar):
        self._make = lambda: World(context, mx, members)
        self._liar = liar
        self.world = self._make()
        self.outcomes = Counter()
        self.effects = []

    def sayings(self):
        self.world.round += 1
        said = sayings(self.world, self._liar)
        self.world.round -= 1
        return said

    def tell(self, which, place, frames, is_last):
        world, liar = self.world, self._liar
        tag = msgspec.msgpack.decode(self.sayings()[which][0])[0]
        is_hello = tag == "Hello"
        route = "new" if is_hello else world.routes.get(liar, "")

        def is_refused(told):
            return any(isinstance(one.message, wire.Fault) for one in told if one.child == liar)

        def is_out(told):
            return tag in ("Join", "Close") and not is_refused(told)

        def hello_again(told):
            if is_hello and not is_refused(told) and told:
                world.routes[liar] = route
                if not wire.DATA.decode(frames[0]).member:
                    world.apart.add(liar)
            return is_out(told)

        told, wrong = world.play(liar, frames, is_last, route, hello_again)
        failure = world.server._failure
        what = "refused" if is_refused(told) else "taken"
        is_own = tag in THEIR_OWN.get(liar, ()) and not is_refused(told)
        if failure is not None:
            what = "the end"
            if not (is_own or any(re.search(known, failure) for known in AGREEMENTS)):
                self.effects.append((tag, place, frames, failure))
        elif wrong:
            what = "taken with effect"
            is_gradient = {one[0] for one in wrong} == {(0, ROWS)} and tag in GRADIENTS
            if not (is_own or is_gradient):
                self.effects.append((tag, place, frames, wrong))
        self.outcomes[what] += 1
        if what != "refused" or is_hello:
            world.close()
            self.world = self._make()

    def close(self):
        self.world.close()
        logging.disable(logging.NOTSET)


LIES = int(os.environ.get("BARYON_TEST_LIES", "150"))  # of each child; there are some 6,400
SHARED, APART = (2, 3, 4), (0, 0, 0)


@pytest.fixture
def trial(mx):
    context, trials = zmq.Context(), []

    def make(members, liar):
        trials.append(Trial(context, mx, members, liar))
        return trials[-1]

    yield make
    for made in trials:
        made.close()
    context.destroy(linger=0)


@pytest.mark.parametrize("members", [APART, SHARED], ids=["apart", "shared"])
@pytest.mark.parametrize("liar", [0, 1, 2, GUEST])
def test_a_lie_in_any_field_is_nobody_elses_trouble(trial, members, liar):
    tried = trial(members, liar)
    chance = random.Random(liar)
    said = enumerate(tried.sayings())
    lies = [(which, *lie) for which, frames in said for lie in lies_of(frames)]
    for which, place, lie in chance.sample(lies, min(LIES, len(lies))):
        tried.tell(which, place, lie(tried.sayings()[which]), chance.random() < 0.5)
    assert not tried.effects, tried.effects[:10]
    assert tried.outcomes["refused"] > tried.outcomes["taken"] > 0, tried.outcomes


@pytest.mark.parametrize("members", [APART, SHARED], ids=["apart", "shared"])
def test_noise_is_nobody_elses_trouble(trial, members):
    tried = trial(members, 1)
    chance = random.Random(1)
    for _ in range(LIES):
        said = tried.sayings()
        which = chance.randrange(len(said))
        tried.tell(which, "", bit_by_bit(chance, said[which]), chance.random() < 0.5)
    assert not tried.effects, tried.effects[:10]
    assert tried.outcomes["refused"] > tried.outcomes["taken"] > 0, tried.outcomes


@pytest.mark.parametrize("members", [APART, SHARED], ids=["apart", "shared"])
def test_what_everybody_says_as_it_should_be_said_does_no_harm(trial, members):
    """What the trials above rest on."""
    tried = trial(members, 1)
    for _ in range(3):
        told, wrong = tried.world.play(None, [])
        assert told == wrong == []
    assert tried.world.faults == []
