"""Starting, by itself: who is told what to start, when the roster goes out, and who is late."""

import pytest

from baryon import __version__
from baryon.scheduler.control import messages
from baryon.scheduler.starting import PATIENCE_S, Starting
from baryon.scheduler.state import RUNNING, STARTING, STOPPING, JobState
from baryon.scheduler.stopping import Stopping

HELLO = messages.AgentHello(__version__, "h", 1, "10.0.0.1", "tcp://10.0.0.9:1")


class Parts:
    def __init__(self, job):
        self.state = JobState(job, 0.0)
        keys = {task.slug: f"key of {task.slug}" for task in job.tasks}
        self.part = Starting(self.state, Stopping(self.state), self.specs, keys)

    def specs(self, host, hello):
        return messages.StartTasks(())

    def hello(self, host):
        return self.part.on_hello(self.state.hosts[host], HELLO, 0.0)

    def join(self, slug, endpoint=""):
        return self.part.on_join(self.state.tasks[slug], messages.Join(7, endpoint), 0.0)


@pytest.fixture
def parts(make_job):
    return Parts(make_job(num_workers=2, num_servers=1, num_hosts=2))


def test_each_agent_is_told_what_to_start_as_it_comes(parts, sent):
    assert [peer for peer, _ in sent(parts.hello(1), messages.StartTasks)] == ["agent-1"]
    assert parts.state.hosts[1].is_started and not parts.state.hosts[0].is_started
    assert [peer for peer, _ in sent(parts.hello(0), messages.StartTasks)] == ["agent-0"]


def test_in_a_queue_all_agents_are_told_at_once(parts, sent):
    parts.part.on_queue(True, 5.0)
    assert parts.hello(0) == []
    assert parts.state.start_clock == 5.0, "time in the queue does not count"
    started = sent(parts.hello(1), messages.StartTasks)
    assert [peer for peer, _ in started] == ["agent-0", "agent-1"]


def test_the_last_to_join_brings_the_roster_to_all(parts, sent):
    assert parts.join("worker-0") == parts.join("worker-1") == []
    assert parts.state.phase == STARTING
    sends = sent(parts.join("server-0", "tcp://10.0.0.1:5000"), messages.Roster)
    assert [slug for slug, _ in sends] == ["server-0", "worker-0", "worker-1"]
    assert sends[0][1].servers == (messages.Peer("tcp://10.0.0.1:5000", "key of server-0"),)
    assert parts.state.phase == RUNNING


def test_two_processes_cannot_be_one_task(parts, said):
    parts.join("worker-0")
    assert "process 7 joined as worker 0, but process 7 already is" in said(parts.join("worker-0"))
    assert parts.state.phase == STOPPING


def test_a_quiet_job_says_nothing_of_what_it_waits_for(parts, make_job, said):
    assert parts.part.look_for_wait(PATIENCE_S) == [], "make_job makes quiet ones"
    parts = Parts(make_job(is_quiet=False))
    assert parts.part.look_for_wait(PATIENCE_S / 2) == []
    assert "waiting for the agent on a" in said(parts.part.look_for_wait(PATIENCE_S))
    assert parts.part.look_for_wait(PATIENCE_S) == [], "once"


def test_who_is_late_is_named(parts, said):
    parts.state.hosts[0].heard = 1.0
    assert parts.part.look_for_late(59.0) == []
    text = said(parts.part.look_for_late(60.0))
    assert text.startswith("the agent on b, server 0 (a) did not ")
