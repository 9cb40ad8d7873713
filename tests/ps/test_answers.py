"""Values sent down compressed: one server's `Answers`, and its children's `Received`."""

import numpy as np
import pytest

from baryon.ps.answers import Answers, Compressed, Part, Received
from baryon.ps.compression import CODECS, compression_of
from baryon.ps.errors import ProtocolError
from baryon.ps.plan import Plan
from baryon.ps.server.slot import Reply
from baryon.ps.server.sync_store import SyncStore
from baryon.ps.wire import KeySpec

from .updaters import Calls

SIZE = 500


def setting(codec="fp16", min_size=64):
    return compression_of({"type": codec, "min_size": min_size, "answers": True})


@pytest.fixture
def plan():
    """Bucket 0: small, w, small2, v, u."""
    made = Plan(1)
    for name, size in [("small", 3), ("w", SIZE), ("small2", 5), ("v", SIZE), ("u", SIZE)]:
        made.add(name, (size,), "float32")
    return made


class Child:
    """A child that has what it was sent, as a client keeps it."""

    def __init__(self, number, compression):
        self.number = number
        self.received = Received(compression)
        self.ways = []

    def take(self, answers, slice_, value):
        (part,) = answers.parts(self.number, [slice_])
        self.ways.append("raw" if part.compressed is None else "sent")
        if part.compressed is not None:
            return self.received.decode(slice_, part.compressed).view("float32").copy()
        self.received.take(slice_, value.view(np.uint8))
        return value.copy()


@pytest.mark.parametrize("is_updated", [True, False], ids=["optimizer", "sum"])
@pytest.mark.parametrize("codec", CODECS)
def test_all_have_the_servers_bits_in_every_round(plan, codec, is_updated):
    compression = setting(codec)
    answers, slice_ = Answers(compression), plan["w"].slices[0]
    random = np.random.default_rng(1)
    value = random.standard_normal(SIZE).astype("float32")
    always, seldom, anew = (Child(number, compression) for number in range(3))
    for round_ in range(6):
        if is_updated:
            exact = answers.exact(slice_, value)
            exact += random.standard_normal(SIZE).astype("float32")
        else:
            value[:] = random.standard_normal(SIZE)
        answers.publish(slice_, value, is_updated)
        if round_ == 3:  # it connects again
            answers.forget(anew.number)
        for child in (always, seldom, anew) if round_ != 2 else (always, anew):
            assert child.take(answers, slice_, value).tobytes() == value.tobytes()
    if is_updated:
        assert always.ways == ["raw"] + ["sent"] * 5
        assert seldom.ways == ["raw", "sent", "raw", "sent", "sent"]
        assert anew.ways == ["raw", "sent", "sent", "raw", "sent", "sent"]
    else:  # whole values, which anybody can use
        assert {*always.ways, *seldom.ways, *anew.ways} == {"sent"}


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_lost_of_an_update_is_sent_later(plan, codec):
    """With nothing new to say, the values come to the exact ones."""
    answers, slice_ = Answers(setting(codec)), plan["w"].slices[0]
    value = np.zeros(SIZE, "float32")
    target = np.where(np.arange(SIZE) % 2, 1.5, -1.0).astype("float32")  # multiples of 0.5: 2bit
    answers.exact(slice_, value)[:] = target
    distances = []
    for _ in range(2000):
        answers.publish(slice_, value, is_updated=True)
        distances.append(float(np.abs(value - target).max()))
    assert distances[-1] < 0.05 < distances[0] or distances[0] < 1e-2


@pytest.mark.parametrize("codec", CODECS)
def test_an_optimizer_that_makes_weights_anew_is_not_led_astray(plan, codec):
    """Its weights do not build on the values: a residual would count what was lost twice."""
    answers, slice_ = Answers(setting(codec)), plan["w"].slices[0]
    value = np.zeros(SIZE, "float32")
    for round_ in range(2000):
        answers.exact(slice_, value)[:] = 0.5 + 0.5 * (round_ > 3)
        answers.publish(slice_, value, is_updated=True)
    assert np.abs(value - 1).max() < 0.05


def test_a_run_is_sent_in_as_few_parts_as_possible(plan):
    answers = Answers(setting())
    run = plan.buckets[0].slices
    values = {slice_: np.ones(slice_.stop - slice_.start, "float32") for slice_ in run}
    assert list(answers.parts(0, run)) == [Part(0, 5, None)]
    for slice_ in run:
        answers.exact(slice_, values[slice_])[:] = 2
        answers.publish(slice_, values[slice_], is_updated=True)
        assert (values[slice_] == 2).all()
    parts = list(answers.parts(0, run))
    assert [part[:2] for part in parts] == [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)]
    assert [part.compressed is None for part in parts] == [True, False, True, False, False]
    assert list(answers.parts(1, run)) == [Part(0, 5, None)]


def test_what_a_child_was_sent_before_it_said_that_it_compresses_does_not_count():
    store = SyncStore(0, Plan(1), range(2))
    for child in range(2):
        store.declare(child, 0, [KeySpec("w", (SIZE,), "float32")])
    store.updater = Calls(lambda slice_, merged, value, version: np.add(value, merged, out=value))
    store.init(0, 0, 0, 1, np.zeros(SIZE, "f4").view("u1"))
    reply = Reply(1, 0, 0, 1, True)

    def push(round_):
        for child in range(2):
            store.push(child, 0, 0, 1, round_, True, np.ones(SIZE, "f4").view("u1"))

    def is_compressed():
        ((same, compressed),) = store.parts(reply)
        assert same == reply
        return compressed is not None

    store.set_compression(0, setting())
    seen = [is_compressed()]  # a pull
    for round_ in range(1, 4):
        if round_ < 3:  # before the first round, and anew before the second
            store.set_compression(1, setting())
        push(round_)
        seen.append(is_compressed())
    assert seen == [False, False, False, True]


@pytest.mark.parametrize("codec", CODECS)
def test_an_optimizer_after_rounds_without_one_begins_with_whole_values(plan, codec):
    """Who was sent an encoded sum has kept no value to which a change could be added."""
    compression = setting(codec)
    answers, slice_ = Answers(compression), plan["w"].slices[0]
    value, child = np.zeros(SIZE, "float32"), Child(0, compression)
    for round_ in range(5):
        if round_ < 2:
            value[:] = round_
        else:
            answers.exact(slice_, value)[:] += 1
        answers.publish(slice_, value, is_updated=round_ >= 2)
        assert child.take(answers, slice_, value).tobytes() == value.tobytes()
    assert child.ways == ["sent", "sent", "raw", "sent", "sent"]


def test_small_keys_are_updated_where_they_lie(plan):
    answers, value = Answers(setting()), np.zeros(3, "float32")
    assert answers.exact(plan["small"].slices[0], value) is value
    assert answers.exact(plan["w"].slices[0], np.zeros(SIZE, "float32")) is not value


@pytest.mark.parametrize("size", [600, 513])  # the last slice of one element is not compressed
def test_a_whole_key_is_updated_at_once_and_sent_slice_by_slice(size):
    plan = Plan(1, bucket_nbytes=1024, has_whole_keys=True)
    key = plan.add("w", (size,), "float32")
    answers = Answers(setting("1bit"), has_whole_keys=True)
    value = np.zeros(size, "float32")
    exact = answers.exact(key.slices[0], value)
    assert exact.size == size
    exact[:] = 1
    for slice_ in key.slices:
        answers.publish(slice_, value[slice_.start : slice_.stop], is_updated=True)
    assert (value == 1).all()


def test_a_relay_passes_on_what_came_and_nothing_else(plan):
    answers, slice_ = Answers(setting()), plan["w"].slices[0]
    change = Compressed(np.zeros(2 * SIZE, np.uint8), True)
    seen = []
    for compressed in (None, change, change, None, change):
        answers.pass_on(slice_, compressed)
        (part,) = answers.parts(0, [slice_])
        seen.append(part.compressed)
    assert seen == [None, change, change, None, change]


def test_values_that_cannot_be_are_refused(plan):
    received = Received(setting())
    w, small = plan["w"].slices[0], plan["small"].slices[0]
    payload = np.zeros(2 * SIZE, np.uint8)
    with pytest.raises(ProtocolError, match="value has not been sent"):
        received.decode(w, Compressed(payload, True))
    with pytest.raises(ProtocolError, match="not to be compressed"):
        received.decode(small, Compressed(payload, False))
    with pytest.raises(ProtocolError, match="999 bytes of fp16"):
        received.decode(w, Compressed(payload[1:], False))


def test_infinite_and_nan_weights_are_seen_by_all(plan):
    compression = setting("topk")
    answers, slice_ = Answers(compression), plan["w"].slices[0]
    value, child = np.zeros(SIZE, "float32"), Child(0, compression)
    for bad in (0.0, np.inf, np.nan):
        answers.exact(slice_, value)[7] = bad
        answers.publish(slice_, value, is_updated=True)
        assert child.take(answers, slice_, value).tobytes() == value.tobytes()
    assert np.isnan(value[7]) and np.isfinite(value).sum() == SIZE - 1
