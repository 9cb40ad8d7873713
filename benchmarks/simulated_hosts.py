"""Agents and tasks that are nothing but sockets: hosts for the scheduler, as many as wanted.

    python -m benchmarks.simulated_hosts N      (started by benchmarks.scale, which talks to it)

Standard input: one line for each of N agents, its configuration; and ``release NUMBER``. Standard
output: ``begun`` when every task has been told that all have joined, and ``ended NUMBER``.

What they say to the scheduler is what real agents and tasks say, over CURVE and TCP: hello, joins,
signs of life every fifth of the heartbeat timeout, and the end. One process plays them all, so that
nothing but the scheduler's own work is counted as the scheduler's.
"""

from __future__ import annotations

import os
import sys
from typing import Callable, Dict, List

import msgspec
import zmq

from baryon.ps import KeyPair, Reactor, secure_client
from baryon.scheduler.control import AgentConfig, Credentials, messages

ADDRESS = "127.0.0.1"


class SimulatedHost:
    """An agent and its tasks; ``on_begun()`` is called for each task that gets the roster."""

    def __init__(
        self,
        context: zmq.Context,
        reactor: Reactor,
        config: AgentConfig,
        on_begun: Callable[[], None],
    ) -> None:
        self._on_begun = on_begun
        self._context = context
        self._reactor = reactor
        self._config = config
        self._tasks: Dict[str, zmq.Socket] = {}
        keys = KeyPair(config.public_key, config.secret_key)
        self._agent = self._connect(keys, config.scheduler_key, self._on_message)
        hello = messages.AgentHello("0", f"host{config.host}", 1, ADDRESS, config.endpoint)
        self._say(self._agent, hello)
        reactor.call_every(config.silence_s / 5, self._say_alive)

    def release(self) -> None:
        for socket in [*self._tasks.values(), self._agent]:
            self._reactor.unwatch(socket)
            socket.close(linger=0)
        self._tasks.clear()
        sys.stdout.write(f"ended {self._config.host}\n")
        sys.stdout.flush()

    def _connect(
        self, keys: KeyPair, scheduler_key: str, on_message: Callable[[List[zmq.Frame]], None]
    ) -> zmq.Socket:
        socket = self._context.socket(zmq.DEALER)
        secure_client(socket, keys, scheduler_key)
        socket.connect(self._config.endpoint)
        self._reactor.receive(socket, on_message)
        return socket

    @staticmethod
    def _say(socket: zmq.Socket, message: messages.Message) -> None:
        socket.send(messages.CONTROL.encode(message))

    def _say_alive(self) -> None:
        for socket in [self._agent, *self._tasks.values()]:
            if not socket.closed:
                self._say(socket, messages.Alive())

    def _on_message(self, frames: List[zmq.Frame]) -> None:
        message = messages.CONTROL.decode(frames[0].buffer)
        if isinstance(message, messages.StartTasks):
            for spec in message.tasks:
                self._start(spec)
        elif isinstance(message, messages.StopTasks):
            for slug in [slug for slug in self._tasks if slug.startswith(message.role)]:
                self._tasks.pop(slug)
                self._say(self._agent, messages.Exited(slug, 0, 1.0, ""))

    def _start(self, spec: messages.TaskSpec) -> None:
        credentials = msgspec.json.decode(spec.credentials, type=Credentials)
        keys = KeyPair(credentials.public_key, credentials.secret_key)
        task = self._connect(keys, credentials.scheduler_key, self._on_task_message)
        self._tasks[spec.slug] = task
        self._say(task, messages.Join(1, "" if spec.runner != "server" else "tcp://nowhere:1"))

    def _on_task_message(self, frames: List[zmq.Frame]) -> None:
        if isinstance(messages.CONTROL.decode(frames[0].buffer), messages.Roster):
            self._on_begun()


def main() -> None:
    to_begin = 2 * int(sys.argv[1])  # a server and a worker each
    context = zmq.Context(io_threads=1)
    context.max_sockets = 100_000
    reactor = Reactor()
    hosts: Dict[int, SimulatedHost] = {}
    rest = b""

    def on_begun() -> None:
        nonlocal to_begin
        to_begin -= 1
        if not to_begin:
            sys.stdout.write("begun\n")
            sys.stdout.flush()

    def on_input() -> None:
        nonlocal rest
        data = os.read(0, 1 << 16)
        if not data:
            reactor.stop()
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"release "):
                hosts[int(line.split()[1])].release()
            else:
                config = msgspec.json.decode(line, type=AgentConfig)
                hosts[config.host] = SimulatedHost(context, reactor, config, on_begun)

    reactor.watch(0, on_input)
    reactor.run()
    context.destroy(linger=0)


if __name__ == "__main__":
    main()
