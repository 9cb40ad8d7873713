"""The agent: one per host; starts, watches and stops the tasks on it.

`agent_argv` is its command. It reads one line from its standard input, an `AgentConfig`, and keeps
the input open: its end means that the scheduler has gone. Where a cluster manager starts all agents
by one command, the line is in a file for each instead, and the scheduler's silence alone means that
it has gone. What an agent has to say when nobody can be told any more goes to its standard error,
which its cluster keeps. Whatever happens to the scheduler, to this process or to its guard
(processes.py), no task outlives them. Everything runs in the main thread; signals only enqueue.
"""

import functools
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple
from urllib.parse import urlsplit

import msgspec
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
from .command import config_name, python_argv
from .lines import LineCutter, Piece
from .processes import END_SIGNALS, ended_child, guarded, kill_all, spawn
from .task_process import TaskProcess

__all__ = ["main"]

_PACKAGE = Path(baryon.__file__).parent
_HOOK = _PACKAGE / "worker" / "hook"
# glibc's malloc gives big blocks back to the kernel as they are freed, and takes them anew, page by
# page, with the next message (mallopt(3)). With these it keeps them: TCP is twice as fast.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
_PIPE_READS = 16  # of 64 KiB: as much as a pipe holds (pipe(7)) unless somebody enlarged it
_DRAIN_S = 1.0  # for the last output of a task whose pipe something else still holds


class _NoAddress(Exception):
    """No interface, or no route, by which others would reach this host."""


class Agent:
    """The loop: sockets, pipes, child processes."""

    def __init__(self, config: AgentConfig, has_endless_input: bool = False) -> None:
        self._config = config
        self._has_endless_input = has_endless_input
        self._suspended_for = 0.0  # seconds at most; 0: it is not
        self._reactor = Reactor()
        self._tasks: Dict[str, TaskProcess] = {}
        self._paused: List[Tuple[TaskProcess, Callable[[], None]]] = []
        self._was_told = False  # to start its tasks
        self._exit_code = 0
        self._memory = self._keep("memory", b"")  # which tasks make as big as they need
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
                on_unreadable=lambda error: self._complain(
                    f"the scheduler sent something unreadable: {error}"
                ),
            )
            reactor.watch(sys.stdin.fileno(), self._on_input)
            reactor.call_every(silence_s / 5, self._look_after_scheduler)
            self._uplink.send(hello)
            reactor.run()
        except _NoAddress as error:
            self._complain(f"{error}; --interface names the network of the job")
            self._exit_code = 1
        finally:
            survivors = kill_all(os.getpid())
            if survivors:
                self._complain(f"cannot end the processes {survivors}")
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
            num_workers = sum(_role(spec.slug) == "worker" for spec in message.tasks)
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
        self._exit_code = 128 + signum  # or Kubernetes would take its pod for one that is done
        self._lose(f"{signal.Signals(signum).name} received")

    def _look_after_scheduler(self) -> None:
        silent_s = time.monotonic() - self._uplink.last_heard
        if silent_s > (self._suspended_for or self._config.silence_s):
            where = "" if self._was_told else f" at {self._config.endpoint}, once"
            self._lose(f"the scheduler has not been heard{where} for {silent_s:.0f} s")
        if self._suspended_for:
            return  # nobody would hear it
        stopped = tuple(slug for slug, task in self._tasks.items() if task.is_stopped())
        self._uplink.send_now(messages.Alive(stopped))

    def _lose(self, why: str) -> None:
        running = [task.slug for task in self._tasks.values() if task.code is None]
        if running or not self._was_told:
            self._complain(f"{why}; killing {', '.join(running) or 'nothing'}")
        self._reactor.unwatch(sys.stdin.fileno())
        self._reactor.stop()

    def _complain(self, text: str) -> None:
        """To the terminal: the scheduler cannot be told."""
        try:
            os.write(2, f"baryon: agent on {socket.gethostname()}: {text}\n".encode())
        except OSError:
            pass  # nobody is left to be told

    # -- tasks --------------------------------------------------------------------------------

    def _start(self, spec: messages.TaskSpec, num_workers: int) -> None:
        own = {
            TASK_VARIABLE: self._keep(spec.slug, spec.credentials),
            MEMORY_VARIABLE: self._memory,
        }
        env = {**_MALLOC, **os.environ, **spec.env, **own}
        if _role(spec.slug) == "worker":
            if num_workers > 1:
                # Each would otherwise take every core, and they would fight for them.
                threads = max(1, len(os.sched_getaffinity(0)) // num_workers)
                env.setdefault("OMP_NUM_THREADS", str(threads))
            python_path = [str(_HOOK), env.get("PYTHONPATH", "")]
            env["PYTHONPATH"] = os.pathsep.join(filter(None, python_path))
        cwd = os.path.join(os.path.expanduser("~"), os.path.expanduser(spec.cwd))
        try:
            process = spawn(_argv(spec), cwd, env, self._descriptor_limit)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            self._uplink.send(messages.Exited(spec.slug, 127, 0.0, str(error)))
            return
        task = self._tasks[spec.slug] = TaskProcess(spec, process, self._reactor)
        for pipe, is_error in ((process.stdout, False), (process.stderr, True)):
            assert pipe is not None
            self._follow(task, pipe.fileno(), is_error)

    @staticmethod
    def _keep(name: str, content: bytes) -> str:
        """The path of a file with ``content`` that is gone when this process is.

        In memory, readable by this user only; the descriptor stays open as long as the agent runs.
        """
        descriptor = os.memfd_create(name)
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, content)
        return f"/proc/{os.getpid()}/fd/{descriptor}"

    def _follow(self, task: TaskProcess, pipe: int, is_error: bool) -> None:
        """Pass on what the task writes to a pipe until it is closed."""
        cutter = LineCutter()
        os.set_blocking(pipe, False)

        def send(pieces: List[Piece]) -> None:
            for piece in pieces:
                self._uplink.send(
                    messages.Output(task.slug, is_error, piece.is_transient, piece.data)
                )

        def read() -> Optional[bytes]:
            """What is there; None if that is nothing, b"" at the end."""
            try:
                return os.read(pipe, 1 << 16)
            except BlockingIOError:
                return None

        def on_readable() -> None:
            if self._uplink.is_full:  # the scheduler is behind: let the task wait in its write
                self._reactor.unwatch(pipe)
                self._paused.append((task, lambda: self._reactor.watch(pipe, on_readable)))
                return
            data = read()
            if data:
                send(cutter.feed(data))
            elif data is not None:
                self._reactor.unwatch(pipe)
                task.open_pipes -= 1
                self._report_if_over(task)

        def finish() -> None:
            """What the task has left in the pipe; something that survives it may write on."""
            for _ in range(_PIPE_READS):
                send(cutter.feed(read() or b""))
            send(cutter.end())

        task.finishers.append(finish)
        self._reactor.watch(pipe, on_readable)

    def _resume(self) -> None:
        if self._uplink.is_full:
            return
        paused, self._paused = self._paused, []
        for task, watch in paused:
            if task.slug in self._tasks:  # or its pipes are closed
                watch()

    def _stop(self, message: messages.StopTasks) -> None:
        tasks = [
            t for t in self._tasks.values() if _role(t.slug) == message.role and t.code is None
        ]
        for task in tasks:
            task.signal(message.signal)
            # A stopped process acts on a signal only when it goes on.
            task.signal(signal.SIGCONT)
            task.kill_later(message.grace_s)

    def _end_process(self, message: messages.EndProcess) -> None:
        task = self._tasks.get(message.task)
        if task is not None:  # of which alone it may be a process, whatever it says
            task.kill_process_later(message.pid, message.limit_s)

    def _suspend(self, message: messages.Suspend) -> None:
        # The end of standard input tells when the scheduler has gone, however long it is silent.
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
                continue  # an orphan that came back to us
            task.reaped(status)
            self._report_if_over(task)
            self._reactor.call_later(_DRAIN_S, functools.partial(self._report, task))

    def _report_if_over(self, task: TaskProcess) -> None:
        if task.code is not None and not task.open_pipes:
            self._report(task)

    def _report(self, task: TaskProcess) -> None:
        """Say once that a task has ended, after its last output."""
        if self._tasks.pop(task.slug, None) is None:
            return
        assert task.code is not None
        for pipe, finish in zip((task.process.stdout, task.process.stderr), task.finishers):
            assert pipe is not None
            self._reactor.unwatch(pipe.fileno())
            finish()
            pipe.close()
        how = (task.slug, task.code, task.seconds, "", task.new_oom_kills(), task.was_late)
        self._uplink.send(messages.Exited(*how))


def _role(slug: str) -> str:
    return slug.split("-")[0]


def _read_line(descriptor: int) -> bytes:
    """One line, without reading ahead: what follows belongs to the loop."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            return b""
        line += byte
    return line


def _argv(spec: messages.TaskSpec) -> List[str]:
    if spec.runner == "server":
        return python_argv(sys.executable, "baryon.scheduler.server_task", str(_PACKAGE.parent))
    return [sys.executable, *spec.argv] if spec.runner == "python" else list(spec.argv)


def _take_config(configs: str, index_from: str) -> bytes:
    """The content of this agent's file, which is removed; empty if it cannot be read."""
    try:
        path = os.path.join(configs, config_name(int(os.environ[index_from])))
        with open(path, "rb") as file:
            line = file.read()
    except (KeyError, ValueError, OSError) as error:
        where = f"agent on {socket.gethostname()}"
        sys.stderr.write(f"baryon: {where}: cannot read its configuration: {error!r}\n")
        return b""
    try:
        os.unlink(path)
    except OSError:
        pass  # it lies where only the cluster manager may write
    _have_endless_input()
    return line


def _have_endless_input() -> None:
    """Replace standard input by a pipe whose other end is this process's own (and its child's)."""
    reader, _ = os.pipe()
    os.dup2(reader, 0)
    os.close(reader)


def main() -> int:
    line = _take_config(*sys.argv[1:]) if sys.argv[1:] else _read_line(sys.stdin.fileno())
    if not line:
        return 1  # the scheduler went before it had said anything
    config = msgspec.json.decode(line, type=AgentConfig)
    return guarded(lambda: Agent(config, has_endless_input=bool(sys.argv[1:])).run())
