"""A pid that was a task's may be another's: that one is left alone."""

import os
import signal
import subprocess
import time

import psutil
import pytest

from baryon.ps import Reactor
from baryon.scheduler.agent import processes, task_process
from baryon.scheduler.agent.processes import ended_child, is_any_stopped, signal_process, spawn
from baryon.scheduler.agent.task_process import TaskProcess
from baryon.scheduler.control import messages

SPEC = messages.TaskSpec("worker-0", "program", (), "/", {}, b"")


@pytest.fixture
def reactor():
    reactor = Reactor()
    yield reactor
    reactor.close()


@pytest.fixture
def task(reactor, marked):
    """Start a task; its pipes are closed in the end."""
    tasks = []

    def start(*argv):
        tasks.append(TaskProcess(SPEC, spawn(list(argv), "/", marked.env), reactor))
        return tasks[-1]

    yield start
    for one in tasks:
        one.process.stdout.close()
        one.process.stderr.close()


class Clock:
    """Time that passes only when a test says so, and a reactor's timers on it."""

    def __init__(self):
        self.now = 1000.0
        self._timers = []

    def monotonic(self):
        return self.now

    def call_later(self, delay_s, callback):
        self._timers.append((self.now + delay_s, callback))
        return self

    def cancel(self):
        """Every timer."""
        self._timers.clear()

    def pass_time(self, seconds):
        end = self.now + seconds
        while self._timers and min(self._timers, key=lambda timer: timer[0])[0] <= end:
            timer = min(self._timers, key=lambda timer: timer[0])
            self._timers.remove(timer)
            self.now = timer[0]
            timer[1]()
        self.now = end


def reap(task, wait_until):
    wait_until(lambda: has_ended(task))
    task.end()
    task.reaped(os.waitpid(task.process.pid, 0)[1])


def has_ended(task):
    """Whether the task is the next child to be reaped, once orphans are: PID 1 inherits them."""
    while ended_child() not in (0, task.process.pid):
        os.waitpid(ended_child(), 0)
    return ended_child() == task.process.pid


def test_a_task_that_was_reaped_is_signalled_no_more(task, reactor, take_pid, wait_until):
    ended = task("sh", "-c", "exit 3")
    ended.kill_later(0.0)
    ended.kill_process_later(ended.process.pid, 0.0)
    reap(ended, wait_until)
    assert ended.code == 3
    stranger = take_pid(ended.process.pid)
    ended.signal(signal.SIGKILL)
    ended.signal_all(signal.SIGKILL)
    ended.kill()
    reactor.call_later(0.01, reactor.stop)  # after what was to come
    reactor.run()
    assert not ended.is_stopped()
    os.kill(stranger.pid, signal.SIGSTOP)
    assert not ended.is_stopped(), "what has its pid is none of its processes"
    assert stranger.poll() is None


@pytest.mark.parametrize("lacks", ["", "os.pidfd_open", "signal.pidfd_send_signal"])
def test_a_process_is_known_by_more_than_its_pid(task, take_pid, wait_until, monkeypatch, lacks):
    if lacks:  # as a Python that was built where the kernel's headers were older
        monkeypatch.delattr(lacks, raising=False)
    first = task("sleep", "1000")
    process = psutil.Process(first.process.pid)
    process.create_time()
    begun = time.monotonic()
    signal_process(process, signal.SIGTERM)
    reap(first, wait_until)
    # Without the kernel's own handle, processes that begin within one tick (10 ms) are alike.
    wait_until(lambda: time.monotonic() - begun > 0.02)
    assert first.code == -signal.SIGTERM
    signal_process(process, signal.SIGKILL)
    stranger = take_pid(process.pid)
    signal_process(process, signal.SIGKILL)
    assert stranger.poll() is None


def test_what_a_task_leaves_in_its_group_ends_with_it(task, marked, wait_until):
    ended = task("sh", "-c", "sleep 1000 & exit 0")
    reap(ended, wait_until)
    wait_until(lambda: not marked.alive("sleep"))


def test_who_looks_for_a_tasks_processes_looks_at_no_others(task, marked, wait_until, monkeypatch):
    """Or it would take seconds where thousands run."""
    running = task("sh", "-c", "setsid sh -c 'sleep 1000; exit'; exit")
    (sleeper,) = wait_until(lambda: marked.alive("sleep"))
    with monkeypatch.context() as patch:
        patch.setattr(psutil, "pids", None)
        patch.setattr(psutil.Process, "children", None)
        assert not running.is_stopped()
        sleeper.suspend()
        wait_until(running.is_stopped)
        sleeper.resume()
        wait_until(lambda: not running.is_stopped())
        running.signal_all(signal.SIGSTOP)
        wait_until(lambda: sleeper.status() == psutil.STATUS_STOPPED)
        running.signal_all(signal.SIGCONT)
        wait_until(lambda: not running.is_stopped())
    monkeypatch.setattr(processes, "_OWN_CHILDREN", "/no/such")  # an old kernel
    sleeper.suspend()
    wait_until(running.is_stopped)
    running.kill()
    reap(running, wait_until)
    assert not is_any_stopped(running.process.pid)


def test_a_process_in_a_container_is_found_by_the_pid_that_it_has_there(task, reactor, wait_until):
    """A worker says what os.getpid() is to itself."""
    namespace = ["unshare", "--pid", "--fork"]
    if subprocess.run([*namespace, "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("this user may not make a PID namespace")
    contained = task(*namespace, "sh", "-c", "sleep 1000 & echo $!; wait; exit 4")
    inner = int(contained.process.stdout.readline())
    contained.kill_process_later(inner, 0.0)
    reactor.call_later(0.01, reactor.stop)
    reactor.run()
    assert contained.was_late
    reap(contained, wait_until)
    assert contained.code == 4


def test_a_task_that_has_become_another_users_does_no_harm_to_the_agent(task, reactor, wait_until):
    """As one whose command is sudo."""
    if os.geteuid() != 0:
        pytest.skip("only root may become another user")
    ended = task("sh", "-c", "exit 3")
    wait_until(lambda: has_ended(ended))
    os.setresuid(65534, 65534, 0)
    try:
        with pytest.raises(PermissionError):
            os.killpg(ended.process.pid, signal.SIGKILL)
        ended.signal_all(signal.SIGSTOP)
        ended.kill()
        reap(ended, wait_until)
    finally:
        os.setresuid(0, 0, 0)
    assert ended.code == 3


def test_a_counter_of_the_kernel_that_goes_back_counts_nothing(task, monkeypatch, wait_until):
    """As after a migration, or where /proc/vmstat cannot be read any more."""
    running = task("true")
    monkeypatch.setattr(task_process, "count_oom_kills", lambda: running.oom_kills + 2)
    assert running.new_oom_kills() == 2
    monkeypatch.setattr(task_process, "count_oom_kills", lambda: running.oom_kills - 1)
    assert running.new_oom_kills() == 0
    reap(running, wait_until)


def test_time_in_which_a_task_is_suspended_is_no_part_of_its_limit(task, monkeypatch, wait_until):
    clock, killed = Clock(), []
    monkeypatch.setattr(task_process, "time", clock)
    monkeypatch.setattr(TaskProcess, "kill", lambda self: killed.append(clock.now))
    running = task("sleep", "1000")
    monkeypatch.setattr(running, "_reactor", clock)
    running.kill_later(60.0)
    clock.pass_time(1.0)
    running.signal_all(signal.SIGSTOP)
    clock.pass_time(58.0)
    running.signal_all(signal.SIGCONT)
    clock.pass_time(58.0)
    assert killed == []
    running.signal_all(signal.SIGSTOP)
    clock.pass_time(100.0)
    running.signal_all(signal.SIGCONT)
    clock.pass_time(0.5)
    assert killed == []
    clock.pass_time(10.0)
    assert len(killed) == 1
    monkeypatch.undo()
    running.kill()
    reap(running, wait_until)
