"""The Cluster of every cluster manager: one submission starts all agents of a job.

`BatchCluster` runs in the scheduler's thread. A `BatchJob` (batch_job.py) calls the manager in a
thread of its own. The two threads meet in one state (batch_state.py). watch.py decides what the
manager's answers mean for the job.

Each agent reads its configuration, with its keys, from a file that the hosts share. The file has
mode 0600, its directory has mode 0700, and the agent removes the file. The configuration never
appears in a command line, an environment or a script.
"""

import functools
import os
import shutil
import threading
import time
from typing import (
    AbstractSet,
    Callable,
    Dict,
    List,
    Optional,
    Set,
    Tuple,
)

from baryon.ps import PeerError
from baryon.scheduler import Cluster, Trouble
from baryon.scheduler.agent import config_name
from baryon.scheduler.control import AgentConfig, Job

from .batch_job import BatchJob, SharedState
from .batch_state import Wish
from .manager import Manager
from .watch import OVER, QUEUED, Watch

__all__ = ["BatchCluster"]

_REMOVE_LIMIT_S = 10.0
_MANAGER_S = 5.0  # agents notice their end up to this long before the manager says why
_ASK_AGAIN = 2  # answers after a release until one is certainly later: one may be under way


class BatchCluster(Cluster):
    """The hosts of one job of a manager. Agents find their configurations in ``directory``.

    ``address`` is the address at which hosts reach this machine. ``say`` shows the user a message.
    ``is_for_good``: the job cannot be submitted again, because it runs within an allocation.
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
        self._asked_at_release = 0
        self._end_is_told_at = 0.0
        self._directory = directory
        self._address = address
        self._watch = watch
        self._say = say
        self._configs: Dict[int, bytes] = {}
        self._running: List[int] = []  # hosts whose agents have not ended
        self._ended: List[Tuple[int, str]] = []  # reported by the output, not yet by us
        self._released: Set[int] = set()
        self._trouble: Optional[Trouble] = None
        self._state = SharedState()
        self._job: Optional[BatchJob] = None

    def scheduler_address(self, job: Job, host: int) -> str:
        return self._address

    def start(self, job: Job, host: int, config: AgentConfig) -> None:
        self._configs[host] = config.line()
        if self._configs.keys() == {task.host for task in job.tasks}:
            self._running = sorted(self._configs)
            self._write_configs()
            self._job = BatchJob(self._manager, self._state)

    def name(self) -> Optional[str]:
        return self._job.name if self._job is not None and self._state.now.is_taken else None

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
                self._state.wish(Wish.CANCEL)
        seen = dict(reversed(ended))  # the first word about each counts
        news = [(host, how) for host, how in seen.items() if host in self._running]
        self._running = [host for host in self._running if host not in seen]
        return news

    def was_interrupted(self) -> bool:
        self._look()  # the manager's last word
        return not self._is_for_good and self._watch.was_interrupted

    def release(self, host: int) -> None:
        self._released.add(host)
        if self._job is None:
            return
        self._asked_at_release = self._job.num_asked + _ASK_AGAIN
        is_last = self._released == self._configs.keys()
        self._state.wish(Wish.LET_GO if is_last else Wish.HURRY)

    def kill(self, lost: AbstractSet[int] = frozenset()) -> None:
        self._watch.was_interrupted |= bool(lost)
        if self._state.now.is_killed:
            return
        self._state.wish(Wish.KILL)
        if self._job is not None:
            problem = self._job.end()
            if problem:
                self._say(problem)
        self._remove_configs()

    def _remove_configs(self) -> None:
        """They hold keys. The disk may stall, so a thread removes them."""
        remove = functools.partial(shutil.rmtree, self._directory, ignore_errors=True)
        thread = threading.Thread(target=remove, name="batch-remove", daemon=True)
        thread.start()
        thread.join(_REMOVE_LIMIT_S)
        if thread.is_alive():
            self._say(f"{self._directory} could not be removed in time; it holds this job's keys")

    def _has_unstarted(self, job: BatchJob) -> bool:
        """Whether hosts were released that never had an agent: nothing waits for those.

        An answer counts only if it is later than the release.
        """
        is_fresh = job.num_asked >= self._asked_at_release
        return bool(self._released) and job.status.phase == QUEUED and is_fresh

    def _look(self) -> None:
        if self._job is None:
            return
        job, status = self._job, self._job.status  # first: the output is complete up to it
        while job.lines:
            line, ended_agents = job.lines.popleft()
            if not self._state.now.is_cancelled:
                self._say(line)
                self._note(ended_agents)
        says, trouble = self._watch.on_status(
            job.name, status, job.silence, self._state.now.is_ending
        )
        for text in says:
            self._say(text)
        if trouble is not None:
            self._trouble = trouble

    def _note(self, ended: List[Tuple[int, str]]) -> None:
        """Agents have ended. If the manager ended them, its reason must be told first."""
        if ended and not self._ended and self._job is not None:
            self._end_is_told_at = time.monotonic() + _MANAGER_S
            self._state.wish(Wish.HURRY)
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
