"""What the scheduler says of those who are late or silent."""

import signal

import pytest

from baryon.scheduler import state
from baryon.scheduler.actions import Finish, Kill
from baryon.scheduler.control import messages

# -- waits that last too long -----------------------------------------------------------------


def test_a_long_meeting_is_mentioned_once_and_then_ends_the_job(make_scene, said):
    scene = make_scene(num_workers=4, num_hosts=2, timeout_s=300.0).begin()
    scene.gather("worker-0", "epoch 3")
    scene.gather("worker-2", "epoch 3")
    assert said(scene.pass_time(59)) == ""
    warning = said(scene.pass_time(1))
    assert "worker 0, worker 2 waited 60 s for worker 1 (a), worker 3 (b) to reach" in warning
    assert "barrier (epoch 3)" in warning
    assert said(scene.pass_time(239)) == ""
    failure = said(scene.pass_time(1))
    assert "waited 300 s for worker 1 (a), worker 3 (b) to reach barrier (epoch 3)" in failure
    assert "--timeout" in failure
    assert scene.core.phase == state.STOPPING


def test_who_arrives_after_the_warning_is_no_longer_named(make_scene, said):
    scene = make_scene(num_workers=3, timeout_s=100.0).begin()
    scene.gather("worker-0", "x")
    scene.pass_time(61)
    scene.gather("worker-2", "x")
    failure = said(scene.pass_time(40))
    assert "for worker 1 (a) to reach" in failure
    assert "worker 0, worker 2 waited" in failure


def test_a_meeting_with_little_time_fails_without_a_warning_first(make_scene, said):
    scene = make_scene(num_workers=2, timeout_s=10.0).begin()
    scene.gather("worker-0", "x")
    assert said(scene.pass_time(9)) == ""
    assert "worker 1 (a)" in said(scene.pass_time(1))


def test_a_worker_that_never_creates_its_store_is_named(make_scene, said):
    scene = make_scene(num_workers=3, num_hosts=3, timeout_s=300.0)
    for host in scene.hosts:
        scene.hello(host)
    scene.join("server-0")
    assert said(scene.pass_time(100)) == "", "nobody waits yet: a worker may prepare its data"
    scene.join("worker-0")
    scene.join("worker-2")
    text = said(scene.pass_time(299))
    assert text.count("waited") == 1
    assert "worker 0, worker 2 waited 60 s for worker 1 (b) to create a dist kvstore" in text
    text = said(scene.pass_time(1))
    assert "worker 0, worker 2 waited 300 s for worker 1 (b) to create a dist kvstore" in text
    assert scene.core.phase == state.STOPPING


# -- those that do not come up ----------------------------------------------------------------


def test_agents_and_servers_that_never_come_up_are_named(make_scene, said):
    scene = make_scene(num_workers=3, num_servers=2, num_hosts=3)
    scene.hello(0)
    scene.join("server-0")
    assert said(scene.pass_time(59)) == ""
    text = said(scene.pass_time(1))
    assert "the agent on b, the agent on c, server 1 (b) did not start within 60 s" in text
    assert scene.core.phase == state.STOPPING


def test_a_shorter_timeout_also_limits_the_start(make_scene, said):
    scene = make_scene(num_hosts=2, timeout_s=10.0)
    assert said(scene.pass_time(9)) == ""
    assert "the agent on a" in said(scene.pass_time(1))


def test_workers_may_take_their_time_before_they_create_a_store(make_scene, said):
    scene = make_scene(num_workers=2, timeout_s=30.0)
    scene.hello(0)
    scene.join("server-0")
    assert said(scene.pass_time(1000)) == ""


# -- silence ----------------------------------------------------------------------------------


@pytest.mark.parametrize("slug", ["worker-1", "server-0"])
def test_a_silent_task_that_is_stopped_is_given_up_and_named(make_scene, said, slug):
    scene = make_scene(num_workers=2, silence_s=20.0).begin()
    assert said(scene.pass_time(20, silent=(slug,), stopped=(slug,))) == ""
    text = said(scene.pass_time(1, silent=(slug,), stopped=(slug,)))
    name = slug.replace("-", " ")
    assert f"{name} (a) has been silent for 21 s: its process 7 is stopped" in text
    assert scene.core.phase == state.STOPPING


@pytest.mark.parametrize("slug", ["worker-1", "server-0"])
def test_a_silent_task_that_still_runs_is_mentioned_and_given_up_later(make_scene, said, slug):
    """It may be in a long call that lets no other thread of Python run."""
    scene = make_scene(num_workers=2, silence_s=20.0, timeout_s=300.0).begin()
    text = said(scene.pass_time(300, silent=(slug,)))
    assert (
        text == f"{slug.replace('-', ' ')} (a) has been silent for 21 s; its process 7 still runs"
    )
    text = said(scene.pass_time(1, silent=(slug,)))
    assert "has been silent for 301 s: its process 7 hangs" in text
    assert scene.core.phase == state.STOPPING


def test_it_is_mentioned_again_if_it_is_silent_again(make_scene, said):
    scene = make_scene(num_workers=2, silence_s=20.0).begin()
    for _ in range(2):
        assert said(scene.pass_time(30, silent=("worker-1",))).count("still runs") == 1
        assert said(scene.pass_time(5)) == ""


def test_a_stopped_task_that_goes_on_in_time_is_not_given_up(make_scene, said):
    scene = make_scene(num_workers=2, silence_s=20.0).begin()
    scene.pass_time(15, silent=("worker-1",), stopped=("worker-1",))
    scene.pass_time(15)
    assert said(scene.pass_time(15, silent=("worker-1",))) == ""
    assert scene.core.phase == state.RUNNING


def test_a_task_that_has_said_goodbye_is_not_missed(make_scene, said):
    scene = make_scene(num_workers=2, silence_s=20.0).begin()
    scene.message("worker-1", messages.Gone())
    assert said(scene.pass_time(50, silent=("worker-1",), stopped=("worker-1",))) == ""


def test_a_silent_agent_is_given_up_and_named(make_scene, said):
    scene = make_scene(num_hosts=2, silence_s=20.0).begin()
    assert said(scene.pass_time(20, silent=("agent-1",))) == ""
    assert "the agent on b has been silent" in said(scene.pass_time(1, silent=("agent-1",)))


def test_nothing_is_waited_for_from_a_host_that_is_given_up(make_scene, said, sent):
    scene = make_scene(num_workers=2, num_hosts=2, num_servers=2).begin()
    scene.pass_time(20, silent=("agent-1",))
    actions = scene.pass_time(1, silent=("agent-1",))
    assert "stopping 2 other tasks" in said(actions), "those of the other host"
    assert [peer for peer, _ in sent(actions, messages.Abort)] == ["worker-0"]
    scene.exits("worker-0", -15)
    scene.exits("server-0")
    assert scene.agent_ends(0) == [Kill(frozenset({1})), Finish(1)]


def test_hosts_that_fall_silent_together_are_named_together(make_scene, said):
    scene = make_scene(num_workers=3, num_hosts=3).begin()
    scene.pass_time(20, silent=("agent-1", "agent-2"))
    text = said(scene.pass_time(1, silent=("agent-1", "agent-2")))
    assert text.startswith(
        "the agents on b, c have been silent for 21 s: host down, network cut, or agent stopped"
    )
    assert "this machine's own network" not in text


def test_a_host_that_falls_silent_while_the_job_stops_is_not_waited_for(make_scene, said):
    scene = make_scene(num_workers=2, num_hosts=2, num_servers=2, grace_s=30.0).begin()
    scene.pass_time(15, silent=("agent-1",))
    text = said(scene.message("worker-0", messages.Failed("lost server 1")))
    assert text.startswith("worker 0 (a): lost server 1; the agent on b has been silent for 15 s\n")
    scene.exits("worker-0", -15)
    scene.exits("server-0")
    assert scene.agent_ends(0) == []
    assert scene.pass_time(6, silent=("agent-1",))[-2:] == [Kill(frozenset({1})), Finish(1)]


def test_if_all_hosts_fall_silent_the_fault_is_rather_here(make_scene, said):
    scene = make_scene(num_workers=2, num_hosts=2).begin()
    scene.pass_time(20, silent=("agent-0", "agent-1"))
    text = said(scene.pass_time(1, silent=("agent-0", "agent-1")))
    assert "the agents on a, b have been silent for 21 s" in text
    assert "look at this machine's own network first" in text


def test_a_worker_that_has_not_joined_cannot_be_silent(make_scene, said):
    scene = make_scene(num_workers=2, silence_s=20.0)
    scene.hello(0)
    scene.join("server-0")
    scene.join("worker-0")
    assert said(scene.pass_time(50)) == ""


def test_a_worker_that_has_ended_well_may_be_silent(make_scene, said):
    scene = make_scene(num_workers=2, silence_s=20.0).begin()
    scene.exits("worker-1")
    assert said(scene.pass_time(50)) == ""


def test_the_schedulers_own_suspension_is_forgiven(make_scene, said):
    """After Ctrl-Z and fg nobody has been heard for long, because nobody has listened."""
    scene = make_scene(num_hosts=2, silence_s=20.0).begin()
    scene.pass_time(5)
    assert said(scene.tick(3600.0)) == (
        "this machine slept, or launch.py was stopped, for 3600 s; agents that were "
        "awake give up after 20 s (--heartbeat-timeout)"
    )
    assert said(scene.pass_time(5)) == ""
    assert said(scene.tick(15.0)) == "", "no agent gives up after that"
    text = said(scene.pass_time(21, silent=("agent-1",)))
    assert "the agent on b has been silent" in text, "forgiven once, not for ever"


def test_time_that_was_slept_is_no_workers_wait(make_scene, said):
    scene = make_scene(num_workers=2, timeout_s=300.0).begin()
    scene.gather("worker-0", "x")
    scene.pass_time(10)
    scene.tick(8 * 3600.0)
    assert said(scene.pass_time(49)) == ""
    assert "worker 0 waited 60 s for worker 1 (a)" in said(scene.pass_time(1))


def test_time_that_was_slept_is_not_that_of_the_start(make_scene, said):
    scene = make_scene(num_workers=2, num_hosts=2)
    scene.hello(0)
    scene.join("worker-0")
    scene.pass_time(10)
    assert "did not start within" not in said(scene.tick(8 * 3600.0))
    text = said(scene.pass_time(50))
    assert "the agent on b, server 0 (a) did not start within 60 s" in text


def test_time_that_was_slept_is_not_that_of_the_end(make_scene, said):
    scene = make_scene(grace_s=5.0).begin()
    scene.signal(signal.SIGINT)
    scene.tick(8 * 3600.0)
    assert "did not end in time" not in said(scene.history)
    assert scene.core.phase == state.STOPPING
    scene.exits("worker-0", -2)
    assert "did not end in time" in said(scene.pass_time(20)), "its server, after a while awake"


def test_whoever_has_come_is_told_regularly_that_the_scheduler_lives(make_scene, sent):
    scene = make_scene(num_hosts=2)
    scene.hello(1)
    scene.join("worker-1")
    told = {peer for peer, _ in sent(scene.pass_time(5), messages.Alive)}
    assert told == {"agent-1", "worker-1"}


def test_they_hear_of_it_also_while_it_stops(make_scene, sent):
    """Or an agent whose tasks need long to save their work would take it for lost."""
    scene = make_scene(num_hosts=2, silence_s=5.0, grace_s=60.0).begin()
    scene.exits("worker-0", 3)
    told = {peer for peer, _ in sent(scene.pass_time(5), messages.Alive)}
    assert told == {"agent-0", "agent-1", "worker-1", "server-0"}
