"""Limits that count only time in which this process was awake."""

import threading

from baryon.ps.waits import AwakeClock, wait_awake
from tests.waiting import LIMIT_S


def test_time_in_which_nobody_looked_does_not_count():
    clock = AwakeClock(1.0, 100.0)
    assert [clock.look(now) for now in (101.0, 102.0, 103.5)] == [101.0, 102.0, 103.5]
    assert clock.look(10_000.0) == 105.5, "stopped for hours"
    assert clock.look(10_001.0) == 106.5


def test_a_wait_ends_when_the_event_comes():
    event = threading.Event()
    threading.Timer(0.05, event.set).start()
    assert wait_awake(event, LIMIT_S)


def test_or_at_its_limit_of_which_a_long_sleep_is_a_small_part():
    slept = []

    class Event(threading.Event):
        def wait(self, timeout):
            slept.append(timeout)  # and however long that takes
            return False

    assert not wait_awake(Event(), 12.0)
    assert slept == [5.0, 5.0, 2.0]


def test_no_limit_at_all_is_a_look():
    event = threading.Event()
    assert not wait_awake(event, 0.0)
    event.set()
    assert wait_awake(event, 0.0)
