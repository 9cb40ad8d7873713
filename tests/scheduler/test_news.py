"""What a job says of itself while all goes well."""

import signal

import pytest

from baryon.scheduler.control import Host, Task
from baryon.scheduler.starting import PATIENCE_S

LOGS = "logs are in /logs/of/job-1"


@pytest.fixture
def scene_that_speaks(make_scene):
    return lambda *args, **changes: make_scene(*args, is_quiet=False, **changes)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"num_workers": 1, "command": ("train.py", "--name", "a b")},
            "train.py --name 'a b' as 1 worker, 1 server on a",
        ),
        ({"num_workers": 4, "num_hosts": 2}, "train as 4 workers, 1 server on a, b"),
        ({"num_workers": 8, "num_hosts": 8}, "train as 8 workers, 1 server on a, b, c and 5 more"),
        ({"num_servers": 0, "command": ("x" * 99,)}, f"{'x' * 57}... as 2 workers on a"),
        (
            {
                "hosts": (Host("host 0", is_allotted=True), Host("host 1", is_allotted=True)),
                "tasks": (Task("worker", 0, 0, 0), Task("worker", 1, 1, 0)),
                "launcher": "slurm",
            },
            "train as 2 workers on 2 hosts of slurm",
        ),
    ],
)
def test_it_begins_with_what_runs_where(scene_that_speaks, said, changes, line):
    scene = scene_that_speaks(**changes)
    assert said(scene.core.on_start(scene.now)) == f"job job-1: {line}; {LOGS}"


def test_who_waits_for_long_is_told_for_whom_and_once(scene_that_speaks, said):
    scene = scene_that_speaks(num_workers=4, num_hosts=2)
    scene.hello(0)
    assert said(scene.tick(PATIENCE_S / 2)) == ""
    scene.join("server-0")
    scene.join("worker-1")
    assert said(scene.tick(PATIENCE_S / 2)) == (
        "waiting for the agent on b to start and for worker 0, worker 2, worker 3 to create a "
        "dist kvstore"
    )
    assert said(scene.pass_time(10)) == ""


def test_of_a_quick_start_nothing_is_said(scene_that_speaks, said):
    scene = scene_that_speaks().begin()
    assert said(scene.pass_time(10)) == ""


def test_the_time_in_a_queue_is_the_managers_to_tell_of(scene_that_speaks, said):
    scene = scene_that_speaks(num_workers=1)
    for _ in range(10):
        scene.core.on_queue(True, scene.now)
        assert said(scene.tick(1.0)) == ""
    scene.core.on_queue(False, scene.now)
    waiting = "waiting for the agent on a, server 0 to start and for worker 0 to create"
    assert waiting in said(scene.pass_time(3))


def test_it_ends_with_workers_and_seconds(scene_that_speaks, said):
    scene = scene_that_speaks(num_workers=2, num_servers=0).begin()
    scene.pass_time(10)
    scene.exits("worker-0")
    scene.exits("worker-1")
    assert said(scene.finish_agents()) == f"2 workers ended well after 10.0 s; {LOGS}"


def test_told_to_stop_it_says_that_it_has(scene_that_speaks, said):
    scene = scene_that_speaks(num_workers=1, num_servers=0).begin()
    scene.signal(signal.SIGINT)
    scene.exits("worker-0", -signal.SIGINT)
    assert said(scene.finish_agents()) == f"stopped after 0.0 s; {LOGS}"


def test_after_a_failure_all_has_been_said(scene_that_speaks, said):
    scene = scene_that_speaks(num_workers=1, num_servers=0).begin()
    assert LOGS in said(scene.exits("worker-0", 3))
    assert said(scene.finish_agents()) == ""


def test_quiet_it_says_nothing_of_all_that(make_scene, said):
    scene = make_scene(num_workers=1, num_servers=0)
    scene.hello(0)
    scene.tick(PATIENCE_S)
    scene.join("worker-0")
    scene.exits("worker-0")
    scene.finish_agents()
    assert said(scene.core.on_start(scene.now) + scene.history) == ""


def test_tasks_that_never_started_are_not_stopped(make_scene, said):
    """As when an agent cannot be started at all."""
    scene = make_scene(num_workers=4, num_hosts=2)
    scene.hello(1)
    ended = said(scene.agent_ends(0, "could not be started"))
    assert "exit code 1; stopping 2 other tasks; logs are in" in ended
    scene = make_scene(num_workers=4, num_hosts=2)
    assert "exit code 1; logs are in" in said(scene.agent_ends(0, "could not be started"))
    assert "did not end in time" not in said(scene.pass_time(60))
