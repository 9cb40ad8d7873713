"""Stopping, by itself: its order, its limits, and what becomes the job's exit code."""

import signal

import pytest

from baryon.scheduler.actions import Finish, Kill, ReleaseAgent
from baryon.scheduler.control import messages
from baryon.scheduler.state import OVER, STOPPING
from baryon.scheduler.stopping import Stopping


class Parts:
    """Two hosts that run a worker each, one a server as well."""

    def __init__(self, state):
        self.state = state
        self.part = Stopping(state)

    def end(self, *slugs):
        for slug in slugs:
            self.state.tasks[slug].ended = True
        return self.part.go_on(1.0)


@pytest.fixture
def parts(make_running):
    return Parts(make_running(num_workers=2, num_servers=1, num_hosts=2, grace_s=5.0))


def test_workers_then_servers_then_agents(parts, sent):
    for _, stop in sent(parts.part.stop(signal.SIGINT, 0.0), messages.StopTasks):
        assert stop == messages.StopTasks("worker", signal.SIGINT, 5.0)
    assert parts.end("worker-0") == []
    stops = sent(parts.end("worker-1"), messages.StopTasks)
    assert stops == [
        (f"agent-{host}", messages.StopTasks("server", signal.SIGTERM, 5.0)) for host in (0, 1)
    ]
    assert parts.part.role == "server"
    assert parts.end("server-0") == [ReleaseAgent(0), ReleaseAgent(1)]
    for host in parts.state.hosts.values():
        host.has_ended = True
    assert parts.part.go_on(2.0) == [Finish(0)]
    assert parts.state.phase == OVER


def test_the_first_failure_is_the_jobs(parts, said):
    text = said(parts.part.fail("worker 0 (a) exited with code 3", 3, 0.0))
    assert "exit code 3; stopping 3 other tasks; logs are in /logs/of/job-1" in text
    assert parts.part.fail("another", 4, 0.0) == []
    assert parts.part.look(99.0)[-1] == Finish(3)


def test_what_does_not_end_in_time_is_named_and_killed(parts, said):
    parts.part.stop(signal.SIGTERM, 0.0)
    assert parts.part.look(14.9) == []
    parts.state.tasks["worker-0"].ended = True
    parts.state.hosts[1].is_lost = True
    actions = parts.part.look(15.0)
    assert said(actions) == "server 0, worker 1 did not end in time"
    assert actions[1:] == [Kill(frozenset({1})), Finish(0)]


def test_workers_may_have_another_time_to_end(parts, sent):
    stops = sent(parts.part.fail("the hosts go", 1, 0.0, 60.0), messages.StopTasks)
    assert {stop.grace_s for _, stop in stops} == {60.0}
    assert parts.part.look(69.9) == []


def test_an_absence_extends_the_time_to_stop(parts):
    parts.part.stop(signal.SIGTERM, 0.0)
    parts.part.forgive(100.0)
    assert parts.part.look(114.9) == []
    assert parts.part.look(115.0)[-1] == Finish(0)


def test_the_second_signal_kills_and_sigpipe_does_not(parts, said):
    assert said(parts.part.on_signal(signal.SIGTERM, 0.0)) == (
        "SIGTERM: stopping all tasks (SIGTERM again to kill them at once)"
    )
    assert parts.state.phase == STOPPING
    assert parts.part.on_signal(signal.SIGPIPE, 0.0) == []
    assert Kill() in parts.part.on_signal(signal.SIGTERM, 0.0)


def test_only_workers_that_still_wait_are_released(parts, sent):
    parts.state.tasks["worker-0"].ended = True
    (sends,) = sent(parts.part.release_workers("worker 0"), messages.Abort)
    assert sends == ("worker-1", messages.Abort("the job is stopping, and worker 0 has ended"))
