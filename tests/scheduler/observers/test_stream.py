"""Observers see every event in order, and none of them can stop a job or another observer."""

import os
import time

import pytest

from baryon.scheduler.observers import EventStream, LogFiles, Notice, Observer, TaskOutput
from baryon.scheduler.observers.backlog import Backlog


class Recorder(Observer):
    def __init__(self):
        self.events = []
        self.has_closed = False

    def take(self, event):
        self.events.append(event)

    def close(self):
        self.has_closed = True
        return []


class Chatty(Recorder):
    """Has something to tell the user whenever it may."""

    def look(self):
        return ["the disk is slow"]

    def close(self):
        return ["the disk was slow", "to the end"]


class Faulty(Recorder):
    """Raises in one of its methods."""

    def __init__(self, where):
        super().__init__()
        self.where = where
        self.num_calls = 0

    def fail(self, where):
        self.num_calls += 1
        if where == self.where:
            raise ZeroDivisionError("a bug")

    def take(self, event):
        self.fail("take")

    def look(self):
        self.fail("look")
        return []

    def close(self):
        self.fail("close")
        return []


def notices(number):
    return [Notice(float(at), f"event {at}") for at in range(number)]


def test_every_observer_gets_every_event_in_order():
    first, second = Recorder(), Recorder()
    stream = EventStream([first, second])
    for event in notices(3):
        stream.send(event)
    stream.close(9.0)
    assert first.events == second.events == notices(3)
    assert first.has_closed and second.has_closed


def test_what_an_observer_has_to_say_is_an_event_for_all_that_are_left():
    first, last = Recorder(), Chatty()
    stream = EventStream([first, last])
    stream.look(1.0)
    assert first.events == last.events == [Notice(1.0, "the disk is slow")]
    stream.close(2.0)
    texts = [Notice(2.0, "the disk was slow"), Notice(2.0, "to the end")]
    assert first.events[1:] == texts, "the first is closed last"
    assert last.events[1:] == []


@pytest.mark.parametrize("where", ["take", "look", "close"])
def test_an_observer_that_fails_is_reported_once_and_dropped(where, capfd):
    before, faulty, after = Recorder(), Faulty(where), Recorder()
    stream = EventStream([before, faulty, after])
    for event in notices(3):
        stream.send(event)
        stream.look(event.at)
    stream.close(9.0)
    assert before.events == after.events == notices(3), "the others go on"
    assert before.has_closed and after.has_closed
    said = capfd.readouterr().err
    assert said.startswith("baryon: the observer Faulty failed, so it gets no more events; the job")
    assert said.count("ZeroDivisionError: a bug") == 1
    calls = {"take": 2, "look": 3, "close": 7}
    assert faulty.num_calls == calls[where], "and is only closed after that"


class Threaded(Observer):
    """Its work, in a thread of its own, raises."""

    def __init__(self):
        self.backlog = Backlog("a thread", lambda items: 1 // 0)

    def take(self, event):
        self.backlog.put(event, 1)

    def close(self):
        self.backlog.close(1.0)
        return []


@pytest.mark.parametrize("is_noticed_at_the_end", [True, False])
def test_what_an_observers_thread_raises_drops_it_as_well(capfd, wait_until, is_noticed_at_the_end):
    other, faulty = Recorder(), Threaded()
    stream = EventStream([other, faulty])
    stream.send(Notice(0.0, "first"))
    if not is_noticed_at_the_end:
        wait_until(lambda: not faulty.backlog._thread.is_alive())
        stream.send(Notice(1.0, "second"))
    assert ("ZeroDivisionError" in capfd.readouterr().err) != is_noticed_at_the_end
    stream.close(2.0)
    assert ("ZeroDivisionError" in capfd.readouterr().err) == is_noticed_at_the_end
    assert [event.text for event in other.events][:1] == ["first"]
    assert other.has_closed


def test_an_observer_on_a_disk_that_stalls_does_not_slow_the_stream(tmp_path):
    os.mkfifo(tmp_path / "worker-0.log")  # that nobody reads
    other, logs = Recorder(), LogFiles(os.fspath(tmp_path))
    stream = EventStream([other, logs])
    begin = time.monotonic()
    for at in range(1000):
        stream.send(TaskOutput(float(at), "worker-0", False, False, b"line\n"))
    assert time.monotonic() - begin < 5.0, "it takes milliseconds"
    assert len(other.events) == 1000
    with open(tmp_path / "worker-0.log", "rb") as file:
        stream.close(9.0)
        assert file.read() == b"line\n" * 1000
