"""Small real processes: what is started has no input and no way to outlive its job."""

import os
import signal
import subprocess
import sys

import pytest

from baryon.scheduler.agent import processes
from baryon.scheduler.agent.processes import descendants, kill_all, spawn
from tests.waiting import LIMIT_S

# A shell with a child of its own in the background, which has left the session, ignores SIGTERM
# and has a child as well; and, once its own shell has ended, an orphan. Three sleeps in all.
TREE = """\
(trap '' TERM; setsid sh -c 'sleep 1000 & sleep 1000') &
sh -c 'setsid sleep 1000 & exit'
wait
"""
PRELUDE = """\
import os, signal, subprocess, sys
from baryon.scheduler.agent import processes
from baryon.scheduler.agent.processes import *
"""


def read_line(process):
    """What a script says; an empty line if it has ended instead."""
    return process.stdout.readline().decode().strip()


# -- spawn ------------------------------------------------------------------------------------


def test_a_spawned_process_has_no_input_and_a_session_of_its_own(marked):
    code = "import os, sys; print(sys.stdin.read() == '', os.getsid(0) == os.getpid())"
    process = spawn([sys.executable, "-c", code], "/", marked.env)
    assert process.communicate(timeout=LIMIT_S) == (b"True True\n", b"")


def test_a_spawned_process_has_the_given_folder_and_environment(tmp_path):
    code = "import os, sys; print(os.getcwd(), os.environ['A'], 'HOME' in os.environ)"
    process = spawn([sys.executable, "-c", code], os.fspath(tmp_path), {"A": "b"})
    assert process.communicate(timeout=LIMIT_S)[0] == f"{tmp_path} b False\n".encode()


@pytest.mark.parametrize(
    ("argv", "cwd"), [(["/no/such/program"], "/"), (["true"], "/no/such/folder")]
)
def test_what_cannot_be_started_raises(argv, cwd):
    with pytest.raises(FileNotFoundError):
        spawn(argv, cwd, dict(os.environ))


def test_a_spawned_process_ends_with_the_one_that_started_it(marked, wait_until):
    code = "p = spawn(['sleep', '1000'], '/', dict(os.environ)); print(p.pid, flush=True)\n"
    script = marked.script(PRELUDE + code + "signal.pause()")
    assert read_line(script)
    wait_until(lambda: marked.alive("sleep"))
    script.kill()
    wait_until(lambda: not marked.alive())


def test_who_is_orphaned_before_it_can_say_so_ends_itself(marked):
    script = marked.script(PRELUDE + "die_with_parent(signal.SIGUSR2, parent=1); print('on')")
    assert script.wait(LIMIT_S) == -signal.SIGUSR2
    assert read_line(script) == ""


# -- kill_all ---------------------------------------------------------------------------------


def test_kill_all_ends_a_whole_tree_but_not_its_root(marked, wait_until):
    root = marked.script(
        PRELUDE + "become_subreaper(); subprocess.Popen(['sh', '-c', sys.argv[1]])\n"
        "print('ready', flush=True); sys.stdin.read()",
        TREE,
    )
    wait_until(lambda: len(marked.alive("sleep")) == 3)
    assert len({os.getsid(process.pid) for process in marked.alive()}) >= 3, "a test of nothing"
    assert kill_all(root.pid) == []
    assert [process.pid for process in marked.alive()] == [root.pid]


def test_a_process_can_end_and_reap_everything_under_itself(marked, wait_until):
    script = marked.script(
        PRELUDE + "become_subreaper(); p = subprocess.Popen(['sh', '-c', sys.argv[1]])\n"
        "sys.stdin.readline(); print(kill_all(os.getpid()), flush=True)\n"
        "print(descendants(os.getpid()), flush=True); os._exit(0)",
        TREE,
    )
    wait_until(lambda: len(marked.alive("sleep")) == 3)
    script.stdin.write(b"\n")
    script.stdin.flush()
    assert [read_line(script), read_line(script)] == ["[]", "[]"]


def test_kill_all_catches_up_with_a_process_that_starts_others(marked, wait_until):
    root = marked.script(
        "import subprocess, sys; subprocess.Popen(['sh', '-c', sys.argv[1]]); sys.stdin.read()",
        "while :; do sleep 0.001; done",
    )
    wait_until(lambda: len(marked.alive("sh")) == 1)
    assert kill_all(root.pid) == []
    assert [process.pid for process in marked.alive()] == [root.pid]


def test_kill_all_names_what_would_not_go(marked, wait_until, monkeypatch):
    root = marked.script("import subprocess; subprocess.run(['sleep', '1000'])")
    (sleeper,) = wait_until(lambda: marked.alive("sleep"))
    with monkeypatch.context() as patch:
        patch.setattr(processes, "signal_process", lambda process, signum: None)
        assert kill_all(root.pid, limit_s=0.1) == [sleeper.pid]


def test_nothing_lies_under_a_process_that_has_ended():
    process = subprocess.Popen(["true"])
    process.wait(LIMIT_S)
    assert descendants(process.pid) == []
    assert kill_all(process.pid) == []


# -- guarded ----------------------------------------------------------------------------------

# The inner process is to the guard as an agent is: on SIGTERM it ends all and itself.
GUARDED = (
    PRELUDE
    + """
def end(number, frame):
    kill_all(os.getpid())
    os._exit(40)

def main():
    signal.signal(signal.SIGTERM, end)
    task = spawn(["sh", "-c", sys.argv[1]], "/", dict(os.environ))
    print(os.getpid(), flush=True)
    signal.pause()

sys.exit(guarded(main))
"""
)


@pytest.fixture
def guard(marked, wait_until):
    """(the guard, the pid of the inner process), with a tree of tasks below."""
    process = marked.script(GUARDED, TREE)
    inner = int(read_line(process))
    wait_until(lambda: len(marked.alive("sleep")) == 3)
    assert inner != process.pid
    return process, inner


def test_killing_the_guard_ends_everything_below(guard, marked, wait_until):
    guard[0].kill()
    wait_until(lambda: not marked.alive())


def test_killing_the_inner_process_ends_everything_below(guard, marked, wait_until):
    os.kill(guard[1], signal.SIGKILL)
    assert guard[0].wait(LIMIT_S) == 128 + signal.SIGKILL
    assert marked.alive() == []


def test_a_signal_to_the_guard_reaches_the_inner_process(guard, marked):
    guard[0].terminate()
    assert guard[0].wait(LIMIT_S) == 40
    assert marked.alive() == []


def test_an_inner_process_that_is_stopped_ends_when_standard_input_does(guard, marked):
    """As when the connection of a host breaks whose agent somebody has stopped."""
    os.kill(guard[1], signal.SIGSTOP)
    guard[0].stdin.close()
    assert guard[0].wait(LIMIT_S) == 128 + signal.SIGKILL
    assert marked.alive() == []


@pytest.mark.parametrize(
    ("main", "exit_code"),
    [("lambda: 0", 0), ("lambda: 7", 7), ("lambda: os.kill(os.getpid(), 15)", 143)],
)
def test_the_exit_code_is_passed_on(marked, main, exit_code):
    script = marked.script(f"{PRELUDE}sys.exit(guarded({main}))")
    assert script.wait(LIMIT_S) == exit_code


def test_what_a_well_ended_process_leaves_behind_is_ended(marked):
    main = "lambda: subprocess.call(['sh', '-c', 'setsid sleep 1000 & exit 5'])"
    script = marked.script(f"{PRELUDE}sys.exit(guarded({main}))")
    assert script.wait(LIMIT_S) == 5
    assert marked.alive() == []


def test_an_exception_in_the_inner_process_is_shown(marked):
    """Or a fault of the agent would end a job without a word about it."""
    script = marked.script(f"{PRELUDE}sys.exit(guarded(lambda: 1 // 0))")
    _, errors = script.communicate(timeout=LIMIT_S)
    assert script.returncode == 1
    assert b"ZeroDivisionError" in errors


def test_a_signal_that_comes_too_late_for_the_inner_process_does_no_harm(marked):
    code = """
def kill_all(pid):
    os.kill(pid, signal.SIGTERM)
    print("cleaned up", flush=True)

processes.kill_all = kill_all
sys.exit(guarded(lambda: 6))
"""
    script = marked.script(PRELUDE + code)
    out, errors = script.communicate(timeout=LIMIT_S)
    assert (script.returncode, out, errors) == (6, b"cleaned up\n", b"")


def test_the_alarm_for_an_inner_process_does_not_reach_what_has_its_pid_later(marked, take_pid):
    """Nobody may take its pid before the guard has done with it, and afterwards no signal goes."""
    code = """
def kill_all(pid):
    print("reaped", flush=True)
    sys.stdin.readline()
    for number in (signal.SIGALRM, signal.SIGTERM):
        os.kill(pid, number)
    print("cleaned up", flush=True)

def main():
    print(os.getpid(), flush=True)
    return 6

processes.kill_all = kill_all
sys.exit(guarded(main))
"""
    script = marked.script(PRELUDE + code)
    inner = int(read_line(script))
    assert read_line(script) == "reaped"
    stranger = take_pid(inner)
    out, errors = script.communicate(b"\n", timeout=LIMIT_S)
    assert (script.returncode, out, errors) == (6, b"cleaned up\n", b"")
    assert stranger.poll() is None
