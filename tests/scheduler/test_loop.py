"""`run`, with a cluster whose agents are threads of this process: the scheduler's socket, its
authentication, signals and exit codes. No task is ever started.
"""

import itertools
import os
import signal
import socket
import threading
from collections import deque

import msgspec
import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from baryon import __version__
from baryon.ps import KeyPair, UsageError, secure_client
from baryon.scheduler import Cluster, loop, run
from baryon.scheduler.control import messages
from baryon.scheduler.control.credentials import Credentials
from baryon.scheduler.control.delivery import Delivery, Envelope, decode_envelope
from baryon.scheduler.control.messages import CONTROL

LIMIT_MS = 30_000
LARGE = bytes(messages.MAX_VALUE_NBYTES)
LIVES = itertools.count(1)


class Peer:
    """One that talks to the scheduler: an agent, a task, or whoever claims to be one."""

    def __init__(self, context, endpoint, keys=None, scheduler_key=None, name=""):
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 1000
        self.socket.rcvtimeo = LIMIT_MS
        if name:
            self.socket.routing_id = name.encode()
        if keys is not None:
            secure_client(self.socket, keys, scheduler_key)
        # From the beginning: some events come once, soon after it connects.
        self._monitor = self.socket.get_monitor_socket()
        self._monitor.rcvtimeo = LIMIT_MS
        self.socket.connect(endpoint)
        self.life, self.delivery = next(LIVES), Delivery()

    def send(self, *sent):
        for message in sent:
            self.send_bytes(CONTROL.encode(message))

    def send_bytes(self, data):
        serial = self.delivery.number(data, len(data))
        envelope = Envelope(self.life, 1, serial, self.delivery.acknowledge())
        self.socket.send_multipart([envelope.encode(), data])

    def wait_for_event(self, events):
        """Until one of these events has come to its connection."""
        while not recv_monitor_message(self._monitor)["event"] & events:
            pass

    def receive(self, kind):
        """The next message of this type; all others are passed over."""
        while True:
            first, *body = self.socket.recv_multipart()
            envelope = decode_envelope(first)
            assert self.delivery.take(envelope.serial, envelope.heard, 1), "a repeat"
            message = CONTROL.decode(body[0]) if body else None
            if isinstance(message, kind):
                return message


class Agent(Peer):
    """The agent of a host, as far as the scheduler can see, once it has been told what to start."""

    def __init__(self, context, config):
        self.context, self.config = context, config
        keys = KeyPair(config.public_key, config.secret_key)
        self.tasks = {}
        self.peers = [self]  # so that none is closed before its thread is
        super().__init__(context, config.endpoint, keys, config.scheduler_key)
        self.send(messages.AgentHello(__version__, "h", 1, "127.0.0.1", config.endpoint))
        self.specs = {spec.slug: spec for spec in self.receive(messages.StartTasks).tasks}

    def task(self, slug):
        """One of its tasks."""
        known = msgspec.json.decode(self.specs[slug].credentials, type=Credentials)
        task = self.tasks[slug] = self.peer(KeyPair(known.public_key, known.secret_key))
        return task

    def peer(self, keys=None, name=""):
        """Somebody else on this host, who may give itself a name."""
        scheduler_key = None if keys is None else self.config.scheduler_key
        peer = Peer(self.context, self.config.endpoint, keys, scheduler_key, name)
        self.peers.append(peer)
        return peer

    def writes(self, slug, data, is_error=False):
        self.send(messages.Output(slug, is_error, False, data))

    def works(self, slug="worker-0"):
        """The only task of a job joins, and is told that all are there."""
        task = self.task(slug)
        task.send(messages.Join(7, ""))
        task.receive(messages.Roster)
        return task

    def ends(self, slug="worker-0", code=0):
        if code == 0 and slug in self.tasks:
            self.tasks[slug].send(messages.Gone())
        self.send(messages.Exited(slug, code, 0.5, ""))


class ThreadCluster(Cluster):
    """A Cluster: each agent is a thread that calls ``script(agent)`` and then waits for release."""

    def __init__(self, script):
        self._script = script
        self._threads = {}
        self._released = {}
        self._ended = deque()
        self.faults = []

    def scheduler_address(self, job, host):
        return "127.0.0.1"

    def start(self, job, host, config):
        self._released[host] = threading.Event()
        self._threads[host] = threading.Thread(target=self._run, args=(config,))
        self._threads[host].start()

    def ended(self):
        return [self._ended.popleft() for _ in range(len(self._ended))]

    def release(self, host):
        self._released[host].set()

    def kill(self, lost=frozenset()):
        for host, thread in self._threads.items():
            self.release(host)
            thread.join()

    def _run(self, config):
        context = zmq.Context()
        try:
            agent = Agent(context, config)
            self._script(agent)
            assert self._released[config.host].wait(LIMIT_MS / 1000), "never released"
            self._ended.append((config.host, "exited with code 0"))
        except Exception as error:
            self.faults.append(error)
            self._ended.append((config.host, f"broke: {error!r}"))
        finally:
            context.destroy(linger=1000)


@pytest.fixture
def play(make_job, tmp_path, capfdbinary):
    """Run a job whose agents follow a script; returns exit code, standard output and error."""

    def play(script, num_workers=1, num_servers=0, num_hosts=1, **changes):
        changes.setdefault("log_dir", os.fspath(tmp_path))
        cluster = ThreadCluster(script)
        job = make_job(num_workers, num_servers, num_hosts, **changes)
        code = run(job, cluster).exit_code
        out, err = capfdbinary.readouterr()
        assert cluster.faults == [], err.decode()
        return code, out.decode(), err.decode()

    return play


# -- ways to end ------------------------------------------------------------------------------


def test_output_is_shown_and_a_good_end_is_0(play, tmp_path):
    def script(agent):
        agent.works()
        agent.writes("worker-0", b"hello\n")
        agent.writes("worker-0", b"careful\n", is_error=True)
        agent.ends("worker-0")

    assert play(script) == (0, "worker 0 | hello\n", "worker 0 | careful\n")
    assert (tmp_path / "worker-0.log").read_bytes() == b"hello\ncareful\n"


def test_a_log_directory_that_stalls_holds_up_nothing(play, tmp_path):
    """A named pipe that nobody reads stands for it; silence would end the agent."""
    os.mkfifo(tmp_path / "worker-0.log")
    logged = []

    def script(agent):
        agent.works()
        agent.writes("worker-0", b"hello\n")
        for _ in range(3):
            agent.receive(messages.Alive)
        agent.ends("worker-0")
        with open(tmp_path / "worker-0.log", "rb") as log:
            logged.append(log.readline())

    assert play(script, silence_s=1.0) == (0, "worker 0 | hello\n", "")
    assert logged == [b"hello\n"]


@pytest.mark.parametrize(("code", "exit_code"), [(3, 3), (-9, 137)])
def test_a_failure_gives_the_job_its_exit_code(play, code, exit_code):
    def script(agent):
        agent.ends("worker-1", code)
        assert agent.receive(messages.StopTasks).role == "worker"
        agent.ends("worker-0", -15)

    got, _, err = play(script, num_workers=2)
    assert got == exit_code
    assert err.startswith("baryon: worker 1 (a) ")


def test_tasks_meet(play):
    """Through real sockets: joining, the roster, a value from each, a good end."""

    def script(agent):
        server, first, second = map(agent.task, ("server-0", "worker-0", "worker-1"))
        server.send(messages.Join(1, "tcp://127.0.0.1:5000"))
        for worker in (first, second):
            worker.send(messages.Join(2, ""))
        for worker in (first, second):
            (peer,) = worker.receive(messages.Roster).servers
            assert peer.endpoint == "tcp://127.0.0.1:5000"
        first.send(messages.Gather("x", "allgather", b"a"))
        second.send(messages.Gather("x", "allgather", LARGE))
        for worker in (first, second):
            assert worker.receive(messages.Gathered).values == ((0, b"a"), (1, LARGE))
        agent.ends("worker-1")
        assert server.receive(messages.Left).rank == 1
        agent.ends("worker-0")
        assert agent.receive(messages.StopTasks).role == "server"
        agent.ends("server-0")

    assert play(script, num_workers=2, num_servers=1) == (0, "", "")


def test_a_second_process_of_a_task_ends_the_job(play):
    """It proves the same key as the first, and must be heard all the same."""

    def script(agent):
        first, second = agent.task("worker-0"), agent.task("worker-0")
        first.send(messages.Join(41, ""))
        first.receive(messages.Roster)
        second.send(messages.Join(42, ""))
        agent.receive(messages.StopTasks)
        agent.ends("worker-0", -15)

    code, _, err = play(script, silence_s=5.0)
    assert code == 1
    assert "process 42 joined as worker 0, but process 41 already is worker 0" in err


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_job(play, signum):
    def script(agent):
        os.kill(os.getpid(), signum)
        agent.receive(messages.StopTasks)
        agent.ends("worker-0", -15)

    code, _, err = play(script)
    assert code == 128 + signum
    assert signum.name in err


def test_sigusr1_shows_the_state(play):
    def script(agent):
        os.kill(os.getpid(), signal.SIGUSR1)
        for _ in range(2):  # the loop has come round after the signal
            agent.receive(messages.Alive)
        agent.works()
        agent.ends("worker-0")

    code, _, err = play(script, silence_s=1.0)
    assert code == 0
    assert "job job-1 is starting" in err
    assert "worker 0 (a) has not joined" in err


def test_handlers_are_as_before(play):
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    play(lambda agent: agent.ends("worker-0"))
    assert [signal.getsignal(number) for number in numbers] == before


class Interrupted(loop.Console):
    """The user is tired of waiting for the last output to be taken."""

    def close(self):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            super().close()
        return []


def test_an_interruption_while_the_last_output_is_shown_changes_no_exit_code(play, monkeypatch):
    monkeypatch.setattr(loop, "Console", Interrupted)
    code, _, err = play(lambda agent: agent.ends("worker-0", 3))
    assert code == 3
    assert "baryon: interrupted before all output was shown; logs are in /" in err


class Stuck(ThreadCluster):
    """Its agents end, but it cannot be had to say so."""

    def kill(self, lost=frozenset()):
        super().kill(lost)
        raise RuntimeError("no kill")


def test_everything_is_cleaned_up_also_if_the_cluster_fails_in_the_end(make_job, tmp_path):
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    threads, num_open = threading.active_count(), len(os.listdir("/proc/self/fd"))
    cluster = Stuck(lambda agent: agent.ends("worker-0"))
    with pytest.raises(RuntimeError, match="no kill"):
        run(make_job(1, 0, log_dir=os.fspath(tmp_path)), cluster)
    assert cluster.faults == []
    assert [signal.getsignal(number) for number in numbers] == before
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == num_open


def test_a_port_that_is_taken_is_a_usage_error(make_job, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        job = make_job(port=other.getsockname()[1], log_dir=os.fspath(tmp_path))
        with pytest.raises(UsageError, match=rf"port {job.port}: .*in use.*--port"):
            run(job, ThreadCluster(None))


def test_a_given_port_is_used(play):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def script(agent):
        assert agent.config.endpoint == f"tcp://127.0.0.1:{port}"
        agent.ends("worker-0")

    assert play(script, port=port)[0] == 0
