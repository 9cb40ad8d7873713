"""How a job starts: agents say hello, start their tasks, and all that join get the roster. Pure."""

from typing import Callable, Dict, List

from baryon import __version__

from . import news
from .actions import Action, Send
from .control import messages
from .meetings import Wait
from .observers import Notice
from .state import RUNNING, STARTING, HostState, JobState, TaskState
from .stopping import Stopping

__all__ = ["Starting", "tell_left"]

PATIENCE_S = 2.0  # of a user who sees nothing


class Starting:
    """``specs(host, hello)``: the processes that an agent which says ``hello`` has to start."""

    def __init__(
        self,
        state: JobState,
        stopping: Stopping,
        specs: Callable[[int, messages.AgentHello], messages.StartTasks],
        public_keys: Dict[str, str],
    ) -> None:
        self._state = state
        self._stopping = stopping
        self._specs = specs
        self._public_keys = public_keys
        self._was_told = False  # the user was, for what the job waits

    # -- agents -------------------------------------------------------------------------------

    def on_hello(self, host: HostState, message: messages.AgentHello, now: float) -> List[Action]:
        state = self._state
        if message.version != __version__:
            text = (
                f"{host.where} runs Baryon {message.version}, and launch.py {__version__}; "
                "install the same version there"
            )
            return self._stopping.fail(text, 1, now)
        if host.has_greeted and host.hello is None:
            text = f"{host.where} was started again, as process {message.pid}, after its tasks"
            return self._stopping.fail(text, 1, now)
        if state.job.hosts[host.number].is_allotted:
            host.name = message.hostname
            for task in state.of_host(host.number):
                task.where = f"{task.task.name} ({host.name})"
        host.has_greeted = True
        host.hello = message
        if state.suspending is not None:
            state.suspending.add(host.number)
            return [Send(host.peer, messages.Suspend(state.job.timeout_s))]
        return self.start_hosts()

    def on_queue(self, is_queued: bool, now: float) -> List[Action]:
        """Whether the job still waits for hosts: its tasks start when it has all of them."""
        self._state.is_queued = is_queued
        if is_queued:
            self._state.start_clock = now
        return self.start_hosts()

    def start_hosts(self) -> List[Action]:
        """Tell agents what to start, unless others are still to come from a queue."""
        state = self._state
        is_awaited = not all(host.has_greeted for host in state.hosts.values())
        if state.phase != STARTING or (state.is_queued and is_awaited):
            return []
        if state.suspending is not None:
            return []
        sends: List[Action] = []
        for host in state.hosts.values():
            if host.hello is not None:
                sends.append(Send(host.peer, self._specs(host.number, host.hello)))
                host.hello, host.is_started = None, True
        return sends

    # -- tasks --------------------------------------------------------------------------------

    def on_join(self, task: TaskState, message: messages.Join, now: float) -> List[Action]:
        state = self._state
        if task.joined is not None:
            name = task.task.name
            text = (
                f"process {message.pid} joined as {name}, but process {task.pid} already is "
                f"{name}; only one process of a worker's command may create a dist kvstore"
            )
            return self._stopping.fail(text, 1, now)
        if (task.task.role == "server") != bool(message.endpoint):
            text = f"{task.where} has sent Join with an impossible endpoint {message.endpoint!r}"
            return self._stopping.fail(text, 1, now)
        task.joined = now
        task.pid = message.pid
        task.endpoint = message.endpoint
        if task.task.role == "worker" and state.joining is None:
            state.joining = Wait("create a dist kvstore", now)
        return self.begin_if_complete(now)

    def begin_if_complete(self, now: float) -> List[Action]:
        """Send the roster once all tasks have joined."""
        state = self._state
        if state.phase != STARTING:
            return []
        workers = state.of_role("worker")
        gone = [task for task in workers if task.ended and task.joined is None]
        if gone and state.joining is not None:
            text = (
                f"{gone[0].where} ended without creating a dist kvstore, which other "
                "workers wait for; all workers must run the same script"
            )
            return self._stopping.fail(text, 1, now)
        if any(task.joined is None for task in state.tasks.values()):
            return []
        state.phase = RUNNING
        peers = tuple(
            messages.Peer(task.endpoint, self._public_keys[task.task.slug])
            for task in state.of_role("server")
        )
        begin: List[Action] = [Send(slug, messages.Roster(peers)) for slug in state.tasks]
        return begin + [left for task in workers if task.ended for left in tell_left(state, task)]

    # -- time ---------------------------------------------------------------------------------

    def look_for_wait(self, now: float) -> List[Action]:
        """Tell a user who sees nothing what the job waits for."""
        state = self._state
        if self._was_told or now - state.start_clock < PATIENCE_S:
            return []
        self._was_told = True
        if state.job.is_quiet:
            return []
        late = [host.where for host in state.hosts.values() if host.heard is None]
        late += [task.task.name for task in state.of_role("server") if task.joined is None]
        workers = [t for t in state.of_role("worker") if t.joined is None and not t.ended]
        return [Notice(now, news.waiting(late, [task.task.name for task in workers]))]

    def look_for_late(self, now: float) -> List[Action]:
        """Give up if an agent or a server is not there in time."""
        state = self._state
        limit_s = min(state.job.start_s, state.job.timeout_s)
        if now - state.start_clock < limit_s:
            return []
        late = [host.where for host in state.hosts.values() if host.heard is None]
        late += [task.where for task in state.of_role("server") if task.joined is None]
        if not late:
            return []
        return self._stopping.fail(
            f"{', '.join(late)} did not start within {limit_s:.0f} s", 1, now
        )


def tell_left(state: JobState, worker: TaskState) -> List[Action]:
    """Tell the servers that a worker has ended well."""
    left = messages.Left(worker.task.rank)
    return [Send(server.task.slug, left) for server in state.of_role("server")]
