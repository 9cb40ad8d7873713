"""How a worker ends: what it has said about it, what its process did, and who is believed."""

import signal

import pytest

from baryon.scheduler import state
from baryon.scheduler.control import messages
from baryon.scheduler.running import GOODBYE_S, TEARDOWN_S


def begin(make_scene):
    return make_scene(num_workers=2, grace_s=5.0).begin()


def test_a_worker_that_vanishes_with_code_0_has_failed(make_scene, said):
    """As after ``os._exit(0)``: what it had under way is lost."""
    scene = begin(make_scene)
    assert scene.vanishes("worker-1") == []
    assert said(scene.pass_time(GOODBYE_S)) == ""
    text = said(scene.pass_time(1))
    assert "worker 1 (a) exited with code 0 without leaving the job" in text
    assert "exit code 1" in text
    assert scene.core.phase == state.STOPPING


def test_a_goodbye_may_come_after_the_end(make_scene, said, sent):
    """They come by different connections."""
    scene = begin(make_scene)
    scene.vanishes("worker-1")
    assert sent(scene.message("worker-1", messages.Gone()), messages.Left)
    assert said(scene.pass_time(100)) == ""


def test_a_worker_that_takes_no_part_needs_no_goodbye(make_scene, said):
    scene = make_scene(num_workers=1)
    scene.hello(0)
    assert "no worker created a dist kvstore" in said(scene.vanishes("worker-0"))


@pytest.mark.parametrize("code", [0, 3])
def test_after_a_goodbye_the_process_has_a_limit(make_scene, sent, said, code):
    scene = begin(make_scene)
    actions = scene.message("worker-1", messages.Gone(code))
    limit_s = 5.0 if code else TEARDOWN_S
    end = messages.EndProcess("worker-1", 7, limit_s)
    assert sent(actions, messages.EndProcess) == [("agent-0", end)]
    assert scene.message("worker-1", messages.Gone(code)) == [], "a repeat"


@pytest.mark.parametrize("how", [-signal.SIGKILL, 137])
def test_a_process_that_hangs_after_its_goodbye_ends_with_what_it_said(
    make_scene, sent, said, finished, how
):
    scene = begin(make_scene)
    scene.message("worker-1", messages.Gone())
    assert said(scene.pass_time(TEARDOWN_S, silent=("worker-1",))) == ""
    actions = scene.vanishes("worker-1", how, was_late=True)
    assert said(actions).startswith(
        "worker 1 (a) ended with code 0, but its process 7 hung and was killed, after"
    )
    assert sent(actions, messages.Left) == [("server-0", messages.Left(1))]
    scene.exits("worker-0")
    scene.exits("server-0")
    scene.agent_ends(0)
    assert finished(scene.history) == [0]


def test_one_that_hangs_after_it_has_failed_fails_the_job_with_its_own_code(make_scene, said):
    scene = begin(make_scene)
    scene.message("worker-1", messages.Gone(3))
    assert said(scene.pass_time(5, silent=("worker-1",))) == ""
    text = said(scene.vanishes("worker-1", -signal.SIGKILL, was_late=True))
    assert "worker 1 (a) ended with code 3, but its process 7 hung" in text
    assert "exit code 3" in text


def test_another_sigkill_is_not_ours(make_scene, said):
    scene = begin(make_scene)
    scene.message("worker-1", messages.Gone())
    text = said(scene.vanishes("worker-1", -signal.SIGKILL))
    assert "was killed by signal 9 (SIGKILL), which Baryon did not send," in text
    assert "exit code 137" in text


def test_a_worker_that_has_failed_is_not_saved_by_its_command(make_scene, said):
    """As in ``sh -c 'python train.py || true'``: others' rounds miss what it has not pushed."""
    scene = begin(make_scene)
    scene.message("worker-1", messages.Gone(3))
    text = said(scene.vanishes("worker-1", 0))
    assert "worker 1 (a) failed with code 3, though its command exited with 0" in text
    assert "exit code 3" in text


def test_what_a_command_does_after_its_script_counts(make_scene, said):
    scene = begin(make_scene)
    scene.message("worker-1", messages.Gone())
    scene.pass_time(200, silent=("worker-1",))
    assert scene.core.phase == state.RUNNING
    assert "exit code 4" in said(scene.vanishes("worker-1", 4, was_late=True))


def test_the_time_that_this_machine_slept_is_not_the_goodbyes(make_scene, said):
    scene = begin(make_scene)
    scene.vanishes("worker-1")
    scene.tick(1000.0)
    scene.message("worker-1", messages.Gone())
    assert "without leaving" not in said(scene.history)


def test_a_failure_is_told_at_last_if_the_command_goes_on(make_scene, said):
    """Whatever its agent can or cannot end: the others wait for it."""
    scene = begin(make_scene)
    scene.message("worker-1", messages.Gone(3))
    assert said(scene.pass_time(5 + GOODBYE_S)) == ""
    text = said(scene.pass_time(1))
    assert "worker 1 (a) failed with code 3; its command still runs" in text
    assert "exit code 3" in text


def test_a_command_that_goes_on_after_a_good_end_is_told_of_once(make_scene, said):
    """It may do so on purpose, or hang where its agent cannot end it."""
    scene = begin(make_scene)
    scene.message("worker-1", messages.Gone())
    assert said(scene.pass_time(TEARDOWN_S + GOODBYE_S)) == ""
    assert said(scene.pass_time(100)) == (
        "worker 1 (a) left the job 66 s ago, but its command still runs "
        "(process 7 there); Ctrl-C ends the job"
    )
    assert scene.core.phase == state.RUNNING


def test_a_job_that_stops_does_not_wait_for_a_goodbye(make_scene, sent):
    scene = begin(make_scene)
    scene.vanishes("worker-1")
    scene.vanishes("worker-0", 3)
    assert scene.core._stopping.role == "server"
