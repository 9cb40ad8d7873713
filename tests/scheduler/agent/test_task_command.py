"""What a task's process is started with."""

import os
import sys

import pytest

from baryon.scheduler.agent.task_command import argv_of, environment_of
from baryon.scheduler.control.messages import TaskSpec


def spec(slug="worker-0", runner="program", argv=("train", "--fast"), env=()):
    return TaskSpec(slug, runner, argv, "/", dict(env), b"")


@pytest.mark.parametrize(
    ("runner", "argv"),
    [("program", ["train", "--fast"]), ("python", [sys.executable, "train", "--fast"])],
)
def test_a_worker_is_a_program_or_a_script(runner, argv):
    assert argv_of(spec(runner=runner)) == argv


def test_a_server_is_a_module_of_ours():
    program, flag, code = argv_of(spec("server-0", "server", ()))
    assert (program, flag) == (sys.executable, "-c")
    assert "from baryon.scheduler.server_task import main" in code


def test_the_tasks_own_environment_counts_more_than_the_agents():
    env = environment_of(spec(env={"A": "task"}), {"A": "agent", "B": "agent"}, 1, 8)
    assert (env["A"], env["B"]) == ("task", "agent")
    assert "OMP_NUM_THREADS" not in env, "one worker may use every core"
    assert os.path.basename(env["PYTHONPATH"]) == "hook"


@pytest.mark.parametrize(("num_cores", "threads"), [(8, "2"), (3, "1")])
def test_workers_share_the_cores_of_their_host(num_cores, threads):
    assert environment_of(spec(), {}, 4, num_cores)["OMP_NUM_THREADS"] == threads
    chosen = environment_of(spec(env={"OMP_NUM_THREADS": "5"}), {}, 4, num_cores)
    assert chosen["OMP_NUM_THREADS"] == "5"


def test_a_server_is_not_given_what_is_for_scripts():
    env = environment_of(spec("server-0", "server"), {"PYTHONPATH": "/mine"}, 4, 8)
    assert env["PYTHONPATH"] == "/mine"
    assert "OMP_NUM_THREADS" not in env
