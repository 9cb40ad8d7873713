"""Hosts over SSH: one agent through one channel of each host's connection.

The channel is the agent's standard input. When either side or the network closes the channel, the
agent ends with everything below it. A silent cut of the connection goes unnoticed here, but the
agent and the scheduler both notice that they do not hear each other.
"""

import os
import threading
import time
from typing import AbstractSet, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple
from urllib.parse import urlsplit

import msgspec

from baryon.ps import PeerError
from baryon.scheduler import Cluster
from baryon.scheduler.agent import agent_argv
from baryon.scheduler.control import AgentConfig, Job

from ..flags import Options
from ..hosts.collect import FETCHED, Source, collect_all
from ..hosts.findings import lines
from ..hosts.preflight import judge
from ..hosts.shipping import ship
from ..hosts.survey import Survey
from ..parallel import side_by_side
from ..ssh import Connection, Interpreter, RemoteProcess, open_tunnel

__all__ = ["SshCluster", "SshHost", "finish", "prepare"]

_KILL_LIMIT_S = 8.0  # an agent that does not end by itself is killed by its guard before that


def prepare(job: Job, options: Options, say: Callable[[str], None]) -> Tuple[Job, "SshCluster"]:
    """Look at all hosts, copy what they lack, and keep the connections for the agents.

    Raises PeerError with every error found, one a line.
    """
    survey = Survey(job, options)
    say(f"looking at {len(survey.hosts)} host{'s' * (len(survey.hosts) > 1)}")
    try:
        survey.run()
        findings = judge([host.report for host in survey.hosts], survey.expectations())
        errors = lines([finding for finding in findings if finding.is_error])
        if errors:
            raise PeerError("\n".join(errors))
        for line in lines(findings):
            say(f"note: {line}")
        ship(survey, options, job.log_dir, say)
    except BaseException:
        survey.close()
        raise
    hosts = list(job.hosts)
    ready: Dict[int, SshHost] = {}
    for host in survey.hosts:
        found = host.report.found
        assert host.connection is not None
        hosts[host.index] = msgspec.structs.replace(hosts[host.index], address=found["address"])
        is_direct = host.reaches_here and not options.tunnel
        ready[host.index] = SshHost(
            host.connection,
            survey.interpreter._replace(candidates=[found["python"]]),
            found["home"],
            host.scheduler_address if is_direct else "",
        )
    job = msgspec.structs.replace(job, hosts=tuple(hosts))
    return job, SshCluster(ready, is_fetched_from=bool(options.fetch))


def finish(job: Job, options: Options, cluster: Cluster, say: Callable[[str], None]) -> bool:
    """Fetch the files of --fetch from the hosts. Returns whether that succeeded."""
    if not options.fetch:
        return True
    assert isinstance(cluster, SshCluster) and options.sync_dst_dir is not None
    into = os.path.join(job.log_dir, FETCHED)
    try:
        sources = cluster.sources([host.name for host in job.hosts])
        return collect_all(sources, options.sync_dst_dir, options.fetch, into, say)
    finally:
        cluster.close()


class SshHost(NamedTuple):
    """A host that is ready to run an agent.

    ``home`` is the folder on the host that holds the package baryon. ``scheduler_address`` is the
    address at which the host reaches this machine; it is empty if the host needs a tunnel.
    """

    connection: Connection
    interpreter: Interpreter
    home: str
    scheduler_address: str


class _Agent:
    """An agent that is being started, runs, or could not be started."""

    def __init__(self, host: SshHost, config: AgentConfig) -> None:
        self._host = host
        self._config = config
        self._process: Optional[RemoteProcess] = None
        self._error = ""
        self._is_released = False
        self._thread = threading.Thread(
            target=self._start, name=f"ssh-start-{host.connection.name}", daemon=True
        )
        self._thread.start()

    def _start(self) -> None:
        try:
            config = self._config
            if not self._host.scheduler_address:
                here = urlsplit(config.endpoint)
                port = open_tunnel(self._host.connection, str(here.hostname), int(here.port or 0))
                config = msgspec.structs.replace(config, endpoint=f"tcp://127.0.0.1:{port}")
            argv = agent_argv("", self._host.home)
            process = RemoteProcess(self._host.connection, self._host.interpreter, argv[1:])
            process.write(config.line())
            self._process = process
        except (PeerError, OSError) as error:
            self._error = f"could not be started: {error}"

    def how_it_ended(self) -> str:
        """How the agent ended; empty while it starts or runs."""
        if self._thread.is_alive():
            return ""
        if self._process is None:
            return self._error or "could not be started"
        if self._is_released:
            self._process.close_input()
        return self._process.how_it_ended() if self._process.has_ended() else ""

    def kill(self) -> None:
        if not self._thread.is_alive() and self._process is not None:
            self._process.kill()

    def release(self) -> None:
        """Close the agent's input, once it has started."""
        self._is_released = True
        if not self._thread.is_alive() and self._process is not None:
            self._process.close_input()


class SshCluster(Cluster):
    """The ``hosts`` of a job by number, and their connections.

    The end of the job closes the connections. If it ``is_fetched_from`` afterwards, `close` does.
    """

    def __init__(self, hosts: Dict[int, SshHost], is_fetched_from: bool = False) -> None:
        self._hosts = hosts
        self._is_fetched_from = is_fetched_from
        self._agents: Dict[int, _Agent] = {}
        self._ended: List[Tuple[int, str]] = []

    def scheduler_address(self, job: Job, host: int) -> str:
        return self._hosts[host].scheduler_address or "127.0.0.1"

    def start(self, job: Job, host: int, config: AgentConfig) -> None:
        self._agents[host] = _Agent(self._hosts[host], config)

    def ended(self) -> List[Tuple[int, str]]:
        self._look()
        ended, self._ended = self._ended, []
        return ended

    def _look(self) -> None:
        for host, agent in list(self._agents.items()):
            how = agent.how_it_ended()
            if how:
                del self._agents[host]
                self._ended.append((host, how))

    def release(self, host: int) -> None:
        if host in self._agents:
            self._agents[host].release()

    def kill(self, lost: AbstractSet[int] = frozenset()) -> None:
        for agent in self._agents.values():
            agent.release()
        deadline = time.monotonic() + _KILL_LIMIT_S
        while self._agents.keys() - lost and time.monotonic() < deadline:
            self._look()
            time.sleep(0.02)
        stuck = [agent for number, agent in self._agents.items() if number not in lost]
        side_by_side(_Agent.kill, stuck, _KILL_LIMIT_S)
        self._ended += [(host, "had to be killed") for host in self._agents]
        self._agents.clear()
        if not self._is_fetched_from:
            self.close()

    def sources(self, names: Sequence[str]) -> List[Source]:
        """The hosts to fetch from. ``names`` are the names of all hosts of the job."""
        return [
            Source(names[number], host.connection, host.interpreter)
            for number, host in self._hosts.items()
        ]

    def close(self) -> None:
        side_by_side(Connection.close, [host.connection for host in self._hosts.values()], 2.0)
