"""All hosts on this machine. Each is one agent process; they share only the loopback address."""

import signal
import subprocess
import time
from typing import AbstractSet, Callable, Dict, List, Tuple

import msgspec

from baryon.scheduler import Cluster
from baryon.scheduler.agent import agent_argv
from baryon.scheduler.control import AgentConfig, Job

from ..flags import Options

__all__ = ["LocalCluster", "prepare"]

_KILL_LIMIT_S = 10.0
_REAP_LIMIT_S = 5.0


def prepare(job: Job, options: Options, say: Callable[[str], None]) -> Tuple[Job, "LocalCluster"]:
    """Nothing to prepare. Tasks use the loopback address, whatever --interface says."""
    return msgspec.structs.replace(job, interfaces=()), LocalCluster()


class LocalCluster(Cluster):
    """Simulates every host of the job by an agent on this machine."""

    def __init__(self) -> None:
        self._agents: Dict[int, subprocess.Popen[bytes]] = {}

    def scheduler_address(self, job: Job, host: int) -> str:
        return "127.0.0.1"

    def start(self, job: Job, host: int, config: AgentConfig) -> None:
        # A session of its own: Ctrl-C reaches this process alone, which then stops the rest.
        agent = subprocess.Popen(
            agent_argv(job.python), stdin=subprocess.PIPE, start_new_session=True
        )
        assert agent.stdin is not None
        agent.stdin.write(config.line())
        agent.stdin.flush()
        self._agents[host] = agent

    def ended(self) -> List[Tuple[int, str]]:
        ended = []
        for host, agent in list(self._agents.items()):
            code = agent.poll()
            if code is not None:
                self._forget(host)
                how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
                ended.append((host, how))
        return ended

    def release(self, host: int) -> None:
        if host in self._agents:
            self._close_input(self._agents[host])

    def kill(self, lost: AbstractSet[int] = frozenset()) -> None:
        for agent in self._agents.values():
            self._close_input(agent)
            agent.terminate()  # its guard makes sure that everything below it ends in time
            agent.send_signal(signal.SIGCONT)  # it may be stopped
        deadline = time.monotonic() + _KILL_LIMIT_S
        for agent in self._agents.values():
            try:
                agent.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                agent.kill()
        for agent in self._agents.values():
            try:
                agent.wait(_REAP_LIMIT_S)
            except subprocess.TimeoutExpired:
                pass  # it hangs in the kernel, and will end after that

    def _forget(self, host: int) -> None:
        self._close_input(self._agents.pop(host))

    @staticmethod
    def _close_input(agent: "subprocess.Popen[bytes]") -> None:
        assert agent.stdin is not None
        try:
            agent.stdin.close()
        except BrokenPipeError:
            pass
