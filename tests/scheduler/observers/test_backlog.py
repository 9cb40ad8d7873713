"""A thread works off what is put, in order, and whoever puts never waits."""

import threading

import pytest

from baryon.scheduler.observers.backlog import Backlog

LIMIT_S = 20.0


class Gate:
    """Work that waits until it is let through."""

    def __init__(self, at_once=1):
        self.batches = []
        self.is_open = threading.Event()
        self.backlog = Backlog("a backlog", self.work, at_once)

    def work(self, items):
        assert self.is_open.wait(LIMIT_S)
        self.batches.append(items)


def test_items_are_done_in_order_and_counted(wait_until):
    gate = Gate()
    for number in range(10):
        gate.backlog.put(number, 5)
    assert gate.backlog.nbytes == 50
    wait_until(lambda: gate.backlog.busy_s > 0.0)
    gate.is_open.set()
    assert gate.backlog.close(LIMIT_S)
    assert gate.batches == [[number] for number in range(10)]
    assert (gate.backlog.nbytes, gate.backlog.busy_s) == (0, 0.0)


def test_what_waits_is_done_together(wait_until):
    gate = Gate(at_once=4)
    gate.backlog.put(0, 1)
    wait_until(lambda: gate.backlog.busy_s > 0.0)
    for number in range(1, 7):
        gate.backlog.put(number, 1)
    gate.is_open.set()
    assert gate.backlog.close(LIMIT_S)
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_the_end_does_not_wait_for_work_that_is_stuck():
    gate = Gate()
    gate.backlog.put("stuck", 5)
    assert not gate.backlog.close(0.05)
    assert gate.backlog.nbytes == 5
    gate.is_open.set()
    gate.backlog._thread.join(LIMIT_S)


def test_what_the_work_raises_is_raised_to_the_one_that_puts(wait_until):
    backlog = Backlog("a backlog", lambda items: 1 // 0)
    backlog.put("anything", 1)
    wait_until(lambda: not backlog._thread.is_alive())
    with pytest.raises(ZeroDivisionError):
        backlog.put("more", 1)
    with pytest.raises(ZeroDivisionError):
        backlog.close(LIMIT_S)
