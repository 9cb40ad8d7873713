"""An agent on its own: this test is its scheduler, at the other end of a real socket."""

import os
import random
import signal
import stat
import sys
import time

import psutil
import pytest
import zmq

from baryon.ps import new_key_pair, secure_server
from baryon.scheduler.agent import agent_argv
from baryon.scheduler.control import TASK_VARIABLE, AgentConfig, messages
from baryon.scheduler.control.delivery import Conversations, decode_envelope
from baryon.scheduler.control.messages import CONTROL

from ...proxy import Proxy

LIMIT_MS = 30_000
CREDENTIALS = "what-only-this-task-may-know"


class Scheduler:
    """Talks to one agent; the agent's own process is ``process``."""

    def __init__(self, marked, context, silence_s, cuts=(), **config):
        keys, agent_keys = new_key_pair(), new_key_pair()
        self.secret_key = agent_keys.secret
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.rcvtimeo = LIMIT_MS
        self.socket.rcvhwm = 1
        secure_server(self.socket, keys)
        self.socket.bind("tcp://127.0.0.1:*")
        self.proxy = Proxy(self.socket.get_string(zmq.LAST_ENDPOINT), cuts)
        config = AgentConfig(
            job="job-1", host=0, endpoint=self.proxy.endpoint, scheduler_key=keys.public,
            public_key=agent_keys.public, secret_key=agent_keys.secret, silence_s=silence_s,
            **config,
        )  # fmt: skip
        self.process = marked.script(agent_argv(sys.executable)[2])
        self.process.stdin.write(config.line())
        self.process.stdin.flush()
        self.conversations = Conversations(self._post)
        if not config.interfaces:
            self.hello = self.receive(messages.AgentHello)

    def _post(self, route, envelope, data):
        self.socket.send_multipart([route, envelope] if data is None else [route, envelope, data])

    def receive(self, kind):
        """The next message of this type."""
        while True:
            route, envelope, *body = self.socket.recv_multipart()
            data = body[0] if body else b""
            is_new = self.conversations.hear("agent", route, decode_envelope(envelope), len(data))
            self.conversations.acknowledge("agent")
            message = CONTROL.decode(data) if is_new and data else None
            if isinstance(message, kind):
                return message

    def send(self, message):
        self.send_bytes(CONTROL.encode(message))

    def send_bytes(self, data):
        self.conversations.send("agent", data, len(data))

    def start(self, *argv, slug="worker-0", env=None, cwd="/", runner="program"):
        spec = messages.TaskSpec(slug, runner, argv, cwd, env or {}, CREDENTIALS.encode())
        self.send(messages.StartTasks((spec,)))

    def until_exited(self):
        """(all the output until a task has ended, how it ended)."""
        output = []
        while True:
            message = self.receive((messages.Output, messages.Exited))
            if isinstance(message, messages.Exited):
                return output, message
            output.append(message)

    def errors(self):
        """What the agent says on the terminal until it ends."""
        return self.process.communicate(timeout=LIMIT_MS / 1000)[1].decode()


@pytest.fixture
def scheduler(marked):
    context, started = zmq.Context(), []

    def start(silence_s=60.0, **config):
        started.append(Scheduler(marked, context, silence_s, **config))
        return started[-1]

    yield start
    context.destroy(linger=0)
    for one in started:
        one.proxy.close()


def text(outputs, is_error=False):
    return b"".join(output.data for output in outputs if output.is_error == is_error).decode()


def test_it_reports_the_output_and_then_the_end_of_a_task(scheduler):
    agent = scheduler()
    agent.start("sh", "-c", "seq 1000; echo oh >&2; exit 3")
    output, end = agent.until_exited()
    assert text(output) == "".join(f"{number}\n" for number in range(1, 1001))
    assert text(output, is_error=True) == "oh\n"
    assert (end.task, end.code, end.error) == ("worker-0", 3, "")
    assert end.seconds > 0


@pytest.mark.parametrize("seed", range(3))
def test_a_connection_that_breaks_loses_no_line_and_no_end(scheduler, seed):
    chance = random.Random(seed)
    agent = scheduler(cuts=[chance.randint(1, 30_000) for _ in range(4)])
    agent.start("sh", "-c", "seq 20000; exit 3")
    output, end = agent.until_exited()
    assert text(output) == "".join(f"{number}\n" for number in range(1, 20_001))
    assert end.code == 3
    assert agent.proxy.num_cuts > 2


def test_a_task_that_cannot_be_started_is_reported_with_the_reason(scheduler):
    agent = scheduler()
    agent.start("/no/such/program")
    _, end = agent.until_exited()
    assert end.code == 127
    assert "/no/such/program" in end.error


def test_credentials_lie_in_a_private_file_for_as_long_as_the_agent_lives(scheduler, wait_until):
    agent = scheduler()
    agent.start("sh", "-c", f'echo "${TASK_VARIABLE}"; sh -c "cat ${TASK_VARIABLE}"')
    path, secret = text(agent.until_exited()[0]).splitlines()
    assert secret == CREDENTIALS
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    agent.process.kill()  # the agent has no time to tidy up
    agent.process.wait(LIMIT_MS / 1000)
    wait_until(lambda: not os.path.exists(path))


def test_secrets_are_on_nobodys_command_line_or_environment(scheduler, marked, wait_until):
    agent = scheduler()
    agent.start("sleep", "1000")
    wait_until(lambda: marked.alive("sleep"))
    processes = marked.alive()
    assert len(processes) == 3, "a guard, an agent, a task"
    for process in processes:
        seen = repr((process.cmdline(), process.environ()))
        # Without the text in an assertion: a failure would print this machine's environment.
        told = [secret in seen for secret in (agent.secret_key, CREDENTIALS)]
        assert told == [False, False]


def test_our_hook_comes_before_the_users_own_path(scheduler):
    agent = scheduler()
    agent.start("sh", "-c", "echo $PYTHONPATH", env={"PYTHONPATH": "/mine"})
    ours, mine = text(agent.until_exited()[0]).strip().split(":")
    assert (os.path.basename(ours), mine) == ("hook", "/mine")


def test_it_says_which_of_its_tasks_are_stopped(scheduler):
    agent = scheduler(silence_s=5.0)
    agent.start("sh", "-c", "sh -c 'kill -STOP $$'; exit 0")
    while agent.receive(messages.Alive).stopped != ("worker-0",):
        agent.send(messages.Alive())


def test_told_to_stop_a_task_gets_the_signal_and_time_to_heed_it(scheduler):
    agent = scheduler()
    agent.start("sh", "-c", "trap 'echo saved; exit 7' INT; echo on; while :; do sleep 0.01; done")
    agent.receive(messages.Output)
    agent.send(messages.StopTasks("server", signal.SIGKILL, 0.0))
    agent.send(messages.StopTasks("worker", signal.SIGINT, 60.0))
    output, end = agent.until_exited()
    assert (text(output), end.code) == ("saved\n", 7)


def test_a_task_that_does_not_heed_it_is_killed_with_all_its_children(scheduler, marked):
    agent = scheduler()
    agent.start("sh", "-c", "trap '' TERM; setsid sleep 1000 & echo on; wait; sleep 1000")
    agent.receive(messages.Output)
    agent.send(messages.StopTasks("worker", signal.SIGTERM, 0.1))
    assert agent.until_exited()[1].code == -signal.SIGKILL
    assert marked.alive("sleep") == []


def test_a_frozen_task_can_be_stopped(scheduler):
    agent = scheduler()
    agent.start("sh", "-c", "echo on; kill -STOP $$")
    agent.receive(messages.Output)
    agent.send(messages.StopTasks("worker", signal.SIGTERM, 60.0))
    assert agent.until_exited()[1].code == -signal.SIGTERM


def test_suspended_all_tasks_are_stopped_for_as_long_as_it_takes(scheduler, marked, wait_until):
    """Also what has left its process group; and a scheduler that is stopped is not heard."""
    agent = scheduler(silence_s=1.0)
    agent.start("sh", "-c", "setsid sleep 0.6 & sleep 0.6; wait; echo on", slug="worker-0")
    wait_until(lambda: len(marked.alive("sleep")) == 2)
    agent.send(messages.Suspend(1000.0))
    agent.receive(messages.Suspended)
    tasks = [*marked.alive("sleep"), *marked.alive("sh")]
    wait_until(lambda: all(task.status() == psutil.STATUS_STOPPED for task in tasks))
    end = time.monotonic() + 3.0
    wait_until(lambda: time.monotonic() > end)
    assert len(tasks) == 3
    assert all(task.status() == psutil.STATUS_STOPPED for task in tasks)
    agent.send(messages.Resume())
    output, end = agent.until_exited()
    assert (text(output), end.code) == ("on\n", 0)


def test_suspended_it_ends_all_the_same_when_its_scheduler_has_gone(scheduler, marked):
    agent = scheduler(silence_s=1.0)
    agent.start("sleep", "1000")
    agent.send(messages.Suspend(1000.0))
    agent.receive(messages.Suspended)
    agent.process.stdin.close()
    agent.process.wait(LIMIT_MS / 1000)
    assert marked.alive("sleep") == []


@pytest.mark.parametrize("how", ["input ends", "SIGTERM", "silence"])
def test_without_its_scheduler_it_ends_its_tasks_and_itself(scheduler, marked, wait_until, how):
    agent = scheduler(silence_s=0.5 if how == "silence" else 60.0)
    agent.start("sh", "-c", "trap '' TERM; setsid sleep 1000 & sleep 1000")
    wait_until(lambda: len(marked.alive("sleep")) == 2)
    if how == "SIGTERM":
        agent.process.terminate()
    said = agent.errors() if how != "silence" else agent.process.stderr.read().decode()
    assert "baryon: agent on " in said
    assert "killing worker-0" in said
    agent.process.wait(LIMIT_MS / 1000)
    assert marked.alive() == []


def test_let_go_with_nothing_left_to_do_it_says_nothing(scheduler):
    agent = scheduler()
    agent.start("true")
    agent.until_exited()
    assert agent.errors() == ""
    assert agent.process.returncode == 0


def test_a_scheduler_that_speaks_another_language_is_reported_and_survived(scheduler):
    agent = scheduler()
    agent.send_bytes(b"nonsense")
    agent.start("true")
    assert agent.until_exited()[1].code == 0
    assert "the scheduler has sent a message that cannot be read" in agent.errors()


def test_a_task_that_ends_while_the_scheduler_is_behind_does_no_harm(scheduler, marked, wait_until):
    """It has written more than is read, is held up in its write, and is killed there."""
    agent = scheduler()
    agent.start("sh", "-c", "echo $$; exec yes 0123456789")
    first = agent.receive(messages.Output)
    task = psutil.Process(int(first.data.split()[0]))
    (inner,) = psutil.Process(agent.process.pid).children()
    num_pipes = 2
    num_open = inner.num_fds()
    wait_until(Unchanged(lambda: task.io_counters().write_chars), limit_s=60.0)
    task.kill()
    wait_until(lambda: inner.num_fds() <= num_open - num_pipes)  # it gives the task up
    output, end = agent.until_exited()
    assert end.code == -signal.SIGKILL
    assert len(output) > 1
    agent.start("true", slug="worker-1")
    wait_until(lambda: agent.socket.poll(100) or agent.process.poll() is not None)
    assert agent.process.poll() is None, "the agent has ended"
    assert agent.until_exited()[1].task == "worker-1"


class Unchanged:
    """True once a value has been the same in 50 looks, one after the other."""

    def __init__(self, value):
        self._value = value
        self._last = None
        self._count = 0

    def __call__(self):
        value = self._value()
        self._count = self._count + 1 if value == self._last else 0
        self._last = value
        return self._count == 50


def test_a_process_that_has_nothing_more_to_do_is_ended_alone(scheduler):
    """Its command goes on; a process of somebody else's is left alone."""
    agent = scheduler()
    agent.start("sh", "-c", "sleep 1000 & echo $!; wait $!; echo $?; read line <&2; exit 4")
    said = agent.receive(messages.Output)
    agent.send(messages.EndProcess("worker-0", os.getpid(), 0.0))
    agent.send(messages.EndProcess("server-0", int(said.data), 0.0))
    agent.send(messages.EndProcess("worker-0", int(said.data), 0.1))
    output, end = agent.until_exited()
    assert (text(output), end.code, end.was_late) == ("137\n", 4, True)


def test_an_interface_that_is_not_there_is_one_line(scheduler):
    agent = scheduler(interfaces=("nope0",))
    (line,) = agent.errors().splitlines()
    assert ": no interface nope0 with an address; there are " in line
    assert "lo (127.0.0.1)" in line
    assert line.endswith("; --interface names the network of the job")
    assert agent.process.returncode == 1
