"""What cluster managers have in common: one submission starts all agents of a job.

`BatchCluster` is the Cluster; a `Manager` knows one manager's commands. These may take seconds, so
a thread of its own ("batch-NAME") submits, asks how the job is, and cancels it. It leaves what it
finds in two attributes and a deque; everything else runs in the scheduler's thread. What the
answers mean for the job is decided in watch.py.

Each agent's configuration, with its keys, lies in a file of mode 0600, in a directory of mode 0700
on a file system that the hosts share, until the agent has read it. No command line, environment or
script has it.
"""

import os
import shutil
import subprocess
import threading
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
from baryon.scheduler import AgentConfig, Cluster, Job, Trouble, config_name

from .watch import OVER, QUEUED, Status, Watch

__all__ = ["BatchCluster", "Manager", "call"]

COMMAND_LIMIT_S = 30.0  # for one command of a manager
_KILL_LIMIT_S = 15.0
_HURRY_S = 0.3
_INTERVALS_S = {QUEUED: 10.0, OVER: 0.0}  # between two questions, at most; others: _RUNNING_S
_RUNNING_S = 2.0
_FIRST_S = 0.5


class Manager(Protocol):
    """One job of a cluster manager; all methods are called by one thread, and may block.

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


def call(argv: Sequence[str]) -> str:
    """What a manager's command writes to its standard output.

    Raises PeerError with what it says if it fails or takes too long.
    """
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_LIMIT_S,
            start_new_session=True,  # Ctrl-C is for launch.py
        )
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"{argv[0]} did not end in {COMMAND_LIMIT_S:.0f} s") from error
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
    """

    def __init__(
        self,
        manager: Manager,
        directory: str,
        address: str,
        watch: Watch,
        say: Callable[[str], None],
    ) -> None:
        self._manager = manager
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
        ended, self._ended = self._ended, []
        if self._job is not None and self._job.status.phase == OVER:
            ended += [(host, "ended") for host in self._running]
        seen = dict(reversed(ended))  # the first word about each counts
        news = [(host, how) for host, how in seen.items() if host in self._running]
        self._running = [host for host in self._running if host not in seen]
        return news

    def was_interrupted(self) -> bool:
        self._look()  # the manager's last word
        return self._watch.was_interrupted

    def release(self, host: int) -> None:
        self._released.add(host)
        is_queued = self.is_queued()
        if is_queued:  # it has no agent, and where others have one it is not waited for
            self._ended.append((host, "was not started"))
        if self._job is not None and self._released == self._configs.keys():
            self._watch.is_ending = True
            self._job.hurry(cancel=is_queued)

    def kill(self, lost: AbstractSet[int] = frozenset()) -> None:
        self._watch.is_ending = True
        if self._job is not None:
            self._job.hurry(cancel=True)
            if not self._job.join():
                silence = self._job.silence
                told = f"could not be told to: {silence}" if silence else "has been told to"
                self._say(f"{self._job.name} has not ended yet; its manager {told}")
        shutil.rmtree(self._directory, ignore_errors=True)

    def _look(self) -> None:
        if self._job is None:
            return
        job, status = self._job, self._job.status  # first: the output is complete up to it
        while job.lines:
            line = job.lines.popleft()
            if not job.is_cancelled:
                self._say(line)
                self._ended += self._manager.ended_agents(line)
        says, trouble = self._watch.on_status(job.name, status, job.silence)
        for text in says:
            self._say(text)
        if trouble is not None:
            self._trouble = trouble

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

    ``status`` is the manager's last answer, ``silence`` why there is none since then, and
    ``lines`` what the job has written.
    """

    def __init__(self, manager: Manager) -> None:
        self.name = manager.name
        self.is_taken = False
        self.status = Status(QUEUED)
        self.silence = ""
        self.lines: Deque[str] = deque()
        self._manager = manager
        self._wake = threading.Event()
        self._is_hurried = False
        self.is_cancelled = False
        self._outputs = [_Output(path) for path in manager.outputs]
        self._thread = threading.Thread(target=self._run, name=f"batch-{manager.name}", daemon=True)
        self._thread.start()

    def hurry(self, cancel: bool) -> None:
        """The end is near: ask often. ``cancel``: bring it about."""
        self._is_hurried = True
        self.is_cancelled |= cancel
        self._wake.set()

    def join(self) -> bool:
        """Wait for its end; False if that takes too long."""
        self._thread.join(_KILL_LIMIT_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.name, self.is_taken = self._manager.submit(), True
        except PeerError as error:
            self.status = Status(OVER, str(error))
            return
        is_told, interval_s = False, _FIRST_S
        while self.status.phase != OVER:
            try:
                if self.is_cancelled and not is_told:
                    self._manager.cancel()
                    is_told = True
                status = self._manager.status()
                self._read_output()  # before the last status, which nothing follows
                self.status, self.silence = status, ""
            except PeerError as error:
                self.silence = str(error)
            limit_s = _INTERVALS_S.get(self.status.phase, _RUNNING_S)
            interval_s = min(1.5 * interval_s, limit_s)
            self._wake.wait(_HURRY_S if self._is_hurried else interval_s)
            self._wake.clear()

    def _read_output(self) -> None:
        for output in self._outputs:
            self.lines.extend(output.new_lines())


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
