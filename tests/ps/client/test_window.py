"""How much is under way at a time: urgent first, together, and never stuck."""

import pytest

from baryon.ps.client.window import Window


class Clock:
    """The one thing of a reactor that a window uses."""

    def __init__(self):
        self.due = []

    def call_later(self, delay_s, callback):
        self.due.append(callback)

    def pass_time(self):
        due, self.due = self.due, []
        for callback in due:
            callback()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def sent():
    return []


@pytest.fixture
def window(clock, sent):
    return Window(clock, 100, sent.append, lambda: None)


def put(window, *items):
    for priority, nbytes, name in items:
        window.put(priority, nbytes, name)
    window.flush()


def test_what_has_room_is_sent_and_the_rest_when_there_is_room_again(window, sent):
    put(window, (0, 60, "a"), (0, 40, "b"), (0, 30, "c"), (0, 30, "d"))
    assert sent == ["a", "b"]
    window.answered(40)
    window.flush()
    assert sent == ["a", "b", "c"]
    window.answered(60)
    window.flush()
    assert sent == ["a", "b", "c", "d"]


def test_the_urgent_overtake_what_waits(window, sent):
    put(window, (-1, 100, "a"), (-2, 100, "b"))
    put(window, (5, 100, "now"))
    window.answered(100)
    window.flush()
    assert sent == ["a", "now"]


def test_something_bigger_than_the_window_is_sent_alone(window, sent):
    put(window, (0, 10, "a"), (-1, 500, "big"), (-2, 10, "b"))
    assert sent == ["a"]
    window.answered(10)
    window.flush()
    assert sent == ["a", "big"]
    window.answered(500)
    window.flush()
    assert sent == ["a", "big", "b"]


def test_without_any_answer_it_opens_after_a_while(window, sent, clock):
    """Two workers whose windows are full of what the other has not sent would wait for ever."""
    put(window, (0, 100, "a"), (0, 100, "b"), (0, 100, "c"))
    clock.pass_time()
    assert sent == ["a", "b"]
    clock.pass_time()
    assert sent == ["a", "b", "c"]
    clock.pass_time()
    assert clock.due == []


def test_while_answers_come_it_stays_as_it_is(window, sent, clock):
    put(window, (0, 100, "a"), (0, 100, "b"))
    window.answered(50)
    clock.pass_time()
    assert sent == ["a"]
    clock.pass_time()
    assert sent == ["a", "b"]


def test_what_waits_can_be_taken_back(window, sent):
    put(window, (0, 100, "a"), (0, 1, "b"))
    assert window.clear() == [("b",)]
    window.answered(100)
    window.flush()
    assert sent == ["a"]
