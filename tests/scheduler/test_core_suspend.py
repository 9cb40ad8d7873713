"""Ctrl-Z: all tasks are stopped before this process is, and nobody misses anybody meanwhile."""

import signal

from baryon.scheduler import state
from baryon.scheduler.actions import Kill, Pause
from baryon.scheduler.control import messages
from baryon.scheduler.suspending import SUSPEND_S


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


def test_one_that_has_ended_is_not_asked(make_scene, sent):
    scene = make_scene(num_workers=2, num_hosts=2).begin()
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


def test_while_agents_come_up_nothing_is_stopped(make_scene, sent):
    """One that began meanwhile would hear nobody, and give up."""
    scene = make_scene(num_workers=2, num_hosts=2)
    scene.hello(0)
    assert scene.suspend() == []
    assert Pause() not in scene.pass_time(10)
    assert sent(scene.hello(1), messages.StartTasks)
    assert [peer for peer, _ in sent(scene.tick(), messages.Suspend)] == ["agent-0", "agent-1"]
    scene.message("agent-0", messages.Suspended())
    assert scene.message("agent-1", messages.Suspended()) == [Pause()]


def test_while_agents_come_up_the_user_may_think_better_of_it(make_scene):
    scene = make_scene()
    scene.suspend()
    assert scene.resume() == []
    scene.hello(0)
    assert scene.core.state.suspending is None
    scene.tick()
    assert scene.core.state.suspending is None


def test_agents_that_never_come_up_do_not_keep_it_from_being_stopped(make_scene):
    scene = make_scene()
    scene.suspend()
    assert Pause() not in scene.pass_time(59)
    assert Pause() in scene.pass_time(2)


def test_in_a_queue_it_is_stopped_at_once_and_says_what_may_come_of_it(make_scene, said, sent):
    scene = make_scene(num_workers=2, num_hosts=2)
    scene.core.on_queue(True, scene.now)
    scene.hello(0)
    assert "if its hosts come meanwhile, their agents give up after 20 s" in said(scene.suspend())
    hello = scene.hello(1)
    assert [peer for peer, _ in sent(hello, messages.Suspend)] == ["agent-1"]
    assert not sent(scene.core.on_queue(False, scene.now), messages.StartTasks)
    scene.message("agent-0", messages.Suspended())
    assert scene.message("agent-1", messages.Suspended()) == [Pause()]
    started = sent(scene.resume(), messages.StartTasks)
    assert [peer for peer, _ in started] == ["agent-0", "agent-1"]


def test_who_is_slow_to_stop_does_not_make_the_others_seem_silent(make_scene, said):
    """From then on they say nothing, since nobody would hear it."""
    scene = make_scene(num_workers=2, num_hosts=2, silence_s=1.0).begin()
    scene.suspend()
    scene.message("agent-0", messages.Suspended())
    while Pause() not in scene.tick():
        assert scene.core.phase == state.RUNNING
    scene.resume()
    assert said(scene.tick()) == ""
    assert scene.core.phase == state.RUNNING
