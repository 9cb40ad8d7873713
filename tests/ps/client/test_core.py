"""A client's core: what is sent when, what is sent again, what ends, by a clock that tests set."""

import numpy as np
import pytest

from baryon.ps import PeerError, ProtocolError, RowOperation, UsageError, wire
from baryon.ps.client import window
from baryon.ps.client.core import ClientCore
from baryon.ps.client.departures import Operation
from baryon.ps.client.requests import Request
from baryon.ps.client.staging import Staging
from baryon.ps.client.worker_store import WorkerStore
from baryon.ps.memory import Memory
from baryon.ps.plan import Plan
from baryon.ps.transport import CONTROL, ServerAddress

SILENCE_S = 10.0
OPEN = wire.Open(5, "sync")
ONES = np.ones(4, "f4").tobytes()


class Ended(Operation):
    """Remembers how it ended, each time."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.ends = []

    def done(self, error):
        self.ends.append(error)


class EndedRows(Ended, RowOperation):
    pass


class Scene:
    """A core, the time, and store 5, whose key "a" is server 0's and "b" the last server's."""

    def __init__(self, num_servers=2, is_shared=False, num_owners=None):
        self.now = 100.0
        self.failures = []
        servers = [ServerAddress(f"tcp://s{n}", "", is_shared) for n in range(num_servers)]
        owners = num_owners or num_servers
        self.core = ClientCore(
            servers, owners, name="worker 3", silence_s=SILENCE_S, now=self.now,
            on_failure=self.failures.append,
        )  # fmt: skip
        memory = Memory()
        self.store = WorkerStore(5, Plan(owners, bucket_nbytes=64), Staging(5, memory, memory))
        self.core.open(self.store, OPEN)
        self.declare("a", "float32")
        self.declare("b", "float64")

    def declare(self, name, dtype):
        key = self.store.add(name, (4,), dtype)
        spec = wire.KeySpec(name, (4,), dtype)
        self.core.introduce(wire.Declare(5, key.number, (spec,)))

    def sent(self):
        """(server, message) of what the core wants sent."""
        sends = [(server, message) for server, message, *_ in self.core.sends]
        self.core.sends.clear()
        return sends

    def begin(self, kind, name, want_value=True, priority=0):
        operation = Ended(kind, self.store.plan[name], want_value, priority)
        self.core.announce(self.store, operation)
        self.core.flush(self.store, [operation], self.now)
        return operation

    def receive(self, server, message, *payloads):
        self.core.received(server, [wire.DATA.encode(message), *payloads], self.now)

    def look(self, seconds, *is_up):
        """Look at the links as often as the core wants it, for so long."""
        for _ in range(int(seconds)):
            self.now += 1.0
            what = self.core.look(self.now, is_up)
            if what is not None:
                return what
        return None


@pytest.fixture
def scene():
    made = Scene()
    made.sent()
    return made


def push(bucket, round_=1, want_value=True):
    return wire.Push(5, bucket, 0, 1, round_, want_value)


def answer(bucket, has_value=True):
    return wire.Answer(5, bucket, 0, 1, has_value)


# -- what leaves --------------------------------------------------------------------------------


def test_all_servers_are_told_of_a_store_and_its_keys_in_order():
    sent = Scene().sent()
    assert [type(message) for server, message in sent if server == 0] == [
        wire.Open, wire.Declare, wire.Declare,
    ]  # fmt: skip
    assert [m for s, m in sent if s == 0] == [m for s, m in sent if s == 1]


def test_an_operation_goes_to_the_owner_with_its_bytes_and_its_priority(scene):
    scene.store.staging.outgoing.key(scene.store.plan["a"])[:] = 1.0
    scene.begin("push", "a", priority=-3)
    ((server, message, payload, priority),) = scene.core.sends
    assert (server, message, payload.tobytes(), priority) == (0, push(0), ONES, -3)
    scene.sent()
    scene.begin("pull", "b")
    assert scene.core.sends == [(1, wire.Pull(5, 1, 0, 1), None, 0)]


def test_control_messages_go_before_any_operation(scene):
    scene.declare("c", "int32")
    assert {priority for *_, priority in scene.core.sends} == {CONTROL}


def test_everything_goes_to_the_one_server_in_front_of_the_owners():
    scene = Scene(num_servers=1, num_owners=2)
    scene.sent()
    for name in "ab":
        scene.begin("push", name)
    assert scene.sent() == [(0, push(0)), (0, push(1))]


def test_between_tasks_of_a_host_only_headers_travel():
    scene = Scene(is_shared=True)
    scene.sent()
    operation = scene.begin("push", "a")
    assert scene.core.sends == [(0, push(0), None, 0)]
    scene.receive(0, wire.Batch((answer(0),)))
    assert operation.ends == [None]


def test_what_the_window_has_no_room_for_leaves_with_an_answer_or_after_a_while(monkeypatch):
    monkeypatch.setattr("baryon.ps.client.core._WINDOW_NBYTES", 16)
    monkeypatch.setattr("baryon.ps.client.core._LINK_NBYTES", 8)
    scene = Scene()
    scene.sent()
    scene.begin("push", "a")
    assert scene.sent() == [(0, push(0))] and scene.core.due is None
    second, third = scene.begin("push", "b"), scene.begin("push", "a")
    assert scene.sent() == []
    assert scene.core.due == scene.now + window._PATIENCE_S
    scene.receive(0, answer(0), ONES)
    assert scene.sent() == [(1, push(1))]
    scene.now = scene.core.due
    scene.core.pass_time(scene.now)  # there was an answer
    assert scene.sent() == []
    scene.now = scene.core.due
    scene.core.pass_time(scene.now)
    assert scene.sent() == [(0, push(0, round_=2))]
    assert second.ends == third.ends == []


# -- answers ------------------------------------------------------------------------------------


def test_an_operation_ends_with_its_answer_and_a_repeat_changes_nothing(scene):
    operation = scene.begin("push", "a")
    for _ in range(2):
        scene.receive(0, answer(0), ONES)
    assert operation.ends == [None]
    assert scene.store.staging.incoming.key(scene.store.plan["a"]).tolist() == [1.0] * 4
    assert (scene.core.num_unfinished, scene.core.num_finished) == (0, 1)


def test_a_batch_answers_rows_and_slices_each_with_its_own_payload():
    scene = Scene(num_servers=1)
    scene.sent()
    rows = EndedRows(
        "pull_rows", scene.store.plan["a"],
        {scene.store.plan["a"].slices[0]: np.array([2], "i8").view("u1")},
    )  # fmt: skip
    scene.core.announce(scene.store, rows)
    scene.core.flush(scene.store, [rows], scene.now)
    whole = scene.begin("push", "b", want_value=False)
    scene.receive(0, wire.Batch((answer(1, False), wire.AnswerRows(5, 0, 0))), ONES[:4])
    assert whole.ends == rows.ends == [None]
    assert [values.tobytes() for values in rows.values.values()] == [ONES[:4]]


@pytest.mark.parametrize(
    ("message", "payloads"),
    [
        (wire.Pull(5, 0, 0, 1), []),
        (wire.Answer(4, 0, 0, 1, False), []),
        (answer(7, False), []),
        (answer(1, False), []),
        (answer(-1, False), []),
        (answer(0), []),
        (answer(0, False), [ONES]),
        (wire.AnswerRows(5, 0, 0), []),
        (wire.Batch((wire.Pull(5, 0, 0, 1),)), []),
        (wire.Batch((wire.AnswerRows(5, 0, 0),)), []),
        (wire.Batch((answer(0, False),)), [ONES]),
    ],
)
def test_a_server_that_breaks_the_protocol_fails_everything_and_is_named(scene, message, payloads):
    operation = scene.begin("push", "b")
    scene.receive(0, message, *payloads)
    assert isinstance(scene.core.error, ProtocolError)
    (end,) = operation.ends
    assert end.startswith("server 0 broke the protocol: ")


# -- a new connection ---------------------------------------------------------------------------


def test_a_new_connection_repeats_all_that_its_server_may_not_know(scene):
    scene.core.configure(scene.store, setting, lambda: None, None)
    scene.core.ask(Request(0, lambda serial: wire.Join(5, serial, 1)))
    for name in "ab":
        scene.begin("push", name)
    first = Scene().sent()
    begun = [(0, setting(1)), (1, setting(1)), (0, wire.Join(5, 1, 1)), (0, push(0)), (1, push(1))]
    assert scene.sent() == begun
    for _ in range(2):
        for server in (0, 1):
            scene.core.connected(server)
            assert scene.sent() == [pair for pair in [*first, *begun] if pair[0] == server]


def test_what_is_answered_is_not_repeated(scene):
    scene.core.configure(scene.store, setting, lambda: None, None)
    scene.core.ask(Request(0, lambda serial: wire.Join(5, serial, 1)))
    scene.begin("push", "a")
    scene.sent()
    scene.receive(0, wire.Accepted(5, 1))
    scene.receive(0, wire.Joined(1))
    scene.receive(0, answer(0), ONES)
    scene.core.connected(0)
    again = [message for _, message in scene.sent() if type(message) is not wire.Declare]
    assert again == [OPEN]
    scene.core.connected(1)
    assert (1, setting(1)) in scene.sent()


def test_what_waits_for_the_window_is_not_sent_by_a_new_connection(monkeypatch):
    monkeypatch.setattr("baryon.ps.client.core._WINDOW_NBYTES", 16)
    monkeypatch.setattr("baryon.ps.client.core._LINK_NBYTES", 8)
    scene = Scene()
    scene.begin("push", "a")
    scene.begin("push", "b")
    scene.sent()
    scene.core.connected(1)
    assert [message for _, message in scene.sent() if isinstance(message, wire.Push)] == []


# -- settings, questions, ends of epochs --------------------------------------------------------


def setting(serial):
    return wire.SetHyper(5, serial, 1, 0, {"lr": 0.5}, [], [])


def test_a_setting_is_done_when_all_servers_have_accepted_it_once(scene):
    done = []
    scene.core.configure(scene.store, setting, lambda: done.append(1), None)
    for server in (0, 0):
        scene.receive(server, wire.Accepted(5, 1))
        assert not done and scene.core.num_unfinished == 1
    for server in (1, 1, 0):
        scene.receive(server, wire.Accepted(5, 1))
        assert done == [1] and scene.core.num_unfinished == 0


def test_an_epoch_ends_when_all_servers_say_so_and_rounds_begin_again(scene):
    done = []
    scene.begin("push", "a")
    scene.receive(0, answer(0), ONES)
    scene.sent()
    scene.core.join(scene.store, done.append)
    assert scene.sent() == [(0, wire.Join(5, 1, 1)), (1, wire.Join(5, 2, 1))]
    scene.receive(1, wire.Joined(2))
    scene.receive(1, wire.Joined(2))
    assert done == []
    scene.receive(0, wire.Joined(1))
    assert done == [None]
    scene.begin("push", "a")
    scene.core.join(scene.store, done.append)
    assert scene.sent() == [(0, push(0)), (0, wire.Join(5, 3, 2)), (1, wire.Join(5, 4, 2))]


def test_a_question_has_its_answer_or_ends_without(scene):
    done = []

    def ask(server):
        request = Request(server, lambda serial: wire.GetState(5, serial, 0, 0, 0, 0))
        request.done = lambda: done.append(request)
        scene.core.ask(request)
        return request

    first, second = ask(1), ask(0)
    scene.receive(1, wire.State(1, None), b"abc")
    assert done == [first]
    assert (first.answer, first.payload.tobytes()) == (wire.State(1, None), b"abc")
    scene.core.fail(UsageError("the end"))
    late = ask(0)
    assert done == [first, second, late]
    assert second.answer is late.answer is None


# -- closed stores ------------------------------------------------------------------------------


def test_a_closed_store_is_told_once_all_its_settings_are_and_not_introduced_again(scene):
    scene.core.configure(scene.store, setting, lambda: None, None)
    scene.sent()
    for server in (0, 1):
        scene.receive(server, wire.Accepted(5, 1))
    close = scene.core.forget(scene.store)
    assert close == wire.Close(5, 2) and scene.sent() == []
    scene.core.connected(0)
    assert scene.sent() == []
    scene.core.close(close)
    assert scene.sent() == [(0, close), (1, close)]
    scene.receive(1, wire.Accepted(5, 2))
    for server, again in [(0, [(0, close)]), (1, [])]:
        scene.core.connected(server)
        assert scene.sent() == again
    assert scene.core.num_unfinished == 1
    scene.receive(0, wire.Accepted(5, 2))
    assert scene.core.num_unfinished == 0


# -- waits and failures -------------------------------------------------------------------------


def test_idle_is_when_nothing_is_under_way_also_what_is_only_announced(scene):
    idle = []
    scene.core.when_idle(lambda: idle.append(1))
    assert idle == [1]
    operation = Ended("push", scene.store.plan["a"], False)
    scene.core.announce(scene.store, operation)
    scene.core.when_idle(lambda: idle.append(2))
    scene.core.flush(scene.store, [operation], scene.now)
    assert idle == [1]
    scene.receive(0, answer(0, False))
    assert idle == [1, 2]


def test_the_first_failure_ends_all_that_is_under_way_and_all_that_comes(scene):
    joined, idle, said_before = [], [], []
    sent = scene.begin("push", "a")
    held, ready = (Ended("push", scene.store.plan["b"], False) for _ in range(2))
    for operation in (held, ready):
        scene.core.announce(scene.store, operation)
    scene.core.flush(scene.store, [ready], scene.now)
    scene.core.join(scene.store, joined.append)
    scene.core.when_idle(lambda: idle.append(1))
    scene.core._on_failure = lambda error: said_before.append((error, list(sent.ends)))
    first = UsageError("the cause")
    scene.core.fail(first)
    scene.core.fail(PeerError("a consequence"))
    assert said_before == [(first, [])]
    assert sent.ends == ready.ends == ["the cause"] and held.ends == []
    assert joined == [first] and idle == [1]
    scene.sent()
    scene.core.flush(scene.store, [held], scene.now)
    late = scene.begin("pull", "a")
    assert held.ends == late.ends == ["the cause"]
    assert scene.sent() == [] and scene.core.num_unfinished == 0
    scene.core.when_idle(lambda: idle.append(2))
    assert idle == [1, 2]


def test_what_waits_for_the_window_fails_with_the_rest(monkeypatch):
    monkeypatch.setattr("baryon.ps.client.core._WINDOW_NBYTES", 16)
    monkeypatch.setattr("baryon.ps.client.core._LINK_NBYTES", 8)
    scene = Scene()
    begun = [scene.begin("push", name) for name in "ab"]
    scene.receive(1, wire.Fault("the optimizer has failed"))
    assert [operation.ends for operation in begun] == [["the optimizer has failed"]] * 2


def test_a_server_out_of_reach_for_too_long_fails_everything_and_is_named(scene):
    operation = scene.begin("push", "a")
    assert scene.look(SILENCE_S, False, True) is None
    what = scene.look(1, False, True)
    assert what.startswith("lost server 0 (tcp://s0) for 11 s: is the network between")
    assert operation.ends == [f"worker 3 has {what}"]
    assert [str(error) for error in scene.failures] == operation.ends
    assert scene.look(100, False, False) is None, "said once"


def test_servers_lost_together_are_named_together(scene):
    scene.look(3, False, True)
    assert "lost server 0 (tcp://s0) for 11 s and server 1 (tcp://s1) for 8 s" in scene.look(
        100, False, False
    )


def test_an_answer_ends_an_outage_and_a_greeting_does_not(scene):
    for message in (wire.Hello(wire.VERSION), wire.Accepted(5, 9)):
        assert scene.look(SILENCE_S - 1, False, True) is None
        scene.receive(0, message)
        assert (scene.core.outages.down_s[0] == 0.0) == isinstance(message, wire.Accepted)
        scene.receive(0, wire.Accepted(5, 9))


def test_what_a_server_has_added_up_is_left_alone_when_a_push_is_repeated():
    """Over shared memory, the sum of a round may grow where child 0 has put its gradient."""
    scene = Scene(is_shared=True)
    scene.sent()
    operation = Ended("push", scene.store.plan["a"], want_value=True)
    operation.source = np.frombuffer(ONES, np.uint8)
    scene.core.announce(scene.store, operation)
    scene.core.flush(scene.store, [operation], scene.now)
    place = scene.store.staging.outgoing.key(scene.store.plan["a"])
    assert place.tobytes() == ONES
    sum_ = np.full(4, 3.0, "f4").tobytes()
    place[:] = np.frombuffer(sum_, place.dtype)
    scene.sent()
    scene.core.connected(0)
    assert [type(message) for _, message in scene.sent()].count(wire.Push) == 1
    assert place.tobytes() == sum_
