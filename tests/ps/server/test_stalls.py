"""Noticing rounds that wait too long, with a made-up clock."""

import pytest

from baryon.ps.server.slot import Wait
from baryon.ps.server.stalls import StallWatch

WAIT = Wait(child=0, key="conv0_weight", round=7, missing=(2, 3))


@pytest.fixture
def watch() -> StallWatch:
    return StallWatch(warn_s=10, limit_s=30)


def text(stall):
    return stall.text(lambda child: f"worker {child}")


def seen(watch, now, *waits):
    return [
        (stall.wait.child, stall.seconds, stall.is_fatal) for stall in watch.observe(waits, now)
    ]


def test_warns_once_at_the_warning_age(watch):
    assert seen(watch, 100, WAIT) == []
    assert seen(watch, 109.9, WAIT) == []
    assert seen(watch, 110, WAIT) == [(0, 10, False)]
    assert seen(watch, 111, WAIT) == []
    assert seen(watch, 129.9, WAIT) == []


def test_reports_once_at_the_limit(watch):
    seen(watch, 100, WAIT)
    assert seen(watch, 130, WAIT) == [(0, 30, True)]
    assert seen(watch, 131, WAIT) == []
    assert seen(watch, 200, WAIT) == []


def test_a_gap_in_observing_still_counts(watch):
    """The limit is a matter of the clock, not of how often anyone looked."""
    seen(watch, 0, WAIT)
    assert seen(watch, 1000, WAIT) == [(0, 1000, True)]


@pytest.mark.parametrize("moved", [WAIT._replace(round=8), WAIT._replace(key="fc")])
def test_progress_starts_anew(watch, moved):
    seen(watch, 0, WAIT)
    assert seen(watch, 9, moved) == []
    assert seen(watch, 18.9, moved) == []
    assert seen(watch, 19, moved) == [(0, 10, False)]


def test_another_missing_worker_is_the_same_wait(watch):
    """A round that lasts too long does so however many of the missing have come meanwhile."""
    seen(watch, 0, WAIT)
    (stall,) = watch.observe([WAIT._replace(missing=(3,))], 10)
    assert (stall.seconds, stall.wait.missing) == (10, (3,))
    assert seen(watch, 30, WAIT._replace(missing=(2,))) == [(0, 30, True)]


def test_a_wait_that_ended_and_came_back_starts_anew(watch):
    seen(watch, 0, WAIT)
    seen(watch, 10, WAIT)
    assert seen(watch, 11) == []
    assert seen(watch, 29, WAIT) == []
    assert seen(watch, 38.9, WAIT) == []
    assert seen(watch, 39, WAIT) == [(0, 10, False)]


def test_waits_are_timed_apart(watch):
    other = WAIT._replace(child=1)
    seen(watch, 0, WAIT)
    assert seen(watch, 5, WAIT, other) == []
    assert seen(watch, 10, WAIT, other) == [(0, 10, False)]
    assert seen(watch, 15, WAIT, other) == [(1, 10, False)]
    assert seen(watch, 30, WAIT, other) == [(0, 30, True)]


def test_the_message_names_who_whom_what_and_how_long(watch):
    watch.observe([WAIT], 0)
    (warning,) = watch.observe([WAIT], 12.4)
    assert (
        text(warning)
        == "worker 0 has waited 12 s for worker 2 and worker 3 in round 7 of key conv0_weight"
    )
    (fatal,) = watch.observe([WAIT], 30)
    assert "30 s" in text(fatal) and "raise --timeout" in text(fatal)


def test_the_message_tells_an_initial_value_from_a_round():
    watch = StallWatch(1, 5)
    wait = Wait(child=1, key="fc", round=0, missing=(0,))
    watch.observe([wait], 0)
    (warning,) = watch.observe([wait], 1)
    assert "for worker 0 in the initial value of key fc" in text(warning)


def test_nobody_missing_is_a_servers_fault():
    watch = StallWatch(1, 5)
    wait = WAIT._replace(missing=())
    watch.observe([wait], 0)
    (warning,) = watch.observe([wait], 1)
    assert "for a server in round 7" in text(warning)
