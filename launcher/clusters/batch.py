"""What cluster managers have in common: one submission starts all agents of a job.

`BatchCluster` is the Cluster; a `Manager` knows one manager's commands. These may take seconds, so
a thread of its own ("batch-NAME") submits, asks how the job is, and cancels it. It leaves what it
finds in two attributes and a deque; everything else runs in the scheduler's thread, which calls the
manager only to cancel while that thread hangs. What the answers mean for the job is decided in
watch.py.

Each agent's configuration, with its keys, lies in a file of mode 0600, in a directory of mode 0700
on a file system that the hosts share, until the agent has read it. No command line, environment or
script has it.
"""

import functools
import os
import shutil
import subprocess
import threading
import time
from collections import deque
from typing import (
    AbstractSet,
    Callable,
    Deque,
    Dict,
    List,
    Optional,
    Protocol,
    Sequence,
    Set,
    Tuple,
)

from baryon.ps import PeerError
from baryon.scheduler import Cluster, Trouble
from baryon.scheduler.agent import config_name
from baryon.scheduler.control import AgentConfig, Job

from .watch import OVER, QUEUED, Status, Watch

__all__ = ["SUBMIT_LIMIT_S", "BatchCluster", "Manager", "call"]

COMMAND_LIMIT_S = 30.0  # for one command of a manager
SUBMIT_LIMIT_S = 300.0  # they try again by themselves when the manager is busy
_KILL_LIMIT_S = 15.0
_REMOVE_LIMIT_S = 10.0
_HURRY_S = 0.3
_INTERVALS_S = {QUEUED: 10.0, OVER: 0.0}  # between two questions, at most; others: _RUNNING_S
_RUNNING_S = 2.0
_FIRST_S = 0.5
_MANAGER_S = 5.0  # until it says what it has done, longest: agents notice sooner
_ASK_AGAIN = 2  # times, until an answer is of later than now: the next may be under way


class Manager(Protocol):
    """One job of a cluster manager. One thread calls all methods, and they may block for a while;
    `cancel` may be called by another thread while one of them blocks, but never twice at a time.

    ``name`` is what people call the manager; ``outputs`` are the paths of the files into which the
    job writes what it and its agents have to say outside the control plane.
    """

    name: str
    outputs: Sequence[str]

    def submit(self) -> str:
        """Have the agents started; returns what the job is called, as ``Slurm job 12``.

        Raises PeerError with the manager's own words if it does not want to.
        """

    def status(self) -> Status:
        """How the job is. Raises PeerError if the manager does not answer."""

    def cancel(self) -> None:
        """End it at once. Raises PeerError if that cannot be had."""

    def ended_agents(self, line: str) -> List[Tuple[int, str]]:
        """(host number, how it ended) of the agents of whose end a line of the output tells."""


def call(argv: Sequence[str], limit_s: float = COMMAND_LIMIT_S) -> str:
    """What a manager's command writes to its standard output.

    Raises PeerError with what it says if it fails or takes too long.
    """
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limit_s,
            start_new_session=True,  # Ctrl-C is for launch.py
        )
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"{argv[0]} did not end in {limit_s:.0f} s") from error
    except OSError as error:
        raise PeerError(f"{argv[0]}: {error.strerror}") from error
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip()  # Grid Engine's is on the latter
        words = "; ".join(said.decode(errors="replace").splitlines())
        raise PeerError(words or f"{argv[0]} exited with code {done.returncode}")
    return done.stdout.decode(errors="replace")


class BatchCluster(Cluster):
    """The hosts of one job of a manager; ``directory`` is where agents find their configurations.

    ``address`` is this machine's, as hosts reach it. ``say`` tells the user something.
    ``is_for_good``: there is nothing to submit again, as within an allocation.
    """

    def __init__(
        self,
        manager: Manager,
        directory: str,
        address: str,
        watch: Watch,
        say: Callable[[str], None],
        is_for_good: bool = False,
    ) -> None:
        self._manager = manager
        self._is_for_good = is_for_good
        self._has_lost_hosts = False
        self._is_killed = False
        self._asked_at_release = 0
        self._end_is_told_at = 0.0
        self._directory = directory
        self._address = address
        self._watch = watch
        self._say = say
        self._configs: Dict[int, bytes] = {}
        self._running: List[int] = []  # hosts whose agents have not ended
        self._ended: List[Tuple[int, str]] = []  # what the output has said of agents since
        self._released: Set[int] = set()
        self._trouble: Optional[Trouble] = None
        self._job: Optional[_BatchJob] = None

    def scheduler_address(self, job: Job, host: int) -> str:
        return self._address

    def start(self, job: Job, host: int, config: AgentConfig) -> None:
        self._configs[host] = config.line()
        if self._configs.keys() == {task.host for task in job.tasks}:
            self._running = sorted(self._configs)
            self._write_configs()
            self._job = _BatchJob(self._manager)

    def name(self) -> Optional[str]:
        return self._job.name if self._job is not None and self._job.is_taken else None

    def is_queued(self) -> bool:
        return self._job is not None and self._job.status.phase == QUEUED

    def trouble(self) -> Optional[Trouble]:
        self._look()
        trouble, self._trouble = self._trouble, None
        return trouble

    def ended(self) -> List[Tuple[int, str]]:
        ended: List[Tuple[int, str]] = []
        if time.monotonic() >= self._end_is_told_at:
            ended, self._ended = self._ended, []
        if self._job is not None and self._job.status.phase == OVER:
            ended += [(host, "ended") for host in self._running]
        if self._job is not None and self._has_unstarted(self._job):
            ended += [(host, "was not started") for host in sorted(self._released)]
            if self._released == self._configs.keys():
                self._job.hurry(cancel=True)
        seen = dict(reversed(ended))  # the first word about each counts
        news = [(host, how) for host, how in seen.items() if host in self._running]
        self._running = [host for host in self._running if host not in seen]
        return news

    def was_interrupted(self) -> bool:
        self._look()  # the manager's last word
        return not self._is_for_good and (self._watch.was_interrupted or self._has_lost_hosts)

    def release(self, host: int) -> None:
        self._released.add(host)
        if self._job is None:
            return
        self._asked_at_release = self._job.num_asked + _ASK_AGAIN
        if self._released == self._configs.keys():
            self._watch.is_ending = True
        self._job.hurry()

    def kill(self, lost: AbstractSet[int] = frozenset()) -> None:
        self._has_lost_hosts |= bool(lost)
        if self._is_killed:
            return
        self._is_killed = self._watch.is_ending = True
        if self._job is not None:
            self._job.hurry(cancel=True)
            problem = self._job.end()
            if problem:
                self._say(problem)
        self._remove_configs()

    def _remove_configs(self) -> None:
        """They have keys; where they lie, a disk may stall."""
        remove = functools.partial(shutil.rmtree, self._directory, ignore_errors=True)
        thread = threading.Thread(target=remove, name="batch-remove", daemon=True)
        thread.start()
        thread.join(_REMOVE_LIMIT_S)
        if thread.is_alive():
            self._say(f"{self._directory} could not be removed in time; it has this job's keys")

    def _has_unstarted(self, job: "_BatchJob") -> bool:
        """Whether hosts were released that have no agent, and never will have: then none is waited
        for. What the manager said before they were may be out of date."""
        is_fresh = job.num_asked >= self._asked_at_release
        return bool(self._released) and job.status.phase == QUEUED and is_fresh

    def _look(self) -> None:
        if self._job is None:
            return
        job, status = self._job, self._job.status  # first: the output is complete up to it
        while job.lines:
            line, ended_agents = job.lines.popleft()
            if not job.is_cancelled:
                self._say(line)
                self._note(ended_agents)
        says, trouble = self._watch.on_status(job.name, status, job.silence)
        for text in says:
            self._say(text)
        if trouble is not None:
            self._trouble = trouble

    def _note(self, ended: List[Tuple[int, str]]) -> None:
        """Agents have ended: by themselves, or by the manager, whose word is to come first."""
        if ended and not self._ended and self._job is not None:
            self._end_is_told_at = time.monotonic() + _MANAGER_S
            self._job.hurry()
        self._ended += ended

    def _write_configs(self) -> None:
        try:
            os.makedirs(self._directory, mode=0o700)
            for host, line in self._configs.items():
                path = os.path.join(self._directory, config_name(host))
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with open(descriptor, "wb") as file:
                    file.write(line)
        except OSError as error:
            raise PeerError(
                f"{error.filename or self._directory}: {error.strerror}; --job-dir names another "
                "place for what agents need"
            ) from error


class _BatchJob:
    """Submits a job, and follows it to its end, in a thread of its own.

    ``status`` is the manager's last answer, ``silence`` why there is none since then, ``num_asked``
    how often it has been asked, and ``lines`` what the job has written, each with what it tells of
    agents that have ended.
    """

    def __init__(self, manager: Manager) -> None:
        self.name = manager.name
        self.is_taken = False
        self.status = Status(QUEUED)
        self.num_asked = 0
        self.silence = ""
        self.lines: Deque[Tuple[str, List[Tuple[int, str]]]] = deque()
        self._manager = manager
        self._wake = threading.Event()
        self._is_hurried = False
        self.is_cancelled = False
        self._is_told = False
        self._cancelling = threading.Lock()
        self._outputs = [_Output(path) for path in manager.outputs]
        self._thread = threading.Thread(target=self._run, name=f"batch-{manager.name}", daemon=True)
        self._thread.start()

    def hurry(self, cancel: bool = False) -> None:
        """The end is near: ask often. ``cancel``: bring it about."""
        self._is_hurried = True
        self.is_cancelled |= cancel
        self._wake.set()

    def end(self) -> str:
        """Wait for the end of a job that is cancelled; says what is wrong if that takes too long.

        A command that hangs must not keep it from being cancelled.
        """
        self._thread.join(_KILL_LIMIT_S)
        if not self._thread.is_alive():
            return ""
        if not self.is_taken:
            self._thread.join(COMMAND_LIMIT_S)
        if not self.is_taken:
            return f"{self.name} has not said yet whether it takes the job: look whether it has"
        try:
            self._cancel_once()
        except PeerError as error:
            return f"{self.name} has not ended yet; its manager could not be told to: {error}"
        return f"{self.name} has not ended yet; its manager has been told to"

    def _cancel_once(self) -> None:
        with self._cancelling:  # for as long as a command takes at most
            if not self._is_told:
                self._manager.cancel()
                self._is_told = True

    def _run(self) -> None:
        try:
            self._follow()
        except Exception as error:  # of ours, or an answer that nobody has thought of
            words = f"cannot be followed any more, by {error!r}"
            try:
                self._cancel_once()
            except Exception as second:
                words += f", nor be cancelled, by {second!r}"
            self.status = Status(OVER, words)

    def _follow(self) -> None:
        try:
            self.name, self.is_taken = self._manager.submit(), True
        except PeerError as error:
            self.status = Status(OVER, str(error))
            return
        interval_s = _FIRST_S
        while self.status.phase != OVER:
            try:
                if self.is_cancelled:
                    self._cancel_once()
                status = self._manager.status()
                for output in self._outputs:  # before the last status, which nothing follows
                    for line in output.new_lines():
                        self.lines.append((line, self._manager.ended_agents(line)))
                self.status, self.silence = status, ""
            except PeerError as error:
                self.silence = str(error)
            self.num_asked += 1
            limit_s = _INTERVALS_S.get(self.status.phase, _RUNNING_S)
            interval_s = min(1.5 * interval_s, limit_s)
            self._wake.wait(_HURRY_S if self._is_hurried else interval_s)
            self._wake.clear()


class _Output:
    """A file that grows from nothing: that of an earlier job is removed."""

    def __init__(self, path: str) -> None:
        if os.path.isfile(path):
            os.unlink(path)
        self._path = path
        self._nread = 0
        self._rest = b""  # a line that is not over

    def new_lines(self) -> List[str]:
        try:
            with open(self._path, "rb") as file:
                file.seek(self._nread)
                data = file.read()
        except OSError:
            return []  # nothing yet
        self._nread += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode(errors="replace") for line in lines]
