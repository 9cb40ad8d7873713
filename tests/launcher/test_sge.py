"""Grid Engine: the script and the command that launch.py makes, and what it reads of answers."""

import shlex
import time

import pytest

from baryon.launcher.clusters import preview, sge
from baryon.launcher.options import parse
from baryon.ps import PeerError, UsageError

SCRIPT = """\
#!/bin/bash
# Baryon's job JOB: a task of an array for each of 2 agents, which launch.py
# then tells what to run. The options for qsub are on its command line. A template of your own
# (--template FILE) can do more before the last lines: load modules, copy data, give #$ options.
trap '' USR1 # Grid Engine is about to suspend this
trap : USR2  # or to kill it (-notify), which the agent hears, too: it ends its tasks, then itself
BARYON_AGENT=$((SGE_TASK_ID - 1)) /the/python -c CODE '/a '"'"'quoted'"'"' "place" %j/.agents-JOB' \
BARYON_AGENT || echo "baryon: agent $((SGE_TASK_ID - 1)) ended with code $?"
"""


@pytest.fixture
def plan(folder):
    """(job, script, qsub's arguments) of a command line."""

    def plan(*argv):
        job, options = parse(["--launcher", "sge", *argv])
        path, _, rest = preview(job, options).partition("\n#!")
        script, _, command = f"#!{rest}".partition("\n# is submitted by\n")
        words = shlex.split(command)
        assert words[-1] == path[2:] == f"{options.job_dir or job.log_dir}/sge-{job.id}.sh"
        return job, script.replace(job.id, "JOB"), words

    return plan


def test_the_script_is_exactly_this(plan):
    _, script, _ = plan(
        *("-n", "4", "--workers-per-host", "2", "--python", "/the/python"),
        *("--job-dir", "/a 'quoted' \"place\" %j", "train.py"),
    )
    begin, end = script.index("-c ") + 3, script.index(" '/a ")
    assert script[:begin] + "CODE" + script[end:] == SCRIPT
    (code,) = shlex.split(script[begin:end])
    assert code.startswith("import sys; ")


def test_each_flag_is_one_argument_of_qsub(plan):
    job, _, words = plan(
        *("-n", "4", "--workers-per-host", "2", "--queue", "q@@a", "--account", "it's", "--time"),
        *("1:00:00", "--mem", "4G", "--cpus-per-worker", "3", "--gpus-per-worker", "2"),
        *("--pe", "smp", "--job-name", "1 a\nb:c*%", "--mail", "me@x", "--constraint", "a=b c"),
        *("--job-dir", "/100%", "--extra", "-p -5 -ac 'x=two words'", "--extra=-P x", "train.py"),
    )
    assert words[:-1] == [
        *("qsub", "-terse", "-t", "1-2", "-cwd", "-S", "/bin/bash", "-notify", "-r", "n"),
        *("-j", "y", "-o", f"/100%/sge-{job.id}.out.$TASK_ID", "-N", "_1_a_b_c_%", "-q", "q@@a"),
        *("-A", "it's", "-l", "h_rt=1:00:00", "-l", "mem_free=4G", "-l", "gpu=4"),
        *("-l", "a=b c", "-M", "me@x", "-m", "ea", "-pe", "smp", "6"),
        *("-p", "-5", "-ac", "x=two words", "-P", "x"),
    ]
    assert job.devices == 2


def test_a_template_of_the_users_own(plan, folder):
    (folder / "mine.j2").write_text("#!/bin/bash\nmodule load x\n{{ agent }}\n")
    _, script, _ = plan("-n", "1", "--template", "mine.j2", "train.py")
    assert script.startswith("#!/bin/bash\nmodule load x\nBARYON_AGENT=$((SGE_TASK_ID - 1)) ")


def test_what_is_wrong_is_named_with_its_remedy(plan, faults):
    assert faults("--launcher", "sge", "-n", "2", "-H", "a,b", "train.py") == [
        "-H is not for --launcher sge, which chooses the hosts itself"
    ]
    with pytest.raises(UsageError, match="--cpus-per-worker needs --pe NAME: CPUs are slots"):
        plan("-n", "1", "--cpus-per-worker", "2", "train.py")
    for directory in ("/a,b", "/a:b", "/a$USER", "/a\nb"):
        with pytest.raises(UsageError, match=r"Grid Engine cannot write to .*; use --job-dir"):
            plan("-n", "1", "--job-dir", directory, "train.py")
    with pytest.raises(UsageError, match='--extra "-l \'x": No closing quotation'):
        plan("-n", "1", "--extra", "-l 'x", "train.py")


QSTAT = """<?xml version='1.0'?>
<job_info>
  <queue_info>
    <job_list state="running">
      <JB_job_number>12</JB_job_number><JB_name>a &lt;b</JB_name><state>r</state>
      <JAT_start_time>2026-01-02T03:04:05</JAT_start_time>
      <queue_name>main.q@node1</queue_name><tasks>1</tasks>
    </job_list>
  </queue_info>
  <job_info>
    <job_list state="pending">
      <JB_job_number>13</JB_job_number><state>Eqw</state>
      <JB_submission_time>2026-01-02T03:04:00</JB_submission_time>
      <queue_name></queue_name><tasks>2</tasks>
    </job_list>
  </job_info>
</job_info>
"""


def test_what_qstat_says_of_tasks():
    start = time.mktime((2026, 1, 2, 3, 4, 5, 0, 0, -1))
    assert sge.parse_tasks(QSTAT) == [
        sge.Task("12", "r", "node1", start),
        sge.Task("13", "Eqw"),
    ]
    assert sge.parse_tasks("<job_info><queue_info/><job_info/></job_info>") == []
    with pytest.raises(PeerError, match="qstat's answer cannot be read"):
        sge.parse_tasks("error: no qmaster")


def test_messages_that_differ_in_names_and_numbers_only_are_of_one_kind():
    def told(*messages):
        items = "".join(f"<MES_message>{text}</MES_message>" for text in messages)
        return sge.parse_messages(f"<messages>{items}</messages>", "MES_message")

    full = 'queue instance "main.q@node{}" dropped because it is full'
    offers = '(-l mem_free=9T) cannot run at host "n{}" because it offers only hl:mem_free=2{}.5G'
    first = told(full.format(1), full.format(2), offers.format(1, 1), offers.format(2, 2))
    assert list(first.values()) == [full.format(1), offers.format(1, 1)]
    assert told(offers.format(3, 3), full.format(3)).keys() == first.keys()
    assert told() == {}


def test_times():
    assert sge.parse_seconds("1:02:03") == 3723.0
    assert sge.parse_seconds("90") == 90.0
    assert sge.parse_seconds("1::") == 3600.0
    assert [sge.parse_seconds(word) for word in ("", ":", "INFINITY", "1:2:3:4")] == [None] * 4


def test_what_the_script_says_of_agents_that_ended():
    line = "baryon: agent 1 ended with code 137\n"
    assert sge.parse_ended(line) == [(1, "ended with code 137")]
    assert sge.parse_ended("worker: baryon: agent 1 ended with code 137") == []
