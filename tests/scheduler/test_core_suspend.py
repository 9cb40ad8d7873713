"""Ctrl-Z: all tasks are stopped before this process is, and nobody misses anybody meanwhile."""

import signal

from baryon.scheduler import messages
from baryon.scheduler.actions import Kill, Pause
from baryon.scheduler.core import SUSPEND_S


def test_all_hosts_stop_their_tasks_before_this_process_is_stopped(make_scene, sent):
    scene = make_scene(num_workers=2, num_hosts=2).begin()
    assert [peer for peer, _ in sent(scene.suspend(), messages.Suspend)] == ["agent-0", "agent-1"]
    assert Pause() not in scene.message("agent-0", messages.Suspended())
    assert scene.suspend() == [], "Ctrl-Z again"
    assert scene.message("agent-1", messages.Suspended()) == [Pause()]
    resumed = sent(scene.resume(), messages.Resume)
    assert [peer for peer, _ in resumed] == ["agent-0", "agent-1"]
    assert scene.resume() == []
    assert Pause() not in scene.tick()


def test_a_host_that_does_not_answer_is_not_waited_for(make_scene):
    scene = make_scene(num_workers=2, num_hosts=2).begin()
    scene.suspend()
    scene.message("agent-0", messages.Suspended())
    assert Pause() not in scene.tick(SUSPEND_S / 2)
    assert Pause() in scene.tick(SUSPEND_S / 2)


def test_one_that_has_ended_or_not_begun_is_not_asked(make_scene, sent):
    scene = make_scene(num_workers=2, num_hosts=2)
    assert scene.suspend() == [Pause()]
    scene.resume()
    scene.begin()
    scene.agent_ends(0)
    assert [peer for peer, _ in sent(scene.suspend(), messages.Suspend)] == ["agent-1"]


def test_thought_better_of_it(make_scene, sent):
    """SIGCONT before all have answered."""
    scene = make_scene().begin()
    scene.suspend()
    assert sent(scene.resume(), messages.Resume) == [("agent-0", messages.Resume())]
    assert scene.message("agent-0", messages.Suspended()) == []


def test_a_job_that_is_over_may_be_stopped_at_once_or_never(make_scene):
    scene = make_scene().begin()
    scene.signal(signal.SIGINT)
    scene.suspend()
    assert Pause() in scene.message("agent-0", messages.Suspended()), "also while it stops"
    scene.resume()
    assert Kill() in scene.signal(signal.SIGINT)
    scene.finish_agents()
    scene.exits("worker-0")
    scene.pass_time(20)
    assert scene.suspend() == []
