"""`run(job, cluster)`: owns the scheduler's socket, the terminal and the clock.

All decisions are the core's (core.py); this turns messages, signals and time into its events and
its actions into what they say. Everything runs in the thread that calls `run`.
"""

import contextlib
import os
import signal
import socket
import threading
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional

import zmq

from baryon.ps import (
    Authenticator,
    KeyPair,
    Message,
    ProtocolError,
    Reactor,
    UsageError,
    bind_to,
    endpoint_of,
    new_key_pair,
    secure_server,
)

from . import actions, questions
from .cluster import Cluster
from .control import (
    AgentConfig,
    Conversations,
    Job,
    decode_envelope,
    messages,
    raise_descriptor_limit,
)
from .core import SchedulerCore
from .observers import Console, Event, EventStream, JobPaused, LogFiles, Notice, complain
from .specs import start_tasks
from .tree import Tree

__all__ = ["Outcome", "run"]

_TICK_S = 0.2
_TELL_S = 10.0  # for ``on_taken``, at the end of the job
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
_JOB_CONTROL = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)  # the last: `stty tostop`
_MAX_MESSAGE_NBYTES = messages.MAX_VALUE_NBYTES + (64 << 10)


class Outcome(NamedTuple):
    """How a job has ended. ``was_interrupted``: its hosts were taken away, by no fault of its own,
    and nobody has told it to end, so that it may go on on others."""

    exit_code: int
    was_interrupted: bool = False


def run(
    job: Job,
    cluster: Cluster,
    on_taken: Callable[[str], None] = lambda name: None,
    asked_at: Optional[socket.socket] = None,
) -> Outcome:
    """Run a job, whose log directory exists, to its end.

    ``on_taken(name)`` is called once the cluster has taken the job, with what it calls it, by a
    thread of its own; ``asked_at`` is where other shells ask how it is (questions.py). Raises
    UsageError if the job cannot be started at all. Call from the main thread, whose signal handlers
    are replaced meanwhile: those of SIGINT, SIGTERM, SIGHUP, SIGUSR1 and of job control.
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
        self._on_taken: Optional[Callable[[str], None]] = on_taken  # until it is
        self._telling: Optional[threading.Thread] = None  # that it is
        self._tree = Tree(job.tasks)
        self._cluster = cluster
        self._own_keys = new_key_pair()
        self._keys: Dict[str, KeyPair] = {task.slug: new_key_pair() for task in job.tasks}
        hosts = sorted({task.host for task in job.tasks})
        self._hosts = hosts
        self._keys.update({f"agent-{host}": new_key_pair() for host in hosts})
        public_keys = {peer: keys.public for peer, keys in self._keys.items()}
        self._is_to_stop = False  # in the eyes of its shell
        self._away_s = 0.0  # for how long this process has been stopped by its shell
        self._core = SchedulerCore(job, self._specs, public_keys, self._now())
        self._conversations = Conversations(self._post)
        self._encoded: Optional[Message] = None
        self._frame = zmq.Frame()  # of that message
        self._exit_code = 0
        self._is_told_to_end = False
        self._is_over = False  # the job, but not all of its output may be shown
        self._reactor = Reactor()
        self._events = EventStream([Console(job, self._nobody_reads), LogFiles(job.log_dir)])
        self._context = zmq.Context()
        peers = {public: peer for peer, public in public_keys.items()}
        self._authenticator: Authenticator[str] = Authenticator(self._context, peers)
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 500
        self._socket.router_mandatory = True
        self._socket.sndhwm = 0  # few and small; a peer that does not read is soon given up
        self._socket.maxmsgsize = _MAX_MESSAGE_NBYTES
        secure_server(self._socket, self._own_keys)

    def run(self) -> Outcome:
        try:
            self._run()
        except KeyboardInterrupt:  # since no handler of ours is there
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
        with contextlib.ExitStack() as at_end:  # each of it, whatever the others raise
            at_end.callback(lambda: self._events.close(self._now()))
            at_end.callback(self._wait_until_told)
            at_end.callback(self._reactor.close)
            at_end.callback(self._context.destroy, linger=500)
            at_end.callback(self._authenticator.stop)
            for signum, handler in handlers.items():
                at_end.callback(signal.signal, signum, handler)
            at_end.callback(self._cluster.kill)
            endpoints = self._bind()
            self._reactor.receive(self._socket, self._on_message)
            if self._asked_at is not None:
                self._reactor.watch(self._asked_at.fileno(), self._on_question)
            for signum, handler in handlers.items():
                if handler != signal.SIG_IGN:  # as SIGHUP is under nohup
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
        port = self._job.port or "*"
        endpoints: Dict[str, str] = {}  # by address
        for host in self._hosts:
            address = self._cluster.scheduler_address(self._job, host)
            if address in endpoints:
                continue
            try:
                endpoints[address] = bind_to(self._socket, endpoint_of(address, port))
            except zmq.ZMQError as error:
                reason = os.strerror(error.errno or 0)
                raise UsageError(
                    f"the scheduler cannot listen on {address} port {port}: {reason}; "
                    "choose another --port, or leave it out to have a free one chosen"
                ) from error
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

    def _on_message(self, frames: List[zmq.Frame]) -> None:
        peer = self._authenticator.peer(frames[-1])
        if peer is None:
            return  # cannot happen over CURVE
        try:
            if len(frames) not in (2, 3):
                raise ProtocolError(f"{len(frames) - 1} frames")
            route, envelope = frames[0].bytes, decode_envelope(frames[1].buffer)
            body = frames[2].buffer if len(frames) == 3 else b""
            is_new = self._conversations.hear(peer, route, envelope, len(body))
            if not is_new or not body:
                return
            message = messages.CONTROL.decode(body)
        except ProtocolError as error:
            text = f"{peer} sent something unreadable: {error}"
            self._events.send(Notice(self._now(), text))
            return
        self._do(self._core.on_message(peer, message, self._now()))
        if not isinstance(message, messages.Output):  # of which there may be many
            self._conversations.acknowledge(peer)

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
        """Whoever read our output has gone, as with `| head`: end as other programs do."""
        self._reactor.post(self._signal, signal.SIGPIPE)

    def _tick(self) -> None:
        # First the time: it may have stood still for this process, which explains what follows.
        self._do(self._core.on_tick(self._now()))
        name = self._cluster.name()
        if name is not None and self._on_taken is not None:
            # It writes a file, on a disk that may stall.
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
        self._conversations.acknowledge_all()
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
            else:
                self._exit_code = action.exit_code
                self._reactor.stop()

    def _pause(self) -> None:
        """Be stopped, as by a terminal; returns when the shell lets this process go on."""
        self._events.send(JobPaused(self._now()))
        begin = self._now()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        # Nothing comes of it in a process group that no shell looks after (setpgid(2)).
        if self._is_to_stop:
            signal.raise_signal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self._away_s += self._now() - begin
        self._do(self._core.on_resume())

    def _send(self, peer: str, message: Message) -> None:
        frame = self._encode(message)
        if isinstance(message, messages.Alive):
            self._conversations.send_now(peer, frame)
        else:
            self._conversations.send(peer, frame, len(frame))

    def _post(self, route: bytes, envelope: bytes, frame: Any) -> None:
        """One that gets lost is sent again when its peer has another connection."""
        frames = [route, envelope] if frame is None else [route, envelope, frame]
        try:
            self._socket.send_multipart(frames, copy=False)
        except zmq.ZMQError:
            pass  # that connection has gone

    def _encode(self, message: Message) -> zmq.Frame:
        """Its frame; what goes to many is encoded, and lies in memory, once."""
        if message is not self._encoded:
            self._encoded = message
            self._frame = zmq.Frame(messages.CONTROL.encode(message), copy=True)
        return self._frame

    def _now(self) -> float:
        """Seconds that count on while this machine sleeps, as those of the hosts do.

        They stand still while the whole job is stopped.
        """
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self._away_s
