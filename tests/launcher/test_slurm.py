"""Slurm: the script and the commands that launch.py makes, and what it reads out of answers."""

import shlex

import pytest

from baryon.launcher.clusters import preview
from baryon.launcher.clusters.slurm import parse_ended, parse_seconds, parse_status
from baryon.launcher.clusters.watch import OVER, QUEUED, RUNNING, Status, Watch
from baryon.launcher.options import parse
from baryon.ps import UsageError

SCRIPT = """\
#!/bin/bash
# Baryon's job JOB: one agent on each of 2 hosts, which launch.py then tells
# what to run. The options for sbatch are on its command line. A template of your own
# (--template FILE) can do more before the last line: load modules, copy data, #SBATCH options.
exec srun --nodes=2 --ntasks-per-node=1 --ntasks=2 --kill-on-bad-exit=0 --wait=0 \
--cpu-bind=none --input=none --overlap /the/python -c CODE DIR/.agents-JOB SLURM_PROCID
"""


@pytest.fixture
def plan(folder, monkeypatch):
    """(job, script, sbatch's arguments) of a command line, outside an allocation."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)

    def plan(*argv):
        job, options = parse(["--launcher", "slurm", *argv])
        path, _, rest = preview(job, options).partition("\n#!")
        script, _, command = f"#!{rest}".partition("\n# is submitted by\n")
        words = shlex.split(command)
        assert words[-1] == path[2:] == f"{options.job_dir or job.log_dir}/slurm-{job.id}.sh"
        return job, script, words

    return plan


def test_the_script_is_exactly_this(plan):
    job, script, _ = plan(
        *("-n", "4", "--workers-per-host", "2", "--python", "/the/python"),
        *("--job-dir", "/a 'quoted'\nplace", "train.py"),
    )
    *comments, last = script[: script.index("exec ")].splitlines(), script[script.index("exec ") :]
    words = shlex.split(last)
    code = next(word for word in words if word.startswith("import sys"))
    words[words.index(code)] = "CODE"
    assert f"/a 'quoted'\nplace/.agents-{job.id}" in words
    text = "\n".join([*comments[0], " ".join(words)]) + "\n"
    assert text.replace("/a 'quoted'\nplace", "DIR").replace(job.id, "JOB") == SCRIPT


def test_each_flag_is_one_argument_of_sbatch(plan):
    job, _, words = plan(
        *("-n", "4", "--workers-per-host", "2", "--queue", "q", "--account", "it's", "--time"),
        *("1:00", "--mem", "4G", "--cpus-per-worker", "3", "--gpus-per-worker", "2"),
        *("--job-name", "a\nb", "--mail", "me@x", "--constraint", "a&b", "--job-dir", "/100%"),
        *("--extra", "--nice=5 --comment='two words'", "--extra=-x node1", "train.py"),
    )
    assert words[:-1] == [
        *("sbatch", "--parsable", "--no-requeue", "--nodes=2", "--ntasks-per-node=1"),
        *(
            f"--output=/100%%/slurm-{job.id}.out",
            "--job-name=a\nb",
            "--partition=q",
            "--account=it's",
        ),
        *("--time=1:00", "--mem=4G", "--cpus-per-task=6", "--gres=gpu:4", "--constraint=a&b"),
        *("--mail-user=me@x", "--mail-type=END,FAIL"),
        *("--nice=5", "--comment=two words", "-x", "node1"),
    ]
    assert job.devices == 2


def test_a_template_of_the_users_own(plan, folder):
    (folder / "mine.j2").write_text("#!/bin/sh\nmodule load x\n{{ srun }}\n")
    _, script, _ = plan("-n", "1", "--template", "mine.j2", "train.py")
    assert script.startswith("#!/bin/sh\nmodule load x\nsrun")
    (folder / "mine.j2").write_text("{{ no_such }}")
    with pytest.raises(UsageError, match=r"--template mine\.j2: 'no_such' is undefined"):
        plan("-n", "1", "--template", "mine.j2", "train.py")


def test_in_an_allocation_workers_are_shared_out_over_its_nodes(folder, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "3")
    job, options = parse(["--launcher", "slurm", "-n", "7", "train.py"])
    assert [host.slots for host in job.hosts] == [3, 3, 3]
    assert preview(job, options).startswith("# in allocation 7\nsrun --nodes=3 ")


def test_wrong_flags_are_named(faults):
    assert faults("--launcher", "slurm", "-n", "2", "-H", "a,b", "train.py") == [
        "-H is not for --launcher slurm, which chooses the hosts itself"
    ]
    assert faults(
        *("--launcher", "slurm", "-n", "2", "--devices", "2", "--gpus-per-worker", "3"),
        *("--queue-timeout", "0", "train.py"),
    ) == [
        "--queue-timeout must be a number of seconds above 0, not 0",
        "--gpus-per-worker 3 and --devices 2 contradict",
    ]


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("PENDING|UNLIMITED||Resources", Status(QUEUED, "Resources")),
        ("PENDING|1:00||None", Status(QUEUED, "")),
        ("RUNNING|1:00|node[1-2]|None", Status(RUNNING, "node[1-2]", 60.0)),
        ("COMPLETING|UNLIMITED|a|None", Status(RUNNING, "a", None)),
        (
            "CANCELLED|1:00|a|None",
            Status(OVER, "was cancelled from outside, as by scancel (CANCELLED)", None, 143),
        ),
        (
            "TIMEOUT|0:00|a|TimeLimit",
            Status(OVER, "has reached its time limit (TIMEOUT, TimeLimit)", None, 124),
        ),
        (
            "PREEMPTED|1:00|a|None",
            Status(OVER, "was preempted by another job (PREEMPTED)", None, 143, True),
        ),
        (
            "PENDING|1:00||ReqNodeNotAvail, Reserved|maintenance",
            Status(QUEUED, "ReqNodeNotAvail, Reserved|maintenance"),
        ),
        ("", Status(OVER, "is not known to Slurm any more")),
    ],
)
def test_what_squeue_says(line, status):
    assert parse_status(line + "\n") == status


def test_times():
    assert parse_seconds("1-02:03:04") == 93784.0
    assert parse_seconds("3:04") == 184.0
    assert [parse_seconds(word) for word in ("UNLIMITED", "NOT_SET", "INVALID")] == [None] * 3


def test_what_srun_says_of_agents_that_ended():
    line = "srun: error: node2: tasks 1-2,4: Exited with exit code 1"
    assert parse_ended(line) == [(n, "ended: exited with exit code 1") for n in (1, 2, 4)]
    assert parse_ended("srun: error: n: task 0: Killed") == [(0, "ended: killed")]
    assert parse_ended("srun: error: Unable to create step") == []


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_the_story_of_a_job_that_runs_into_its_limit():
    watch = Watch(None, 60.0, Clock())
    assert watch.on_status("job 1", Status(QUEUED, "Priority")) == (["job 1 waits: Priority"], None)
    assert watch.on_status("job 1", Status(QUEUED, "Priority")) == ([], None)
    running = Status(RUNNING, "a", 100.0)
    assert watch.on_status("job 1", running) == (["job 1 runs on a"], None)
    assert watch.on_status("job 1", Status(RUNNING, "a", 51.0)) == ([], None)  # not half of it
    _, trouble = watch.on_status("job 1", Status(RUNNING, "a", 50.0))
    assert trouble == ("job 1 reaches its time limit in 50 s", 124, 30.0)
    assert watch.was_interrupted
    assert watch.on_status("job 1", Status(OVER, "was lost")) == ([], None), "once"


def test_the_queue_has_a_limit_and_silence_is_said_once():
    clock = Clock()
    watch = Watch(30.0, 60.0, clock)
    waiting = Status(QUEUED, "")
    says, trouble = watch.on_status("job 1", waiting, "no answer")
    assert (says, trouble) == (["the manager of job 1 does not answer: no answer"], None)
    assert watch.on_status("job 1", waiting, "no answer") == ([], None)
    clock.now = 31.0
    _, trouble = watch.on_status("job 1", waiting)
    assert trouble == ("job 1 waited 31 s (--queue-timeout): no reason is known", 1, None)
    assert not watch.was_interrupted


def test_an_end_that_is_wanted_is_no_trouble():
    watch = Watch(None, 60.0, Clock())
    cancelled = Status(OVER, "was cancelled")
    assert watch.on_status("job 1", cancelled, is_ending=True) == ([], None)
    assert not watch.was_interrupted
    watch.on_status("job 1", Status(OVER, "was preempted", None, 143, True), is_ending=True)
    assert watch.was_interrupted, "its agents may have told of their end before the manager"
