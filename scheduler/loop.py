"""`run(job, cluster)`: the scheduler's loop, which owns the signals, the cluster and the clock.

The core makes all decisions (core.py). The loop turns messages (downlink.py), signals and time into
the core's events, carries out the actions that it returns, and passes its events on to observers.
Everything runs in the thread that calls `run`.
"""

import contextlib
import signal
import socket
import threading
import time
from typing import Callable, Dict, List, NamedTuple, Optional

from baryon.ps import KeyPair, Message, ProtocolError, Reactor, new_key_pair

from . import actions, questions
from .cluster import Cluster
from .control import AgentConfig, Job, messages, raise_descriptor_limit
from .core import SchedulerCore
from .downlink import Downlink
from .observers import Console, Event, EventStream, JobPaused, LogFiles, Notice, complain
from .specs import start_tasks
from .tree import Tree

__all__ = ["Outcome", "run"]

_TICK_S = 0.2
_TELL_S = 10.0  # for ``on_taken`` to return, at the end of the job
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
_JOB_CONTROL = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)  # the last: `stty tostop`


class Outcome(NamedTuple):
    """How a job has ended.

    ``was_interrupted``: its hosts were taken away, through no fault of its own, and the user has
    not ended it, so it may go on with other hosts.
    """

    exit_code: int
    was_interrupted: bool = False


def run(
    job: Job,
    cluster: Cluster,
    on_taken: Callable[[str], None] = lambda name: None,
    asked_at: Optional[socket.socket] = None,
) -> Outcome:
    """Run a job, whose log directory exists, to its end.

    Once the cluster has accepted the job, a thread calls ``on_taken(name)`` with the cluster's name
    for it. Other shells ask for the job's status at ``asked_at`` (questions.py). Raises UsageError
    if the job cannot be started at all. Call from the main thread: the handlers of SIGINT, SIGTERM,
    SIGHUP, SIGUSR1 and of job control are replaced meanwhile.
    """
    return _Loop(job, cluster, on_taken, asked_at).run()


class _Loop:
    def __init__(
        self,
        job: Job,
        cluster: Cluster,
        on_taken: Callable[[str], None],
        asked_at: Optional[socket.socket],
    ) -> None:
        self._job = job
        self._asked_at = asked_at
        self._on_taken: Optional[Callable[[str], None]] = on_taken  # until it is called
        self._telling: Optional[threading.Thread] = None  # calls it
        self._tree = Tree(job.tasks)
        self._cluster = cluster
        self._own_keys = new_key_pair()
        self._keys: Dict[str, KeyPair] = {task.slug: new_key_pair() for task in job.tasks}
        hosts = sorted({task.host for task in job.tasks})
        self._hosts = hosts
        self._keys.update({f"agent-{host}": new_key_pair() for host in hosts})
        public_keys = {peer: keys.public for peer, keys in self._keys.items()}
        self._is_to_stop = False  # its shell wants to stop this process
        self._away_s = 0.0  # for which its shell has stopped this process, in total
        self._core = SchedulerCore(job, self._specs, public_keys, self._now())
        self._exit_code = 0
        self._is_told_to_end = False  # by the user
        self._is_over = False  # the job is, but some of its output may still wait
        self._reactor = Reactor()
        self._events = EventStream([Console(job, self._nobody_reads), LogFiles(job.log_dir)])
        self._downlink = Downlink(
            self._own_keys, public_keys, self._on_message, self._on_unreadable
        )

    def run(self) -> Outcome:
        try:
            self._run()
        except KeyboardInterrupt:  # our handlers are gone
            if not self._is_over:
                raise
            self._is_told_to_end = True
            complain(f"interrupted before all output was shown; logs are in {self._job.log_dir}")
        may_go_on = self._exit_code != 0 and not self._is_told_to_end
        return Outcome(self._exit_code, may_go_on and self._cluster.was_interrupted())

    def _run(self) -> None:
        signums = (*_SIGNALS, *_JOB_CONTROL, signal.SIGCONT)
        handlers = {signum: signal.getsignal(signum) for signum in signums}
        raise_descriptor_limit()
        with contextlib.ExitStack() as at_end:  # calls each of them, even if others raise
            at_end.callback(lambda: self._events.close(self._now()))
            at_end.callback(self._wait_until_told)
            at_end.callback(self._reactor.close)
            at_end.callback(self._downlink.close)
            for signum, handler in handlers.items():
                at_end.callback(signal.signal, signum, handler)
            at_end.callback(self._cluster.kill)
            endpoints = self._bind()
            self._downlink.receive(self._reactor)
            if self._asked_at is not None:
                self._reactor.watch(self._asked_at.fileno(), self._on_question)
            for signum, handler in handlers.items():
                if handler != signal.SIG_IGN:  # as nohup ignores SIGHUP
                    signal.signal(signum, self._on_signal)
            self._do(self._core.on_start(self._now()))
            for host in self._hosts:
                self._cluster.start(self._job, host, self._config(host, endpoints[host]))
            self._reactor.call_every(_TICK_S, self._tick)
            self._reactor.run()
            self._is_over = True

    def _wait_until_told(self) -> None:
        if self._telling is not None:
            self._telling.join(_TELL_S)

    def _bind(self) -> Dict[int, str]:
        """Listen wherever a host reaches this machine; returns each host's endpoint."""
        endpoints: Dict[str, str] = {}  # by address
        for host in self._hosts:
            address = self._cluster.scheduler_address(self._job, host)
            if address not in endpoints:
                endpoints[address] = self._downlink.bind(address, self._job.port)
        return {h: endpoints[self._cluster.scheduler_address(self._job, h)] for h in self._hosts}

    # -- what the core needs ------------------------------------------------------------------

    def _specs(self, host: int, hello: messages.AgentHello) -> messages.StartTasks:
        tasks = {slug: keys for slug, keys in self._keys.items() if not slug.startswith("agent-")}
        return start_tasks(self._job, self._tree, host, hello, self._own_keys.public, tasks)

    def _config(self, host: int, endpoint: str) -> AgentConfig:
        keys = self._keys[f"agent-{host}"]
        return AgentConfig(
            job=self._job.id,
            host=host,
            endpoint=endpoint,
            scheduler_key=self._own_keys.public,
            public_key=keys.public,
            secret_key=keys.secret,
            silence_s=self._job.silence_s,
            address=self._job.hosts[host].address,
            interfaces=self._job.interfaces,
        )

    # -- events -------------------------------------------------------------------------------

    def _on_message(self, peer: str, message: Message) -> None:
        self._do(self._core.on_message(peer, message, self._now()))

    def _on_unreadable(self, peer: str, error: ProtocolError) -> None:
        text = f"{peer} has sent a message that cannot be read: {error}"
        self._events.send(Notice(self._now(), text))

    def _on_signal(self, signum: int, frame: object) -> None:
        if signum in _JOB_CONTROL:
            self._is_to_stop = True
            self._reactor.post(lambda: self._do(self._core.on_suspend(self._now())))
        elif signum == signal.SIGCONT:
            self._is_to_stop = False
            self._reactor.post(lambda: self._do(self._core.on_resume()))
        else:
            self._reactor.post(self._signal, signum)

    def _signal(self, signum: int) -> None:
        self._is_told_to_end |= signum != signal.SIGUSR1
        self._do(self._core.on_signal(signum, self._now()))

    def _nobody_reads(self) -> None:
        """The reader of our output has gone, as with `| head`: end as other programs do."""
        self._reactor.post(self._signal, signal.SIGPIPE)

    def _tick(self) -> None:
        # First: if this process was suspended, that explains what comes next.
        self._do(self._core.on_tick(self._now()))
        name = self._cluster.name()
        if name is not None and self._on_taken is not None:
            # It writes a file, and the disk may stall.
            self._telling = threading.Thread(
                target=self._on_taken, args=(name,), name="baryon-taken", daemon=True
            )
            self._telling.start()
            self._on_taken = None
        self._do(self._core.on_queue(self._cluster.is_queued(), self._now()))
        trouble = self._cluster.trouble()
        if trouble is not None:
            self._do(self._core.on_trouble(trouble, self._now()))
        for host, how in self._cluster.ended():
            self._do(self._core.on_agent_ended(host, how, self._now()))
        self._downlink.acknowledge_all()
        self._events.look(self._now())

    def _on_question(self) -> None:
        assert self._asked_at is not None
        questions.answer(self._asked_at, lambda: self._core.status(self._now()))

    # -- actions ------------------------------------------------------------------------------

    def _do(self, todo: List[actions.Action]) -> None:
        for action in todo:
            if isinstance(action, actions.Send):
                self._send(action.peer, action.message)
            elif isinstance(action, Event):
                self._events.send(action)
            elif isinstance(action, actions.ReleaseAgent):
                self._send(f"agent-{action.host}", messages.Release())
                self._cluster.release(action.host)
            elif isinstance(action, actions.Kill):
                self._cluster.kill(action.lost)
            elif isinstance(action, actions.Pause):
                self._pause()
            elif isinstance(action, actions.Finish):
                self._exit_code = action.exit_code
                self._reactor.stop()

    def _pause(self) -> None:
        """Be stopped, as by a terminal; returns when the shell lets this process go on."""
        self._events.send(JobPaused(self._now()))
        begin = self._now()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        # The kernel ignores it in a process group that no shell controls (setpgid(2)).
        if self._is_to_stop:
            signal.raise_signal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self._away_s += self._now() - begin
        self._do(self._core.on_resume())

    def _send(self, peer: str, message: Message) -> None:
        if isinstance(message, messages.Alive):
            self._downlink.send_now(peer, message)
        else:
            self._downlink.send(peer, message)

    def _now(self) -> float:
        """Seconds, including those for which this machine sleeps, since its hosts may be awake.

        Those for which the whole job is stopped do not count.
        """
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self._away_s
