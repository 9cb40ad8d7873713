"""The scheduler's decisions: events and the time in, actions out; no sockets, clock or processes.

Life of a job::

    STARTING   agents say hello, start their tasks; tasks join
       │  all servers and workers have joined: everyone gets the roster
    RUNNING    meetings, heartbeats, workers ending well one by one
       │  all workers have ended well, or something failed, or the user wants to stop
    STOPPING   workers are told to end, then servers, then agents
       │  every agent has ended (or the time for it is over)
    OVER       `Finish` was returned

Only the first failure counts: what fails afterwards fails because of it. A host whose agent falls
silent is *lost*: nothing more is waited for from there, since its agent ends everything on it as
soon as it in turn has not heard from the scheduler for as long.
"""

import math
import signal
from typing import Callable, Dict, List, Optional, Set

import msgspec

from baryon import __version__
from baryon.ps import Message

from . import news
from .actions import Action, Finish, Kill, Pause, ReleaseAgent, Send
from .checks import impossible
from .cluster import Trouble
from .control import Job, messages
from .meetings import Meetings, Wait
from .observers import JobPaused, Notice, TaskOutput
from .positions import Positions
from .tasks import TaskState, describe_exit, exit_code_of, has_hung, last_line, own_code_of

__all__ = ["SchedulerCore"]

STALL_WARNING_S = 60.0
PATIENCE_S = 2.0  # of a user who sees nothing
_GOODBYE_S = 5.0  # a task's goodbye and the news of its end come by different ways
_TEARDOWN_S = 60.0  # for what a script that has ended well has registered with atexit
SUSPEND_S = 2.0  # for agents to stop their tasks before launch.py itself is stopped

STARTING, RUNNING, STOPPING, OVER = "starting", "running", "stopping", "over"


class SchedulerCore:
    """``specs(host, hello)``: the processes that an agent which says ``hello`` has to start."""

    def __init__(
        self,
        job: Job,
        specs: Callable[[int, messages.AgentHello], messages.StartTasks],
        public_keys: Dict[str, str],
        now: float,
    ) -> None:
        self.job = job
        self.phase = STARTING
        self._specs = specs
        self._public_keys = public_keys
        self._start = now
        self._last_tick = now
        self._next_alive = now
        self._has_waited = False  # for so long that the user was told
        self._start_clock = now  # it stands while the job waits for its hosts
        self._is_queued = False
        self._greeted: Set[int] = set()  # hosts whose agents have said hello
        self._hellos: Dict[int, messages.AgentHello] = {}  # of those that have nothing to do yet
        self._started: Set[int] = set()  # hosts that have been told what to start
        self._names = [host.name for host in job.hosts]
        self._tasks = {task.slug: TaskState(task, self._names[task.host]) for task in job.tasks}
        # Hosts that have no task have no agent.
        hosts = sorted({task.host for task in job.tasks})
        self._agents: Dict[int, Optional[float]] = dict.fromkeys(hosts)  # when last heard
        self._agents_ended: Set[int] = set()
        self._lost: Set[int] = set()  # hosts whose agents are silent
        self._suspending: Optional[Set[int]] = None  # hosts whose tasks still run, from Ctrl-Z on
        self._suspend_deadline = 0.0
        self._is_to_suspend = False  # once all agents are there
        self._joining: Optional[Wait] = None  # workers, from the first one on
        self._meetings = Meetings()
        self._positions = Positions()
        self._exit_code = 0
        self._has_failed = False
        self._stopping_role = ""
        self._stop_signal = int(signal.SIGTERM)
        self._grace_s = job.grace_s
        self._deadline = 0.0

    # -- events -------------------------------------------------------------------------------

    def on_start(self, now: float) -> List[Action]:
        """The agents are about to be started."""
        return self._tell(now, news.begun(self.job))

    def on_message(self, peer: str, message: Message, now: float) -> List[Action]:
        """A message from ``peer`` (``agent-0``, ``worker-1``, ...), authenticated as such."""
        wrong = impossible(message)
        kind = type(message).__name__
        if peer.startswith("agent-"):
            host = int(peer.split("-")[1])
            self._agents[host] = now
            if wrong:
                text = (
                    f"the agent on {self._names[host]} has sent {kind} with an impossible {wrong}"
                )
                return self._fail(text, 1, now)
            return self._on_agent_message(host, message, now)
        state = self._tasks[peer]
        state.last_heard = now
        state.was_warned = False
        if wrong:
            text = f"{state.where} has sent {kind} with an impossible {wrong}"
            return self._fail(text, 1, now)
        return self._on_task_message(state, message, now)

    def _on_agent_message(self, host: int, message: Message, now: float) -> List[Action]:
        if isinstance(message, messages.AgentHello):
            return self._on_agent_hello(host, message, now)
        if isinstance(message, (messages.Output, messages.Exited)):
            state = self._tasks.get(message.task)
            if state is None or state.task.host != host or host not in self._greeted:
                return [
                    Notice(now, f"agent-{host} speaks of {message.task}, which is not its task")
                ]
            if isinstance(message, messages.Output):
                return self._on_output(state, message, now)
            # One that has ended, or whose host was lost, has nothing more to end.
            return [] if state.ended else self._on_exited(state, message, now)
        if isinstance(message, messages.Suspended):
            if self._suspending:
                self._suspending.discard(host)
                return self._pause_if_ready(now)
            return []
        if isinstance(message, messages.Alive):
            for state in self._of_host(host):
                state.is_stopped = state.task.slug in message.stopped
            return []
        return [Notice(now, f"agent-{host} has sent {type(message).__name__}, which no agent may")]

    def _on_task_message(self, state: TaskState, message: Message, now: float) -> List[Action]:
        is_worker = state.task.role == "worker"
        if isinstance(message, messages.Gone):
            return self._on_gone(state, message, now)
        if isinstance(message, messages.Join):
            return self._on_join(state, message, now)
        if isinstance(message, messages.Gather) and is_worker:
            return self._on_gather(state, message, now)
        if isinstance(message, messages.Alive):
            wrong = self._positions.take(state.task.rank, message.positions) if is_worker else ""
            return self._fail(wrong, 1, now) if wrong else []
        if isinstance(message, messages.Failed):
            return self._fail(f"{state.where}: {message.text}{self._also_silent(now)}", 1, now)
        return [Notice(now, f"{state.where} has sent {type(message).__name__}, which it may not")]

    def on_agent_ended(self, host: int, how: str, now: float) -> List[Action]:
        """The cluster says that the agent of ``host`` has ended."""
        self._agents_ended.add(host)
        orphaned = [s for s in self._of_host(host) if not s.ended]
        for state in orphaned:
            state.ended = True
        if self.phase in (STARTING, RUNNING):
            what = ", ".join(s.task.name for s in orphaned) or "no task left"
            name = self._names[host]
            text = f"the agent on {name} {how}, and with it {what}"
            return self._fail(text, 1, now) + self._release_workers(f"the agent on {name}")
        return self._continue_stopping(now)

    def on_queue(self, is_queued: bool, now: float) -> List[Action]:
        """Whether the job still waits for hosts: no task of it starts until it has them all."""
        self._is_queued = is_queued
        if is_queued:
            self._start_clock = now
        return self._start_hosts()

    def on_trouble(self, trouble: Trouble, now: float) -> List[Action]:
        """The cluster as a whole has failed; said also if it only explains an earlier failure."""
        if self.phase == OVER:
            return []
        fail = self._fail(trouble.text, trouble.exit_code, now, trouble.grace_s)
        return fail or [Notice(now, trouble.text)]

    def on_signal(self, signum: int, now: float) -> List[Action]:
        """The user wants to stop (SIGINT, SIGTERM, SIGHUP), or to see where things are (USR1)."""
        if signum == signal.SIGUSR1:
            return [Notice(now, self.status(now))]
        name = signal.Signals(signum).name
        if self.phase in (STARTING, RUNNING):
            say = Notice(now, f"{name}: stopping all tasks ({name} again to kill them at once)")
            self._exit_code = 128 + signum
            # Scripts know Ctrl-C as KeyboardInterrupt; everything else is a plain end to them.
            to_tasks = signum if signum == signal.SIGINT else signal.SIGTERM
            return [say, *self._stop(to_tasks, now)]
        if self.phase == STOPPING and signum != signal.SIGPIPE:
            return [
                Notice(now, f"{name} while stopping: killing all tasks"),
                Kill(frozenset(self._lost)),
            ]
        return []

    def on_suspend(self, now: float) -> List[Action]:
        """The shell stops this process (Ctrl-Z): all tasks stop first, so that none is missed.

        Time stands still from `Pause` to `on_resume`. An agent that begins in it gives up, since it
        hears nobody; so those that are coming up are waited for, unless a queue has them.
        """
        if self._suspending is not None or self.phase == OVER:
            return []
        is_awaited = self.phase == STARTING and not all(self._agents.values())
        self._is_to_suspend = is_awaited and not self._is_queued
        if self._is_to_suspend:
            return []
        say: List[Action] = []
        if is_awaited:
            text = "launch.py stops while its job is queued: if its hosts come meanwhile, their "
            say.append(Notice(now, f"{text}agents give up after {self.job.silence_s:.0f} s"))
        gone = self._agents_ended | self._lost
        self._suspending = {h for h, heard in self._agents.items() if heard and h not in gone}
        # Those that have stopped their tasks say no more, which is not to look like silence.
        self._suspend_deadline = now + min(SUSPEND_S, self.job.silence_s / 2)
        suspend = messages.Suspend(self.job.timeout_s)
        send: List[Action] = [Send(f"agent-{host}", suspend) for host in self._suspending]
        return say + send + self._pause_if_ready(now)

    def on_resume(self) -> List[Action]:
        """The shell lets this process go on (fg, bg), or has thought better of stopping it."""
        self._is_to_suspend = False
        if self._suspending is None:
            return []
        self._suspending = None
        agents = [f"agent-{host}" for host, heard in self._agents.items() if heard]
        resume: List[Action] = [Send(agent, messages.Resume()) for agent in agents]
        return resume + self._start_hosts()

    def _pause_if_ready(self, now: float) -> List[Action]:
        is_ready = not self._suspending or now >= self._suspend_deadline
        return [JobPaused(now), Pause()] if self._suspending is not None and is_ready else []

    def on_tick(self, now: float) -> List[Action]:
        """Time passes: look for who is late, and who is silent."""
        alive = self._forgive_own_absence(now)
        if self.phase == OVER:
            return []
        alive += self.on_suspend(now) if self._is_to_suspend else self._pause_if_ready(now)
        alive += self._keep_in_touch(now)
        if self.phase == STOPPING:
            alive += self._lose_hosts(self._silent_hosts(now), now)
            return alive + self._look_for_late_enders(now)
        for look in (
            self._look_for_silence,
            self._look_for_starters,
            self._look_for_late_starters,
            self._look_for_late_arrivals,
            self._look_for_goodbyes,
        ):
            if self.phase in (STARTING, RUNNING):  # or the one before has ended the job
                alive += look(now)
        return alive

    # -- what it knows ------------------------------------------------------------------------

    def status(self, now: float) -> str:
        """One line for the job and one per task."""
        lines = [f"job {self.job.id} is {self.phase}, {now - self._start:.0f} s after its start"]
        for state in self._tasks.values():
            if state.ended:
                what = "has ended"
            elif state.joined is None:
                what = "has not joined"
            else:
                silent_s = now - state.last_heard
                what = f"joined as process {state.pid}, last heard {silent_s:.1f} s ago"
            lines.append(f"  {state.where} {what}")
        lines += [f"  {line}" for line in self._meetings.status(self.job.num_workers)]
        return "\n".join(lines)

    def __repr__(self) -> str:
        ended = sum(s.ended for s in self._tasks.values())
        joined = sum(s.joined is not None for s in self._tasks.values())
        return f"SchedulerCore({self.phase}, {joined} joined, {ended} ended, of {len(self._tasks)})"

    # -- starting -----------------------------------------------------------------------------

    def _on_agent_hello(self, host: int, hello: messages.AgentHello, now: float) -> List[Action]:
        if self.phase not in (STARTING, RUNNING):
            return [ReleaseAgent(host)]
        where = f"the agent on {self._names[host]}"
        if hello.version != __version__:
            text = f"{where} is of Baryon {hello.version}, launch.py of {__version__}"
            return self._fail(f"{text}; install the same there", 1, now)
        if host in self._greeted and host not in self._hellos:
            text = f"{where} was started again, as process {hello.pid}, after its tasks"
            return self._fail(text, 1, now)
        if self.job.hosts[host].is_allotted:
            self._names[host] = hello.hostname
            for state in self._of_host(host):
                state.where = f"{state.task.name} ({hello.hostname})"
        self._greeted.add(host)
        self._hellos[host] = hello
        if self._suspending is not None:
            self._suspending.add(host)
            return [Send(f"agent-{host}", messages.Suspend(self.job.timeout_s))]
        return self._start_hosts()

    def _start_hosts(self) -> List[Action]:
        """Tell agents what to start, unless others are still to come."""
        is_awaited = len(self._greeted) < len(self._agents)
        if self.phase != STARTING or (self._is_queued and is_awaited):
            return []
        if self._suspending is not None:
            return []
        hellos, self._hellos = self._hellos, {}
        self._started |= set(hellos)
        return [Send(f"agent-{host}", self._specs(host, hellos[host])) for host in hellos]

    def _on_join(self, state: TaskState, message: messages.Join, now: float) -> List[Action]:
        if state.joined is not None:
            text = (
                f"process {message.pid} wanted to be {state.task.name}, which process {state.pid} "
                "already is; only one process of a worker's command may create a dist kvstore"
            )
            return self._fail(text, 1, now)
        if (state.task.role == "server") != bool(message.endpoint):
            text = f"{state.where} has sent Join with an impossible endpoint {message.endpoint!r}"
            return self._fail(text, 1, now)
        state.joined = now
        state.pid = message.pid
        state.endpoint = message.endpoint
        if state.task.role == "worker" and self._joining is None:
            self._joining = Wait("create a dist kvstore", now)
        return self._begin_if_complete(now)

    def _begin_if_complete(self, now: float) -> List[Action]:
        if self.phase != STARTING:
            return []
        workers = self._of_role("worker")
        gone = [s for s in workers if s.ended and s.joined is None]
        if gone and self._joining is not None:
            text = (
                f"{gone[0].where} ended without creating a dist kvstore, which other "
                "workers wait for; all workers must run the same script"
            )
            return self._fail(text, 1, now)
        if any(s.joined is None for s in self._tasks.values()):
            return []
        self.phase = RUNNING
        peers = tuple(
            messages.Peer(s.endpoint, self._public_keys[s.task.slug])
            for s in self._of_role("server")
        )
        begin: List[Action] = [Send(slug, messages.Roster(peers)) for slug in self._tasks]
        return begin + [left for s in workers if s.ended for left in self._say_left(s)]

    # -- running ------------------------------------------------------------------------------

    @staticmethod
    def _on_output(state: TaskState, message: messages.Output, now: float) -> List[Action]:
        if not message.is_transient:
            state.last_line = last_line(message.data) or state.last_line
        return [TaskOutput(now, *msgspec.structs.astuple(message))]

    def _on_gone(self, state: TaskState, message: messages.Gone, now: float) -> List[Action]:
        if state.is_gone or state.task.role != "worker":
            return []
        state.is_gone = True
        state.own_code = message.code
        if state.exited is not None:
            return self._on_exited(state, state.exited, now)
        limit_s = self._goodbye_limit_s(message.code)
        state.due = now + limit_s
        end = messages.EndProcess(state.task.slug, state.pid, limit_s)
        return [Send(f"agent-{state.task.host}", end)]

    def _on_exited(self, state: TaskState, message: messages.Exited, now: float) -> List[Action]:
        is_running = self.phase in (STARTING, RUNNING)
        if is_running and message.code == 0 and state.owes_goodbye and state.exited is None:
            state.exited, state.due = message, now + _GOODBYE_S
            return []
        state.ended = True
        if not is_running:
            return self._release_workers(state.task.name) + self._continue_stopping(now)
        text, code = describe_exit(state, message), own_code_of(state, message)
        if code == 0 and state.task.role == "worker" and not state.owes_goodbye:
            say: List[Action] = [Notice(now, text)] if has_hung(state, message) else []
            return say + self._on_worker_done(state, now)
        return self._fail(text, exit_code_of(code), now) + self._release_workers(state.task.name)

    def _on_worker_done(self, state: TaskState, now: float) -> List[Action]:
        if all(s.ended for s in self._of_role("worker")):
            say: List[Action] = []
            if self._joining is None and self._of_role("server"):
                say.append(
                    Notice(
                        now,
                        "no worker created a dist kvstore, so nothing was kept in step; "
                        "a script that asks for a local store needs --kvstore dist_sync",
                    )
                )
            return say + self._stop(signal.SIGTERM, now)
        actions = self._say_left(state) if self.phase == RUNNING else []
        return actions + self._end_meetings() + self._begin_if_complete(now)

    def _say_left(self, state: TaskState) -> List[Action]:
        left = messages.Left(state.task.rank)
        return [Send(s.task.slug, left) for s in self._of_role("server")]

    def _on_gather(self, state: TaskState, message: messages.Gather, now: float) -> List[Action]:
        wrong = self._meetings.arrive(state.task.rank, message, now)
        if wrong:
            return self._fail(f"{state.where} {wrong}", 1, now)
        return self._end_meetings()

    def _end_meetings(self) -> List[Action]:
        """Those at which all are; a worker that has ended well is not waited for."""
        active = [s for s in self._of_role("worker") if not s.ended]
        return [
            Send(s.task.slug, gathered)
            for gathered in self._meetings.end({s.task.rank for s in active})
            for s in active
        ]

    def _keep_in_touch(self, now: float) -> List[Action]:
        """Agents and tasks end if they do not hear from the scheduler."""
        if now < self._next_alive:
            return []
        self._next_alive = now + self.job.silence_s / 5
        agents = [f"agent-{host}" for host, heard in self._agents.items() if heard]
        tasks = [s.task.slug for s in self._tasks.values() if s.joined is not None and not s.ended]
        return [Send(peer, messages.Alive()) for peer in agents + tasks]

    # -- late and silent ----------------------------------------------------------------------

    def _forgive_own_absence(self, now: float) -> List[Action]:
        """If this process was suspended, nobody was silent or late in that time.

        The agents took it for lost, though, if they were not, for longer than their patience.
        """
        absence = now - self._last_tick
        self._last_tick = now
        if absence <= self.job.silence_s / 2:
            return []
        for state in self._tasks.values():
            state.last_heard = min(now, state.last_heard + absence)
            state.due += absence
        for host, heard in self._agents.items():
            if heard is not None:
                self._agents[host] = min(now, heard + absence)
        for wait in [*self._meetings.waits(), *filter(None, [self._joining])]:
            wait.since = min(now, wait.since + absence)
        self._start_clock = min(now, self._start_clock + absence)
        self._deadline += absence
        self._suspend_deadline += absence
        if absence <= self.job.silence_s or self.phase not in (STARTING, RUNNING):
            return []
        text = f"this machine slept, or launch.py was stopped, for {absence:.0f} s; agents that "
        text += f"were awake give up after {self.job.silence_s:.0f} s (--heartbeat-timeout)"
        return [Notice(now, text)]

    def _look_for_silence(self, now: float) -> List[Action]:
        limit_s = self.job.silence_s
        lost = self._lose_hosts(self._silent_hosts(now), now)
        if lost:
            return lost
        actions: List[Action] = []
        for state in self._tasks.values():
            silent_s = now - state.last_heard
            is_present = state.joined is not None and not state.ended and not state.is_gone
            if not is_present or silent_s <= limit_s:
                continue
            text = f"{state.where} has not been heard for {silent_s:.0f} s"
            if state.is_stopped:
                return self._fail(f"{text}: its process {state.pid} is stopped", 1, now)
            if silent_s > self.job.timeout_s:
                return self._fail(f"{text}: its process {state.pid} hangs", 1, now)
            if not state.was_warned:  # its Python may be in a long call that lets no thread run
                state.was_warned = True
                actions.append(Notice(now, f"{text}; its process {state.pid} still runs"))
        return actions

    def _silent_hosts(self, now: float) -> Dict[int, float]:
        """Seconds of silence of each host that should have been heard twice meanwhile."""
        gone = self._agents_ended | self._lost
        silent_s = {h: now - t for h, t in self._agents.items() if t is not None and h not in gone}
        return {host: s for host, s in silent_s.items() if s > self.job.silence_s / 2}

    def _also_silent(self, now: float) -> str:
        """What a failure elsewhere may come from."""
        return "".join(
            f"; the agent on {self._names[host]} has not been heard for {silent_s:.0f} s"
            for host, silent_s in self._silent_hosts(now).items()
        )

    def _lose_hosts(self, silent: Dict[int, float], now: float) -> List[Action]:
        """Give silent hosts up, {number: seconds}, if it has been for too long for one of them."""
        if not silent or max(silent.values()) <= self.job.silence_s:
            return []
        names = ", ".join(self._names[host] for host in silent)
        seconds, plural = max(silent.values()), len(silent) > 1
        text = f"the agent{'s' * plural} on {names} {'have' if plural else 'has'} not been heard "
        text += f"for {seconds:.0f} s: host down, network cut, or agent stopped"
        if plural and len(silent) == len(self._agents):
            text += "; as it is all of them, look at this machine's own network first"
        self._lost |= set(silent)
        for host in silent:
            for state in self._of_host(host):
                state.ended = True
        stop = self._fail(text, 1, now) or self._continue_stopping(now)
        return stop + self._release_workers(f"the agent on {names}")

    def _look_for_starters(self, now: float) -> List[Action]:
        """Tell a user who sees nothing why that is."""
        if self.phase != STARTING or self._has_waited or now - self._start_clock < PATIENCE_S:
            return []
        self._has_waited = True
        hosts = [host for host, heard in self._agents.items() if not heard]
        late = [f"the agent on {self._names[host]}" for host in hosts]
        late += [s.task.name for s in self._of_role("server") if s.joined is None]
        workers = self._of_role("worker")
        absent = [s.task.name for s in workers if s.joined is None and not s.ended]
        return self._tell(now, news.waiting(late, absent))

    def _tell(self, now: float, text: str) -> List[Action]:
        """What a user may do without."""
        return [] if self.job.is_quiet else [Notice(now, text)]

    def _look_for_late_starters(self, now: float) -> List[Action]:
        limit_s = min(self.job.start_s, self.job.timeout_s)
        if self.phase != STARTING or now - self._start_clock < limit_s:
            return []
        late = [f"the agent on {self._names[h]}" for h, t in self._agents.items() if not t]
        late += [s.where for s in self._of_role("server") if s.joined is None]
        if not late:
            return []
        return self._fail(f"{', '.join(late)} did not come up in {limit_s:.0f} s", 1, now)

    def _look_for_goodbyes(self, now: float) -> List[Action]:
        """Those that workers have left without, and those after which a command still runs."""
        actions: List[Action] = []
        for state in self._of_role("worker"):
            if state.ended or now <= state.due:
                continue
            if state.exited is not None:
                return actions + self._on_exited(state, state.exited, now)
            if now <= state.due + _GOODBYE_S:  # its agent was to end it
                continue
            if state.own_code:
                text = f"{state.where} failed with code {state.own_code}; its command still runs"
                return actions + self._fail(text, state.own_code, now)
            seconds = now - state.due + self._goodbye_limit_s(0)
            state.due = math.inf  # the command may go on for as long as it likes
            text = f"{state.where} has said that it is done, {seconds:.0f} s ago, but its command "
            text += f"still runs (process {state.pid} there); Ctrl-C ends the job"
            actions.append(Notice(now, text))
        return actions

    def _goodbye_limit_s(self, code: int) -> float:
        """For a process to be gone after its goodbye."""
        return self.job.grace_s if code else min(self.job.timeout_s, _TEARDOWN_S)

    def _look_for_late_enders(self, now: float) -> List[Action]:
        if now < self._deadline:
            return []
        started = [s for s in self._tasks.values() if s.task.host in self._started]
        late = ", ".join(s.task.name for s in started if not s.ended)
        say: List[Action] = [Notice(now, f"{late} did not end in time")] if late else []
        return say + self._finish(now)

    def _look_for_late_arrivals(self, now: float) -> List[Action]:
        waits = self._meetings.waits()
        if self.phase == STARTING and self._joining is not None:
            joined = [s.task.rank for s in self._of_role("worker") if s.joined is not None]
            self._joining.arrived = dict.fromkeys(joined, b"")
            waits.append(self._joining)
        actions: List[Action] = []
        for wait in waits:
            seconds = now - wait.since
            missing = ", ".join(
                s.where
                for s in self._of_role("worker")
                if s.task.rank not in wait.arrived and not s.ended
            )
            waiting = ", ".join(f"worker {rank}" for rank in sorted(wait.arrived))
            text = f"{waiting} waited {seconds:.0f} s for {missing} to {wait.what}"
            if seconds >= self.job.timeout_s:
                hint = "; see its log, or raise --timeout if it only needs longer"
                return self._fail(text + hint, 1, now)
            if seconds >= STALL_WARNING_S and not wait.was_told:
                wait.was_told = True
                actions.append(Notice(now, text))
        return actions

    # -- stopping -----------------------------------------------------------------------------

    def _fail(
        self, text: str, exit_code: int, now: float, grace_s: Optional[float] = None
    ) -> List[Action]:
        if self.phase not in (STARTING, RUNNING):
            return []
        self._exit_code = exit_code
        self._has_failed = True
        others = sum(s.task.host in self._started and not s.ended for s in self._tasks.values())
        what = f"; stopping {others} other task{'s' * (others > 1)}" if others else ""
        end = f"exit code {exit_code}{what}; logs are in {self.job.log_dir}"
        return [Notice(now, text), Notice(now, end), *self._stop(signal.SIGTERM, now, grace_s)]

    def _stop(self, signum: int, now: float, grace_s: Optional[float] = None) -> List[Action]:
        """Begin to stop: workers first, which may still need the servers to save their work.

        ``grace_s`` is theirs, if it is not the job's.
        """
        self.phase = STOPPING
        for host in self._hellos:  # of which nothing was started
            for state in self._of_host(host):
                state.ended = True
        for state in self._tasks.values():
            state.ended |= state.exited is not None
        self._stop_signal = signum
        self._grace_s = self.job.grace_s if grace_s is None else grace_s
        self._deadline = now + self._grace_s + self.job.grace_s + 5.0
        return self._continue_stopping(now)

    def _continue_stopping(self, now: float) -> List[Action]:
        if self.phase != STOPPING:
            return []
        for role, signum in (("worker", self._stop_signal), ("server", int(signal.SIGTERM))):
            if all(s.ended for s in self._of_role(role)):
                continue
            if self._stopping_role == role:
                return []
            self._stopping_role = role
            grace_s = self._grace_s if role == "worker" else self.job.grace_s
            stop = messages.StopTasks(role, signum, grace_s)
            # An agent that never said hello has started nothing.
            return [
                Send(f"agent-{host}", stop) if heard else ReleaseAgent(host)
                for host, heard in self._agents.items()
            ]
        if len(self._agents_ended | self._lost) == len(self._agents):
            return self._finish(now)
        if self._stopping_role == "agent":
            return []
        self._stopping_role = "agent"
        self._deadline = now + self.job.grace_s
        return [ReleaseAgent(host) for host in self._agents]

    def _release_workers(self, ended: str) -> List[Action]:
        """``ended`` has, in a job that stops: nothing that workers wait for will come now.

        One that waits inside MXNet would not even notice a signal.
        """
        abort = messages.Abort(f"the job is stopping, and {ended} has ended")
        return [
            Send(s.task.slug, abort)
            for s in self._of_role("worker")
            if s.joined is not None and not s.ended
        ]

    def _finish(self, now: float) -> List[Action]:
        self.phase = OVER
        tell: List[Action] = []
        if not self._has_failed:
            tell = self._tell(now, news.ended(self.job, self._exit_code, now - self._start))
        kill: List[Action] = []
        if len(self._agents_ended) < len(self._agents):
            kill = [Kill(frozenset(self._lost))]
        return [*kill, *tell, Finish(self._exit_code)]

    # -- the tasks ---------------------------------------------------------------------------

    def _of_role(self, role: str) -> List[TaskState]:
        return [s for s in self._tasks.values() if s.task.role == role]

    def _of_host(self, host: int) -> List[TaskState]:
        return [s for s in self._tasks.values() if s.task.host == host]
