"""Watching, by itself: silence, lost hosts, late workers, and time that this process missed."""

import pytest

from baryon.scheduler.control import messages
from baryon.scheduler.meetings import Meetings
from baryon.scheduler.state import STOPPING
from baryon.scheduler.stopping import Stopping
from baryon.scheduler.watching import STALL_WARNING_S, Watching


class Parts:
    """Two hosts with a worker each, all of whom were heard at 0."""

    def __init__(self, state):
        self.state = state
        self.meetings = Meetings()
        self.part = Watching(self.state, Stopping(self.state), self.meetings, 0.0)

    def hear(self, now, *peers):
        for host in self.state.hosts.values():
            if host.peer in peers:
                host.heard = now
        for slug, task in self.state.tasks.items():
            if slug in peers:
                task.last_heard = now


@pytest.fixture
def parts(make_running):
    return Parts(make_running(num_workers=2, num_servers=1, num_hosts=2, silence_s=20.0))


def test_signs_of_life_go_to_all_that_are_there(parts, sent):
    parts.state.tasks["worker-0"].ended = True
    first = sent(parts.part.keep_in_touch(0.0), messages.Alive)
    assert [peer for peer, _ in first] == ["agent-0", "agent-1", "server-0", "worker-1"]
    assert parts.part.keep_in_touch(3.9) == []
    assert parts.part.keep_in_touch(4.0)


def test_a_host_is_lost_with_all_that_is_silent_meanwhile(parts, said):
    parts.hear(15.0, "agent-0")
    assert parts.part.look_for_lost_hosts(20.0) == []
    text = said(parts.part.look_for_lost_hosts(20.1))
    assert text.startswith("the agent on b has been silent for 20 s: host down, network cut")
    assert [host.is_lost for host in parts.state.hosts.values()] == [False, True]
    assert parts.state.tasks["worker-1"].ended and not parts.state.tasks["worker-0"].ended
    assert parts.state.phase == STOPPING


def test_a_silent_task_is_mentioned_once_and_a_stopped_one_fails(parts, said):
    parts.hear(21.0, "agent-0", "agent-1", "server-0", "worker-1")
    assert said(parts.part.look_for_silence(21.0)) == (
        "worker 0 (a) has been silent for 21 s; its process 7 still runs"
    )
    assert parts.part.look_for_silence(21.0) == []
    alive = messages.Alive(("worker-0",))
    parts.part.on_agent_alive(parts.state.hosts[0], alive, 21.0)
    assert "its process 7 is stopped" in said(parts.part.look_for_silence(21.0))
    assert parts.state.phase == STOPPING


def test_an_agent_that_ends_takes_its_tasks_with_it(parts, said):
    text = said(parts.part.on_agent_ended(parts.state.hosts[1], "exited with code 1", 1.0))
    assert text.startswith("the agent on b exited with code 1")
    assert "worker 1" in text
    assert parts.state.tasks["worker-1"].ended


def test_who_keeps_others_waiting_is_named(parts, said):
    parts.meetings.arrive(0, messages.Gather("x", "barrier", b""), 0.0)
    assert parts.part.look_for_late_arrivals(STALL_WARNING_S - 1.0) == []
    assert said(parts.part.look_for_late_arrivals(STALL_WARNING_S)) == (
        "worker 0 waited 60 s for worker 1 (b) to reach barrier (x)"
    )
    assert parts.part.look_for_late_arrivals(STALL_WARNING_S + 1.0) == []
    text = said(parts.part.look_for_late_arrivals(parts.state.job.timeout_s))
    assert "; see its log, or raise --timeout" in text
    assert parts.state.phase == STOPPING


def test_an_absence_is_a_long_time_between_two_ticks(parts):
    assert parts.part.absence(10.0) == 0.0
    assert parts.part.absence(20.1) == pytest.approx(10.1)
    assert parts.part.absence(20.3) == 0.0
