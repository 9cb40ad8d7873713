"""The window sends the urgent first, keeps links together, and never stays closed."""

import pytest

from baryon.ps.client.window import Window


class Watched:
    """A window, the time, and the items that it has let go."""

    def __init__(self):
        self.window = Window(100)
        self.now = 0.0
        self.sent = []

    def put(self, *items):
        for priority, nbytes, name in items:
            self.window.put(priority, nbytes, name)
        self.sent += self.window.take(self.now)

    def answered(self, nbytes):
        self.window.answered(nbytes)
        self.sent += self.window.take(self.now)

    def wait(self):
        """Let time pass until the window has to look."""
        self.now = self.window.due
        self.window.pass_time(self.now)
        self.sent += self.window.take(self.now)


@pytest.fixture
def window():
    return Watched()


def test_what_has_room_is_sent_and_the_rest_when_there_is_room_again(window):
    window.put((0, 60, "a"), (0, 40, "b"), (0, 30, "c"), (0, 30, "d"))
    assert window.sent == ["a", "b"]
    window.answered(40)
    assert window.sent == ["a", "b", "c"]
    window.answered(60)
    assert window.sent == ["a", "b", "c", "d"]


def test_the_urgent_overtake_what_waits(window):
    window.put((-1, 100, "a"), (-2, 100, "b"))
    window.put((5, 100, "now"))
    window.answered(100)
    assert window.sent == ["a", "now"]


def test_something_bigger_than_the_window_is_sent_alone(window):
    window.put((0, 10, "a"), (-1, 500, "big"), (-2, 10, "b"))
    assert window.sent == ["a"]
    window.answered(10)
    assert window.sent == ["a", "big"]
    window.answered(500)
    assert window.sent == ["a", "big", "b"]


def test_without_any_answer_it_opens_after_a_while(window):
    """Otherwise two workers could wait for each other for ever, each with a full window."""
    window.put((0, 100, "a"), (0, 100, "b"), (0, 100, "c"))
    window.wait()
    assert window.sent == ["a", "b"]
    window.wait()
    assert window.sent == ["a", "b", "c"]
    assert window.window.due is None


def test_it_does_not_open_before_its_time(window):
    window.put((0, 100, "a"), (0, 100, "b"))
    window.window.pass_time(window.window.due - 0.01)
    window.put()
    assert window.sent == ["a"] and window.window.due is not None


def test_while_answers_come_it_stays_as_it_is(window):
    window.put((0, 100, "a"), (0, 100, "b"))
    window.answered(50)
    window.wait()
    assert window.sent == ["a"]
    window.wait()
    assert window.sent == ["a", "b"]


def test_what_waits_can_be_taken_back(window):
    window.put((0, 100, "a"), (0, 1, "b"))
    assert window.window.clear() == ["b"]
    window.answered(100)
    assert window.sent == ["a"]
