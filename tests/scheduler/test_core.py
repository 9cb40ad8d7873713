"""The scheduler's decisions from the first hello to the end of the job: who starts, who fails."""

import signal

import pytest

from baryon.scheduler import state
from baryon.scheduler.actions import Finish, ReleaseAgent
from baryon.scheduler.control import messages

# -- starting ---------------------------------------------------------------------------------


def test_an_agent_that_says_hello_is_told_what_to_start(make_scene, sent):
    scene = make_scene(num_workers=2, num_hosts=2)
    ((peer, start),) = sent(scene.hello(1), messages.StartTasks)
    assert peer == "agent-1"
    assert [spec.slug for spec in start.tasks] == ["worker-1"]


def test_the_roster_goes_out_only_once_all_have_joined(make_scene, sent):
    scene = make_scene(num_workers=2, num_servers=2)
    scene.hello(0)
    for slug in ("worker-1", "server-1", "worker-0"):
        assert sent(scene.join(slug), messages.Roster) == []
        assert scene.core.phase == state.STARTING
    rosters = sent(scene.join("server-0"), messages.Roster)
    assert scene.core.phase == state.RUNNING
    assert sorted(peer for peer, _ in rosters) == ["server-0", "server-1", "worker-0", "worker-1"]


def test_the_roster_lists_servers_by_rank_with_their_keys(make_scene, sent):
    scene = make_scene(num_workers=1, num_servers=3)
    scene.hello(0)
    for slug in ("server-2", "worker-0", "server-0"):
        scene.join(slug)
    roster = sent(scene.join("server-1"), messages.Roster)[0][1]
    assert roster.servers == tuple(
        messages.Peer(f"tcp://10.0.0.1:{5000 + rank}", f"key of server-{rank}") for rank in range(3)
    )


def test_an_agent_that_comes_up_after_the_failure_is_let_go(make_scene, sent):
    scene = make_scene(num_workers=2, num_hosts=2)
    scene.hello(0)
    scene.exits("worker-0", 3)
    assert scene.hello(1) == [ReleaseAgent(1)]


# -- a good end -------------------------------------------------------------------------------


def test_servers_are_told_that_a_worker_has_left(make_scene, sent):
    scene = make_scene(num_workers=2, num_servers=2).begin()
    assert sent(scene.exits("worker-1"), messages.Left) == [
        ("server-0", messages.Left(1)),
        ("server-1", messages.Left(1)),
    ]


def test_a_job_ends_well_servers_first_then_agents(make_scene, sent, finished):
    scene = make_scene(num_workers=2, num_servers=2, num_hosts=2).begin()
    assert not sent(scene.exits("worker-0"), messages.StopTasks)
    stops = sent(scene.exits("worker-1"), messages.StopTasks)
    assert stops == [
        (f"agent-{host}", messages.StopTasks("server", signal.SIGTERM, 5.0)) for host in (0, 1)
    ]
    assert scene.exits("server-0") == []
    assert scene.exits("server-1") == [ReleaseAgent(0), ReleaseAgent(1)]
    assert scene.agent_ends(0) == []
    assert scene.agent_ends(1) == [Finish(0)]
    assert scene.core.phase == state.OVER


def test_a_job_whose_workers_never_create_a_store_ends_well_with_a_hint(make_scene, said, finished):
    scene = make_scene(num_workers=2)
    scene.hello(0)
    scene.join("server-0")
    scene.exits("worker-0")
    text = said(scene.exits("worker-1"))
    assert "no worker created a dist kvstore" in text
    assert "--kvstore" in text
    scene.exits("server-0")
    assert finished(scene.finish_agents()) == [0]


def test_a_server_killed_while_the_job_ends_well_does_not_spoil_it(make_scene, finished):
    scene = make_scene(num_workers=1).begin()
    scene.exits("worker-0")
    scene.exits("server-0", -signal.SIGKILL)
    assert finished(scene.finish_agents()) == [0]


# -- failures ---------------------------------------------------------------------------------


def end_after(scene):
    """Everything that is left ends; what it ends with must not matter."""
    for slug in scene.slugs:
        scene.exits(slug, 99)
    scene.finish_agents()
    return scene.history


def test_a_worker_that_the_kernel_killed_for_want_of_memory(make_scene, said):
    scene = make_scene(num_workers=2).begin()
    text = said(scene.from_agent_of("worker-1", messages.Exited("worker-1", -9, 1.5, "", 1)))
    assert "killed by signal 9 (SIGKILL), because its host or its cgroup ran out of memory" in text


@pytest.mark.parametrize(
    ("code", "error", "exit_code", "words"),
    [
        (3, "", 3, "exited with code 3"),
        (255, "", 255, "exited with code 255"),
        (
            -signal.SIGKILL,
            "",
            137,
            "killed by signal 9 (SIGKILL), which Baryon did not send, after",
        ),
        (-signal.SIGSEGV, "", 139, "killed by signal 11 (SIGSEGV)"),
        (127, "No such file: 'train'", 127, "could not be started: No such file: 'train'"),
    ],
)
def test_the_first_failure_gives_the_exit_code_and_is_named(
    make_scene, said, finished, code, error, exit_code, words
):
    scene = make_scene(num_workers=3, num_hosts=3).begin()
    text = said(scene.exits("worker-1", code, error))
    assert text.startswith("worker 1 (b) ")
    assert words in text
    assert f"exit code {exit_code}; stopping 3 other tasks" in text
    assert "/logs/of/job-1" in text
    assert finished(end_after(scene)) == [exit_code]


@pytest.mark.parametrize("number", [32, 35, 50, 63])
def test_a_signal_that_has_no_name_in_python_is_a_failure_like_others(
    make_scene, said, finished, number
):
    """`kill -35`: the signal module names none of the real-time signals but the outermost."""
    scene = make_scene(num_workers=2).begin()
    assert f"signal {number}" in said(scene.exits("worker-1", -number))
    assert finished(end_after(scene)) == [128 + number]


def test_a_failure_is_told_with_the_last_line(make_scene, said):
    """The rest has been shown already, and is in the log."""
    scene = make_scene(num_workers=2).begin()
    scene.writes("worker-1", b"line 1\n  caf\xe9\n \n")
    scene.writes("worker-1", b"50%", is_transient=True)
    scene.writes("worker-1", b"\n\n")
    scene.writes("worker-0", b"not mine\n")
    text = said(scene.exits("worker-1", 1))
    assert "worker 1 (a) exited with code 1 after 1.5 s; its last line was: caf\ufffd\n" in text
    scene = make_scene(num_workers=1).begin()
    scene.writes("worker-0", b"x" * 1000 + b"\n")
    assert f"was: {'x' * 200}...\n" in said(scene.exits("worker-0", 1))


def test_a_silent_failure_says_that_nothing_was_written(make_scene, said):
    scene = make_scene(num_workers=2).begin()
    scene.writes("worker-0", b"not mine\n")
    assert "it wrote nothing" in said(scene.exits("worker-1", 1))


def test_what_fails_afterwards_says_nothing_and_changes_nothing(make_scene, said, finished):
    scene = make_scene(num_workers=3).begin()
    scene.exits("worker-0", 3)
    told = len(said(scene.history))
    scene.exits("worker-1", -signal.SIGTERM)
    scene.message("worker-2", messages.Failed("the servers have gone"))
    scene.exits("server-0", 1)
    scene.exits("worker-2", 5)
    assert len(said(scene.history)) == told
    assert finished(scene.finish_agents()) == [3]


def test_a_server_must_not_end_while_workers_run(make_scene, said, finished):
    scene = make_scene(num_workers=2).begin()
    assert "server 0 (a) exited with code 0" in said(scene.exits("server-0", 0))
    assert finished(end_after(scene)) == [1]


def test_a_task_can_say_itself_that_it_has_failed(make_scene, said, finished):
    scene = make_scene(num_workers=2).begin()
    text = said(scene.message("server-0", messages.Failed("key 3 has another shape")))
    assert text.startswith("server 0 (a): key 3 has another shape")
    assert finished(end_after(scene)) == [1]


def test_a_lost_agent_takes_its_tasks_with_it(make_scene, said, finished):
    scene = make_scene(num_workers=4, num_hosts=2).begin()
    text = said(scene.agent_ends(1, "was killed by signal 9"))
    assert "the agent on b was killed by signal 9, and with it worker 2, worker 3" in text
    for slug in ("worker-0", "worker-1", "server-0"):
        scene.exits(slug, -signal.SIGTERM)
    assert finished(scene.agent_ends(0)) == [1]


def test_a_failed_job_with_nothing_else_running_stops_no_others(make_scene, said):
    scene = make_scene(num_workers=1, num_servers=0).begin()
    assert "stopping" not in said(scene.exits("worker-0", 3))


# -- scripts that do not do the same everywhere -----------------------------------------------


def test_a_worker_that_never_joins_while_others_wait_is_an_error(make_scene, said, finished):
    scene = make_scene(num_workers=2, num_hosts=2)
    scene.hello(0)
    scene.hello(1)
    scene.join("worker-0")
    assert "worker 1 (b) ended without creating a dist kvstore" in said(scene.exits("worker-1"))
    assert finished(end_after(scene)) == [1]


def test_it_is_one_also_if_it_ends_before_the_others_join(make_scene, said):
    scene = make_scene(num_workers=2, num_hosts=2)
    scene.hello(0)
    scene.hello(1)
    assert said(scene.exits("worker-1")) == ""
    assert "worker 1 (b) ended without creating" in said(scene.join("worker-0"))


def test_only_one_process_can_be_a_task(make_scene, said, finished):
    scene = make_scene(num_workers=2)
    scene.hello(0)
    scene.join("worker-0", pid=41)
    text = said(scene.join("worker-0", pid=42))
    assert "process 42 joined as worker 0, but process 41 already is worker 0" in text
    assert finished(end_after(scene)) == [1]


def test_agents_of_a_job_that_is_queued_wait_for_each_other(make_scene, sent):
    """Nothing that they started would be of use before the last one is there."""
    scene = make_scene(num_workers=2, num_hosts=2)
    assert scene.core.on_queue(True, scene.now) == []
    assert sent(scene.hello(0), messages.StartTasks) == []
    assert scene.core.on_queue(True, scene.now) == []
    peers = [peer for peer, _ in sent(scene.hello(1), messages.StartTasks)]
    assert peers == ["agent-0", "agent-1"], "whatever the manager still says"


def test_agents_start_when_the_queue_is_over(make_scene, sent):
    scene = make_scene(num_workers=2, num_hosts=2)
    scene.core.on_queue(True, scene.now)
    scene.hello(0)
    actions = scene.core.on_queue(False, scene.now)
    assert [peer for peer, _ in sent(actions, messages.StartTasks)] == ["agent-0"]
    assert [peer for peer, _ in sent(scene.hello(1), messages.StartTasks)] == ["agent-1"]


def test_a_job_that_is_stopped_in_the_queue_waits_for_no_task(make_scene, sent):
    scene = make_scene(num_workers=2, num_hosts=2)
    scene.core.on_queue(True, scene.now)
    scene.hello(0)
    actions = scene.signal(signal.SIGINT)
    assert ReleaseAgent(1) in actions, "it never said hello"
    assert ReleaseAgent(0) in scene.agent_ends(1, "was not started")
    assert scene.agent_ends(0) == [Finish(130)]
