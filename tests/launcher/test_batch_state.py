"""The state of a batch job: what the manager has done, and what the scheduler wants."""

import itertools

import pytest

from baryon.launcher.clusters.batch_state import NEXT, BatchState, Event, Stage, Wish

SUBMITTING, REFUSED, TAKEN, TOLD, OVER = Stage


def after(*events: Event) -> Stage:
    state = BatchState()
    for event in events:
        state = state.after(event)
    return state.stage


@pytest.mark.parametrize(
    ("events", "stage"),
    [
        ([], SUBMITTING),
        ([Event.ENDED], REFUSED),
        ([Event.TAKEN], TAKEN),
        ([Event.TAKEN, Event.ENDED], OVER),
        ([Event.TAKEN, Event.TOLD], TOLD),
        ([Event.TAKEN, Event.TOLD, Event.ENDED], OVER),
        ([Event.TAKEN, Event.ENDED, Event.TOLD], OVER),  # the command took longer than the job
        ([Event.TOLD, Event.ENDED], REFUSED),  # the submission raised an error of its own
    ],
)
def test_a_life(events, stage):
    assert after(*events) is stage


@pytest.mark.parametrize(
    ("stage", "event"), sorted(set(itertools.product(Stage, Event)) - set(NEXT), key=str)
)
def test_what_the_table_does_not_list_is_a_bug(stage, event):
    with pytest.raises(AssertionError, match=f"{event.value}, yet {stage.value}"):
        BatchState(stage).after(event)


def test_every_stage_can_be_reached_and_the_last_ones_stay():
    assert {SUBMITTING, *NEXT.values()} == set(Stage)
    assert {NEXT.get((stage, event), stage) for stage in (REFUSED, OVER) for event in Event} == {
        REFUSED,
        OVER,
    }


def test_a_job_is_taken_until_the_end_unless_it_was_refused():
    assert [stage for stage in Stage if BatchState(stage).is_taken] == [TAKEN, TOLD, OVER]


@pytest.mark.parametrize(("first", "second"), itertools.product(Wish, Wish))
def test_wishes_only_grow(first, second):
    state = BatchState(TAKEN).wishing(first).wishing(second)
    assert state == (TAKEN, max(first, second))


def test_an_event_keeps_the_wish_and_a_wish_keeps_the_stage():
    state = BatchState().wishing(Wish.CANCEL).after(Event.TAKEN).wishing(Wish.KILL)
    assert state == (TAKEN, Wish.KILL)


@pytest.mark.parametrize(
    ("wish", "hurried", "ending", "cancelled", "killed"),
    [
        (Wish.FOLLOW, False, False, False, False),
        (Wish.HURRY, True, False, False, False),
        (Wish.LET_GO, True, True, False, False),
        (Wish.CANCEL, True, True, True, False),
        (Wish.KILL, True, True, True, True),
    ],
)
def test_what_a_wish_includes(wish, hurried, ending, cancelled, killed):
    state = BatchState(TAKEN, wish)
    assert (state.is_hurried, state.is_ending) == (hurried, ending)
    assert (state.is_cancelled, state.is_killed) == (cancelled, killed)
