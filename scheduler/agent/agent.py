"""The agent: one per host; starts, watches and stops the tasks on it.

No task outlives the scheduler, the agent or its guard (processes.py), whatever happens to them. The
end of the agent's standard input means that the scheduler has gone. Where a cluster manager starts
all agents by one command, only the scheduler's silence means that (config.py). Everything runs in
the main thread; signals only enqueue.

The way of a task's end: `_reap` sees it (waitpid), `TaskProcess` turns the status into a code, and
`_report` sends `Exited` after the task's last output.
"""

import functools
import math
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Dict, List
from urllib.parse import urlsplit

import zmq

import baryon
from baryon.ps import Message, Reactor

from ..control import (
    MEMORY_VARIABLE,
    TASK_VARIABLE,
    AgentConfig,
    Uplink,
    messages,
    own_address,
    raise_descriptor_limit,
)
from .config import complain, read_config
from .lines import Piece
from .output import OutputPipe
from .processes import END_SIGNALS, ended_child, guarded, kill_all, spawn
from .task_command import argv_of, environment_of, role_of
from .task_process import TaskProcess

__all__ = ["main"]

_DRAIN_S = 1.0  # for the last output of a task, if another process still holds its pipe


class _NoAddress(Exception):
    """There is no interface, or no route, by which other hosts reach this one."""


class Agent:
    """The loop: sockets, pipes, child processes."""

    def __init__(self, config: AgentConfig, has_endless_input: bool = False) -> None:
        self._config = config
        self._has_endless_input = has_endless_input
        self._suspended_for = 0.0  # seconds at most; 0 if it is not suspended
        self._reactor = Reactor()
        self._tasks: Dict[str, TaskProcess] = {}
        self._was_told = False  # what to start
        self._exit_code = 0
        self._memory = self._keep("memory", b"")  # tasks make it as big as they need
        self._context = zmq.Context()
        self._uplink: Uplink

    def run(self) -> int:
        """Serve until the scheduler lets go of this agent or is lost."""
        reactor, silence_s = self._reactor, self._config.silence_s
        self._descriptor_limit = raise_descriptor_limit()
        for signum in END_SIGNALS:
            signal.signal(signum, lambda number, frame: reactor.post(self._on_signal, number))
        signal.signal(signal.SIGCHLD, lambda number, frame: reactor.post(self._reap))
        try:
            hello = self._hello()
            self._uplink = Uplink(
                reactor,
                self._context,
                self._config,
                on_message=self._on_message,
                on_heard=self._resume,
                on_unreadable=lambda error: complain(
                    f"the scheduler has sent a message that cannot be read: {error}"
                ),
            )
            reactor.watch(sys.stdin.fileno(), self._on_input)
            reactor.call_every(silence_s / 5, self._look_after_scheduler)
            self._uplink.send(hello)
            reactor.run()
        except _NoAddress as error:
            complain(f"{error}; --interface names the network of the job")
            self._exit_code = 1
        finally:
            survivors = kill_all(os.getpid())
            if survivors:
                complain(f"cannot end the processes {survivors}")
            self._context.destroy(linger=1000)
            reactor.close()
        return self._exit_code

    # -- the scheduler ------------------------------------------------------------------------

    def _hello(self) -> messages.AgentHello:
        config = self._config
        scheduler = urlsplit(config.endpoint).hostname
        try:
            address = config.address or own_address(scheduler or "", config.interfaces)
        except OSError as error:
            raise _NoAddress(str(error)) from error
        return messages.AgentHello(
            baryon.__version__,
            socket.gethostname(),
            os.getpid(),
            address,
            config.endpoint,
            tuple(filter(None, os.environ.get("CUDA_VISIBLE_DEVICES", "").split(","))),
        )

    def _on_message(self, message: Message) -> None:
        if isinstance(message, messages.StartTasks):
            self._was_told = True
            num_workers = sum(role_of(spec.slug) == "worker" for spec in message.tasks)
            for spec in message.tasks:
                self._start(spec, num_workers)
        elif isinstance(message, messages.StopTasks):
            self._stop(message)
        elif isinstance(message, messages.EndProcess):
            self._end_process(message)
        elif isinstance(message, messages.Suspend):
            self._suspend(message)
        elif isinstance(message, messages.Resume):
            self._suspended_for = 0.0
            self._signal_all(signal.SIGCONT)
        elif isinstance(message, messages.Release):
            self._reactor.stop()

    def _on_input(self) -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            self._lose("the scheduler has gone")

    def _on_signal(self, signum: int) -> None:
        self._exit_code = 128 + signum  # with 0, Kubernetes would take its pod for completed
        self._lose(f"{signal.Signals(signum).name} received")

    def _look_after_scheduler(self) -> None:
        silent_s = time.monotonic() - self._uplink.last_heard
        if silent_s > (self._suspended_for or self._config.silence_s):
            if self._was_told:
                self._lose(f"the scheduler has been silent for {silent_s:.0f} s")
            else:
                endpoint = self._config.endpoint
                self._lose(f"the scheduler at {endpoint} has not answered for {silent_s:.0f} s")
        if self._suspended_for:
            return  # the scheduler is stopped, too
        stopped = tuple(slug for slug, task in self._tasks.items() if task.is_stopped())
        self._uplink.send_now(messages.Alive(stopped))

    def _lose(self, why: str) -> None:
        running = [task.slug for task in self._tasks.values() if task.code is None]
        if running or not self._was_told:
            complain(f"{why}; killing {', '.join(running) or 'nothing'}")
        self._reactor.unwatch(sys.stdin.fileno())
        self._reactor.stop()

    # -- tasks --------------------------------------------------------------------------------

    def _start(self, spec: messages.TaskSpec, num_workers: int) -> None:
        num_cores = len(os.sched_getaffinity(0))
        env = environment_of(spec, os.environ, num_workers, num_cores)
        env[TASK_VARIABLE] = self._keep(spec.slug, spec.credentials)
        env[MEMORY_VARIABLE] = self._memory
        cwd = os.path.join(os.path.expanduser("~"), os.path.expanduser(spec.cwd))
        try:
            process = spawn(argv_of(spec), cwd, env, self._descriptor_limit)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            self._uplink.send(messages.Exited(spec.slug, 127, 0.0, str(error)))
            return
        task = self._tasks[spec.slug] = TaskProcess(spec, process, self._reactor)
        for file, is_error in ((process.stdout, False), (process.stderr, True)):
            assert file is not None
            send = functools.partial(self._send_output, task, is_error)
            on_end = functools.partial(self._report_if_over, task)
            pipe = OutputPipe(self._reactor, file, lambda: self._uplink.is_full, send, on_end)
            task.pipes.append(pipe)

    @staticmethod
    def _keep(name: str, content: bytes) -> str:
        """The path of a file with ``content``, in memory, which only this user can read.

        It goes with this process, which keeps the descriptor open.
        """
        descriptor = os.memfd_create(name)
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, content)
        return f"/proc/{os.getpid()}/fd/{descriptor}"

    def _send_output(self, task: TaskProcess, is_error: bool, pieces: List[Piece]) -> None:
        for piece in pieces:
            output = messages.Output(task.slug, is_error, piece.is_transient, piece.data)
            self._uplink.send(output)

    def _resume(self) -> None:
        """The scheduler has acknowledged something: read tasks' output again."""
        if not self._uplink.is_full:
            for task in self._tasks.values():
                for pipe in task.pipes:
                    pipe.resume()

    def _stop(self, message: messages.StopTasks) -> None:
        tasks = [
            t for t in self._tasks.values() if role_of(t.slug) == message.role and t.code is None
        ]
        for task in tasks:
            task.signal(message.signal)
            # A stopped process acts on a signal only once it goes on.
            task.signal(signal.SIGCONT)
            task.kill_later(message.grace_s)

    def _end_process(self, message: messages.EndProcess) -> None:
        task = self._tasks.get(message.task)
        if task is not None:  # only a process of its own is ended, whichever pid it names
            task.kill_process_later(message.pid, message.limit_s)

    def _suspend(self, message: messages.Suspend) -> None:
        # An agent whose standard input can end need not judge by silence.
        self._suspended_for = message.patience_s if self._has_endless_input else math.inf
        self._signal_all(signal.SIGSTOP)
        self._uplink.send(messages.Suspended())

    def _signal_all(self, signum: int) -> None:
        for task in self._tasks.values():
            task.signal_all(signum)

    def _reap(self) -> None:
        by_pid = {task.process.pid: task for task in self._tasks.values()}
        while True:
            pid = ended_child()
            if not pid:
                return
            task = by_pid.get(pid)
            if task is not None:
                task.end()
            _, status = os.waitpid(pid, 0)
            if task is None:
                continue  # an orphan that came back to this subreaper
            task.reaped(status)
            self._report_if_over(task)
            self._reactor.call_later(_DRAIN_S, functools.partial(self._report, task))

    def _report_if_over(self, task: TaskProcess) -> None:
        if task.code is not None and not any(pipe.is_open for pipe in task.pipes):
            self._report(task)

    def _report(self, task: TaskProcess) -> None:
        """Send `Exited` once, after the task's last output."""
        if self._tasks.pop(task.slug, None) is None:
            return
        assert task.code is not None
        for pipe in task.pipes:
            pipe.close()
        how = (task.slug, task.code, task.seconds, "", task.new_oom_kills(), task.was_late)
        self._uplink.send(messages.Exited(*how))


def main() -> int:
    found = read_config(*sys.argv[1:])
    if found is None:
        return 1
    return guarded(lambda: Agent(*found).run())
