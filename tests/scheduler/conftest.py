"""What the tests of scheduler/ share: jobs made up on the spot, and a scene round the core.

Fixtures give functions and are made once, so that tests with hypothesis may use them, too.
"""

import os
import subprocess
import sys
import time
import uuid
from typing import Any, Callable, Iterator, List

import psutil
import pytest

from baryon import __version__
from baryon.ps import Message
from baryon.scheduler import core
from baryon.scheduler.actions import Action, Finish, Send
from baryon.scheduler.control import Host, Job, messages, place
from baryon.scheduler.observers import Notice
from baryon.scheduler.state import RUNNING, JobState
from tests import waiting


def _make_job(
    num_workers: int = 2, num_servers: int = 1, num_hosts: int = 1, **changes: Any
) -> Job:
    """A job whose hosts are called a, b, c, ..., with the workers spread evenly over them.

    One without servers is none that a command line makes, but quick to start.
    """
    slots = -(-num_workers // num_hosts)
    hosts = tuple(Host(name, slots) for name in "abcdefgh"[:num_hosts])
    tasks = place(hosts, num_workers, num_servers or 1, shares_memory=False)
    values = {
        "id": "job-1",
        "command": ("train",),
        "cwd": "/",
        "hosts": hosts,
        "tasks": tuple(task for task in tasks if task.role == "worker" or num_servers),
        "python": "python",
        "log_dir": "/logs/of/job-1",
        "timeout_s": 300.0,
        "silence_s": 20.0,
        "grace_s": 5.0,
        "is_quiet": True,
        **changes,
    }
    return Job(**values)


class Scene:
    """A SchedulerCore, a made-up clock, and short words for what happens to it.

    Every event returns the core's actions; ``history`` keeps them all.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.now = 1000.0
        self.history: List[Action] = []
        self.core = core.SchedulerCore(job, self.specs, self.public_keys(), self.now)

    def specs(self, host: int, hello: messages.AgentHello) -> messages.StartTasks:
        tasks = [task for task in self.job.tasks if task.host == host]
        return messages.StartTasks(
            tuple(messages.TaskSpec(t.slug, "program", ("run",), "/", {}, b"") for t in tasks)
        )

    def public_keys(self) -> dict:
        return {task.slug: f"key of {task.slug}" for task in self.job.tasks}

    @property
    def hosts(self) -> List[int]:
        return sorted({task.host for task in self.job.tasks})

    @property
    def slugs(self) -> List[str]:
        return [task.slug for task in self.job.tasks]

    # -- events -------------------------------------------------------------------------------

    def note(self, actions: List[Action]) -> List[Action]:
        self.history += actions
        return actions

    def message(self, peer: str, message: Message) -> List[Action]:
        return self.note(self.core.on_message(peer, message, self.now))

    def hello(self, host: int) -> List[Action]:
        return self.message(
            f"agent-{host}",
            messages.AgentHello(__version__, "h", 1, "10.0.0.1", "tcp://10.0.0.9:1"),
        )

    def join(self, slug: str, pid: int = 7) -> List[Action]:
        role, rank = slug.split("-")
        endpoint = f"tcp://10.0.0.1:{5000 + int(rank)}" if role == "server" else ""
        return self.message(slug, messages.Join(pid, endpoint))

    def from_agent_of(self, slug: str, message: Message) -> List[Action]:
        host = next(task.host for task in self.job.tasks if task.slug == slug)
        return self.message(f"agent-{host}", message)

    def exits(self, slug: str, code: int = 0, error: str = "") -> List[Action]:
        """After its goodbye, if it is a worker that has joined and ends well."""
        state = self.core.state.tasks[slug]
        if code == 0 and state.owes_goodbye and not state.ended:
            self.message(slug, messages.Gone())
        return self.vanishes(slug, code, error)

    def vanishes(
        self, slug: str, code: int = 0, error: str = "", was_late: bool = False
    ) -> List[Action]:
        """Its process ends, whatever it has said."""
        return self.from_agent_of(slug, messages.Exited(slug, code, 1.5, error, 0, was_late))

    def writes(self, slug: str, data: bytes, is_transient: bool = False) -> List[Action]:
        return self.from_agent_of(slug, messages.Output(slug, False, is_transient, data))

    def gather(
        self, slug: str, name: str, value: bytes = b"", call: str = "barrier"
    ) -> List[Action]:
        return self.message(slug, messages.Gather(name, call, value))

    def agent_ends(self, host: int, how: str = "exited with code 0") -> List[Action]:
        return self.note(self.core.on_agent_ended(host, how, self.now))

    def suspend(self) -> List[Action]:
        return self.note(self.core.on_suspend(self.now))

    def resume(self) -> List[Action]:
        return self.note(self.core.on_resume())

    def signal(self, signum: int) -> List[Action]:
        return self.note(self.core.on_signal(signum, self.now))

    def tick(self, seconds: float = 0.2) -> List[Action]:
        """One jump in time: more than a little, and the core takes itself for suspended."""
        self.now += seconds
        return self.note(self.core.on_tick(self.now))

    # -- stretches of time --------------------------------------------------------------------

    def begin(self) -> "Scene":
        """Every agent says hello and every task joins."""
        for host in self.hosts:
            self.hello(host)
        for slug in self.slugs:
            self.join(slug)
        return self

    def pass_time(self, seconds: float, silent: tuple = (), stopped: tuple = ()) -> List[Action]:
        """Second by second, with a sign of life from all that have spoken before but ``silent``.

        The agents say of the tasks in ``stopped`` that they are.
        """
        actions: List[Action] = []
        for _ in range(int(seconds)):
            for peer in [*(f"agent-{host}" for host in self.hosts), *self.slugs]:
                if peer not in silent and self._has_spoken(peer):
                    is_agent = peer.startswith("agent")
                    actions += self.message(peer, messages.Alive(stopped if is_agent else ()))
            actions += self.tick(1.0)
        return actions

    def _has_spoken(self, peer: str) -> bool:
        if peer.startswith("agent"):
            return self.core.state.hosts[int(peer[6:])].heard is not None
        return (
            self.core.state.tasks[peer].joined is not None and not self.core.state.tasks[peer].ended
        )

    def finish_agents(self) -> List[Action]:
        actions: List[Action] = []
        for host in self.hosts:
            actions += self.agent_ends(host)
        return actions


def _make_running(*args: Any, **changes: Any) -> JobState:
    """The state of a job that runs, in which all agents and tasks were heard at 0."""
    state = JobState(_make_job(*args, **changes), 0.0)
    state.phase = RUNNING
    for host in state.hosts.values():
        host.heard, host.is_started = 0.0, True
    for task in state.tasks.values():
        task.joined, task.pid = 0.0, 7
    return state


def _said(actions: List[Action]) -> str:
    return "\n".join(action.text for action in actions if isinstance(action, Notice))


def _sent(actions: List[Action], kind: type) -> List[tuple]:
    """(peer, message) of each message of a type among the actions."""
    return [
        (action.peer, action.message)
        for action in actions
        if isinstance(action, Send) and isinstance(action.message, kind)
    ]


def _finished(actions: List[Action]) -> List[int]:
    """The exit codes of all Finish among the actions: none, or one."""
    return [action.exit_code for action in actions if isinstance(action, Finish)]


@pytest.fixture(scope="session")
def make_job() -> Callable[..., Job]:
    return _make_job


@pytest.fixture(scope="session")
def make_scene() -> Callable[..., Scene]:
    return lambda *args, **kwargs: Scene(_make_job(*args, **kwargs))


@pytest.fixture(scope="session")
def make_running() -> Callable[..., JobState]:
    return _make_running


@pytest.fixture(scope="session")
def said() -> Callable[..., str]:
    return _said


@pytest.fixture(scope="session")
def sent() -> Callable[..., List[tuple]]:
    return _sent


@pytest.fixture(scope="session")
def finished() -> Callable[..., List[int]]:
    return _finished


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., Any]:
    return waiting.wait_until


_LAST_PID = "/proc/sys/kernel/ns_last_pid"  # proc(5)


def _take_pid(pid: int) -> "subprocess.Popen[bytes]":
    """Start a stranger that has this pid, once nobody else has, and leads a group of its own."""
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        with open(_LAST_PID, "w", encoding="ascii") as file:
            file.write(str(pid - 1))
        stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        if stranger.pid == pid:
            return stranger
        stranger.kill()
        stranger.wait()
    raise AssertionError(f"pid {pid} was never free")


@pytest.fixture
def take_pid() -> Iterator[Callable[[int], "subprocess.Popen[bytes]"]]:
    if not os.access(_LAST_PID, os.W_OK):
        pytest.skip(f"only root may write {_LAST_PID}")
    strangers: List[subprocess.Popen[bytes]] = []

    def take(pid: int) -> "subprocess.Popen[bytes]":
        strangers.append(_take_pid(pid))
        return strangers[-1]

    yield take
    for stranger in strangers:
        stranger.kill()
        stranger.wait()


class Marked:
    """Every process that a test starts, directly or not, found by a variable in its environment."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        self.env = {**os.environ, "BARYON_TEST_MARK": self.mark}
        self._scripts: List[subprocess.Popen[bytes]] = []

    def script(self, code: str, *args: str) -> "subprocess.Popen[bytes]":
        """Start a Python script; it, and what it starts, ends with the test."""
        process = subprocess.Popen(
            [sys.executable, "-c", code, *args], env=self.env,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._scripts.append(process)
        return process

    def alive(self, name: str = "") -> List[psutil.Process]:
        """The living processes of the test, all or those with this name."""
        return [process for process in psutil.process_iter() if self._is_ours(process, name)]

    def end(self) -> None:
        while True:
            alive = self.alive()
            if not alive:
                break
            for process in alive:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    pass
        for script in self._scripts:
            script.wait()
            for pipe in (script.stdin, script.stdout, script.stderr):
                pipe.close()

    def _is_ours(self, process: psutil.Process, name: str) -> bool:
        try:
            return (
                process.status() != psutil.STATUS_ZOMBIE
                and process.environ().get("BARYON_TEST_MARK") == self.mark
                and name in process.name()
            )
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False


@pytest.fixture
def marked() -> Iterator[Marked]:
    processes = Marked()
    yield processes
    processes.end()
