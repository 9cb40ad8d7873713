"""How long servers are out of reach, by a clock that the tests set."""

import pytest

from baryon.ps.client.outages import Outages


@pytest.fixture
def outages():
    return Outages(2, silence_s=10.0, now=100.0)


def test_time_counts_while_a_link_is_down(outages):
    outages.look(101.0, [True, False])
    outages.look(102.0, [False, False])
    outages.look(103.0, [False, True])
    assert outages.down_s == [2.0, 2.0]


def test_an_outage_ends_with_an_answer_and_not_with_a_connection(outages):
    for now in range(101, 105):
        outages.look(float(now), [False, True])
        outages.look(float(now), [True, True])
    assert outages.down_s == [4.0, 0.0]
    outages.end(0)
    assert outages.down_s == [0.0, 0.0]


def test_time_in_which_this_process_was_suspended_does_not_count(outages):
    outages.look(100.0 + 3600.0, [False, False])
    assert outages.down_s == [2.0, 2.0]  # two intervals: a busy process is late


def test_an_outage_is_too_long_after_its_limit_and_those_that_began_with_it_are_named(outages):
    for now in range(101, 111):
        outages.look(float(now), [False, now < 105])
    assert not outages.is_too_long()
    outages.look(110.5, [False, False])
    assert outages.is_too_long()
    assert list(outages.long()) == [(0, 10.5), (1, 6.5)]
    outages.end(1)
    assert list(outages.long()) == [(0, 10.5)]
