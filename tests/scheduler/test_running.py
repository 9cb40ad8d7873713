"""Running, by itself: output, meetings, and how a worker's goodbye and exit make one end."""

import signal

import pytest

from baryon.scheduler.actions import Send
from baryon.scheduler.control import messages
from baryon.scheduler.meetings import Meetings
from baryon.scheduler.observers import TaskOutput
from baryon.scheduler.running import GOODBYE_S, TEARDOWN_S, Running
from baryon.scheduler.starting import Starting
from baryon.scheduler.state import RUNNING, STOPPING
from baryon.scheduler.stopping import Stopping


class Parts:
    """Two workers and a server that run."""

    def __init__(self, state):
        self.state = state
        stopping = Stopping(self.state)
        starting = Starting(self.state, stopping, lambda host, hello: None, {})
        self.part = Running(self.state, starting, stopping, Meetings())

    def task(self, slug):
        return self.state.tasks[slug]

    def exits(self, slug, code, now=0.0):
        return self.part.on_exited(self.task(slug), messages.Exited(slug, code, 1.5, ""), now)

    def gone(self, slug, code=0, now=0.0):
        return self.part.on_gone(self.task(slug), messages.Gone(code), now)


@pytest.fixture
def parts(make_running):
    return Parts(make_running(num_workers=2, num_servers=1))


def test_output_is_an_event_and_its_last_line_is_kept(parts):
    message = messages.Output("worker-0", True, False, b"one\ntwo\n\n")
    (event,) = parts.part.on_output(parts.task("worker-0"), message, 3.0)
    assert event == TaskOutput(3.0, "worker-0", True, False, b"one\ntwo\n\n")
    assert parts.task("worker-0").last_line == "two"
    parts.part.on_output(
        parts.task("worker-0"), messages.Output("worker-0", True, True, b"10%"), 3.0
    )
    assert parts.task("worker-0").last_line == "two", "a progress bar is no line"


@pytest.mark.parametrize("is_goodbye_first", [True, False])
def test_a_worker_ends_well_by_goodbye_and_exit_in_either_order(parts, is_goodbye_first):
    if is_goodbye_first:
        parts.gone("worker-0")
        actions = parts.exits("worker-0", 0)
    else:
        assert parts.exits("worker-0", 0) == []
        actions = parts.gone("worker-0")
    assert actions == [Send("server-0", messages.Left(0))]
    assert parts.task("worker-0").ended
    assert parts.state.phase == RUNNING


def test_the_last_good_end_stops_the_job(parts, sent):
    for slug in ("worker-0", "worker-1"):
        parts.gone(slug)
        actions = parts.exits(slug, 0)
    assert parts.state.phase == STOPPING
    (stop,) = sent(actions, messages.StopTasks)
    assert stop == ("agent-0", messages.StopTasks("server", signal.SIGTERM, 5.0))


def test_an_exit_without_goodbye_fails_the_job_in_time(parts, said):
    parts.exits("worker-0", 0)
    assert parts.part.look_for_goodbyes(GOODBYE_S) == []
    assert "without leaving the job" in said(parts.part.look_for_goodbyes(GOODBYE_S + 0.1))
    assert parts.state.phase == STOPPING


def test_a_command_that_runs_on_is_mentioned_once(parts, said):
    parts.gone("worker-0")
    late = TEARDOWN_S + GOODBYE_S + 0.1
    assert "but its command still runs (process 7 there)" in said(
        parts.part.look_for_goodbyes(late)
    )
    assert parts.part.look_for_goodbyes(late + 100.0) == []
    assert parts.state.phase == RUNNING


def test_a_meeting_ends_without_those_that_have_ended_well(parts, sent):
    meet = messages.Gather("x", "barrier", b"value")
    assert parts.part.on_gather(parts.task("worker-0"), meet, 0.0) == []
    parts.gone("worker-1")
    (met,) = sent(parts.exits("worker-1", 0), messages.Gathered)
    assert met == ("worker-0", messages.Gathered("x", ((0, b"value"),)))
