"""How the scheduler stops a job: signals, the order of it, and its limits."""

import signal

import pytest

from baryon.scheduler import Trouble, state
from baryon.scheduler.actions import Finish, Kill, ReleaseAgent
from baryon.scheduler.control import messages


@pytest.mark.parametrize(
    ("signum", "to_workers"),
    [
        (signal.SIGINT, signal.SIGINT),  # a KeyboardInterrupt, as without us
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGHUP, signal.SIGTERM),
        (signal.SIGPIPE, signal.SIGTERM),  # the reader of `launch.py | head`; Python ignores it
    ],
)
def test_the_first_signal_stops_the_job(make_scene, sent, said, signum, to_workers):
    scene = make_scene(num_workers=2).begin()
    actions = scene.signal(signum)
    assert signum.name in said(actions)
    assert sent(actions, messages.StopTasks) == [
        ("agent-0", messages.StopTasks("worker", to_workers, 5.0))
    ]
    for slug in ("worker-0", "worker-1"):
        actions = scene.exits(slug, -signum)
    assert sent(actions, messages.StopTasks) == [
        ("agent-0", messages.StopTasks("server", signal.SIGTERM, 5.0))
    ]
    assert scene.exits("server-0") == [ReleaseAgent(0)]
    assert scene.agent_ends(0) == [Finish(128 + signum)]


def test_the_second_signal_kills(make_scene, said, finished):
    scene = make_scene().begin()
    assert Kill() not in scene.signal(signal.SIGINT)
    actions = scene.signal(signal.SIGINT)
    assert "SIGINT while stopping" in said(actions)
    assert Kill() in actions
    assert finished(scene.finish_agents()) == [130]


def test_a_signal_after_a_failure_keeps_the_failures_code(make_scene, finished):
    scene = make_scene().begin()
    scene.exits("worker-0", 3)
    assert Kill() in scene.signal(signal.SIGINT)
    assert finished(scene.finish_agents()) == [3]


def test_signals_after_the_end_do_nothing(make_scene):
    scene = make_scene().begin()
    scene.signal(signal.SIGTERM)
    scene.finish_agents()
    assert scene.core.phase == state.OVER
    assert scene.signal(signal.SIGTERM) == []


def test_sigusr1_tells_the_status_and_stops_nothing(make_scene, said):
    scene = make_scene(num_workers=3, num_hosts=3)
    for host in scene.hosts:
        scene.hello(host)
    scene.join("server-0", pid=55)
    scene.join("worker-0", pid=56)
    scene.pass_time(3)
    scene.gather("worker-0", "x")
    text = said(scene.signal(signal.SIGUSR1))
    assert "job job-1 is starting, 3 s after its start" in text
    assert "server 0 (a) joined as process 55, last heard 1.0 s ago" in text
    assert "worker 1 (b) has not joined" in text
    assert "  barrier (x): 1 of 3" in text
    scene.exits("server-0", 1)
    assert "server 0 (a) has ended" in said(scene.signal(signal.SIGUSR1))
    assert Kill() not in scene.history


def test_workers_are_stopped_before_servers_and_servers_before_agents(make_scene, sent):
    scene = make_scene(num_workers=3, num_servers=2, num_hosts=3).begin()
    actions = scene.exits("worker-0", 3)
    assert {stop.role for _, stop in sent(actions, messages.StopTasks)} == {"worker"}
    assert {peer for peer, _ in sent(actions, messages.StopTasks)} == {
        "agent-0", "agent-1", "agent-2",
    }  # fmt: skip
    for slug in ("server-1", "worker-2"):  # the server is out of turn
        actions = scene.exits(slug, -15)
        assert not sent(actions, messages.StopTasks)
        assert not any(isinstance(action, ReleaseAgent) for action in actions)
    actions = scene.exits("worker-1", -15)
    assert {stop.role for _, stop in sent(actions, messages.StopTasks)} == {"server"}
    assert scene.exits("server-0") == [ReleaseAgent(host) for host in range(3)]


def test_workers_that_wait_for_one_that_was_stopped_are_told(make_scene, sent):
    """One that waits inside MXNet for a round does not notice a signal."""
    scene = make_scene(num_workers=4)
    scene.hello(0)
    for slug in ("server-0", "worker-0", "worker-1", "worker-2"):
        scene.join(slug)
    scene.signal(signal.SIGTERM)
    told = sent(scene.exits("worker-1", -15), messages.Abort)
    assert [peer for peer, _ in told] == ["worker-0", "worker-2"], "worker 3 has not joined"
    assert "worker 1 has ended" in told[0][1].text
    assert [peer for peer, _ in sent(scene.exits("worker-0"), messages.Abort)] == ["worker-2"]
    (told,) = sent(scene.exits("server-0"), messages.Abort)
    assert told[0] == "worker-2" and "server 0 has ended" in told[1].text


def test_workers_have_the_time_that_there_is_to_save_their_work(make_scene, sent, said):
    scene = make_scene(num_workers=1).begin()
    trouble = Trouble("the time is nearly over", 124, grace_s=40.0)
    actions = scene.core.on_trouble(trouble, scene.now)
    assert sent(actions, messages.StopTasks) == [
        ("agent-0", messages.StopTasks("worker", signal.SIGTERM, 40.0))
    ]
    assert "did not end in time" not in said(scene.pass_time(39.0))
    actions = scene.exits("worker-0", 0)
    assert sent(actions, messages.StopTasks) == [
        ("agent-0", messages.StopTasks("server", signal.SIGTERM, 5.0))
    ]


def test_an_agent_that_never_came_up_is_released_instead_of_asked(make_scene, sent):
    scene = make_scene(num_workers=2, num_hosts=2)
    scene.hello(0)
    actions = scene.exits("worker-0", 3)
    assert ReleaseAgent(1) in actions
    assert {peer for peer, _ in sent(actions, messages.StopTasks)} == {"agent-0"}


def test_what_does_not_end_in_time_is_named_and_killed(make_scene, said):
    scene = make_scene(num_workers=3, grace_s=5.0).begin()
    scene.exits("worker-0", 3)
    scene.exits("worker-1", -15)
    assert said(scene.pass_time(14)) == ""
    actions = scene.pass_time(1)
    assert said(actions) == "server 0, worker 2 did not end in time"
    assert actions[-2:] == [Kill(), Finish(3)]


def test_an_agent_that_does_not_end_is_killed_and_costs_nothing(make_scene, said):
    scene = make_scene(num_workers=1, num_servers=0, num_hosts=1, grace_s=5.0).begin()
    assert scene.exits("worker-0") == [ReleaseAgent(0)]
    actions = scene.pass_time(4)
    assert {type(action.message) for action in actions} == {messages.Alive}
    assert scene.pass_time(1)[-2:] == [Kill(), Finish(0)]


def test_the_kill_is_left_out_if_nothing_is_left(make_scene):
    scene = make_scene().begin()
    scene.signal(signal.SIGTERM)
    assert scene.agent_ends(0) == [Finish(143)]


def test_time_passes_without_effect_after_the_end(make_scene):
    scene = make_scene().begin()
    scene.signal(signal.SIGTERM)
    scene.finish_agents()
    assert scene.pass_time(100) == []


def test_its_repr_counts_its_tasks(make_scene):
    scene = make_scene(num_workers=2).begin()
    scene.exits("worker-0")
    assert repr(scene.core) == "SchedulerCore(running, 3 joined, 1 ended, of 3)"
