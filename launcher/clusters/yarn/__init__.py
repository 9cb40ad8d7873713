"""YARN: an application of Hadoop's own distributed shell, with an agent in each container.

resource_manager.py talks to the ResourceManager over HTTP, so this machine needs no Hadoop.
distributed_shell.py makes the request.

For YARN an application runs once its ApplicationMaster runs. For us it is queued until it has had
all its containers. The distributed shell numbers containers from 1, in YARN_SHELL_ID (Hadoop 2.8
and newer). It starts a container again only if YARN took it away. The new one has a number without
a configuration, and ends at once.
"""

import json
import os
import re
import time
from pathlib import Path
from typing import Any, Callable, List, Mapping, Optional, Sequence, Tuple, TypeVar
from urllib.parse import urlsplit

from baryon.ps import PeerError
from baryon.scheduler.control import Job

from ...flags import Options
from ..batch import BatchCluster
from ..submission import CANCELLED_CODE, launch_address, write_script
from ..watch import OVER, QUEUED, RUNNING, TIME_LIMIT_CODE, Status, Watch
from .distributed_shell import Start, make_start
from .resource_manager import Refusal, ResourceManager, read_hadoop

__all__ = ["allocated_hosts", "prepare", "preview"]

_QUEUED_STATES = ("NEW", "NEW_SAVING", "SUBMITTED", "ACCEPTED")
_LIFETIME = "exceeded the lifetime"
_NO_MASTER = "Could not find or load main class"
_MAX_WORDS = 700  # characters of diagnostics: the beginning says what, the end says why

_Read = TypeVar("_Read")


def prepare(job: Job, options: Options, say: Callable[[str], None]) -> Tuple[Job, BatchCluster]:
    """Find the ResourceManager, and make the request.

    Raises UsageError if there is no configuration that names it, or if an option is wrong.
    """
    hadoop = read_hadoop(os.environ)
    start = make_start(job, options, hadoop)
    # Nodes reach this machine at the same address as the ResourceManager.
    address = launch_address(job.interfaces, [urlsplit(hadoop.managers[0]).hostname or ""])
    watch = Watch(options.queue_timeout, options.time_margin, time.monotonic)
    manager = Yarn(start, ResourceManager(hadoop.managers), time.monotonic)
    return job, BatchCluster(manager, start.configs, address, watch, say)


def preview(job: Job, options: Options) -> str:
    """The containers' script, the request, and where it would go."""
    hadoop = read_hadoop(os.environ)
    start = make_start(job, options, hadoop)
    request = json.dumps(start.request("APPLICATION", int(time.time())), indent=2)
    rm = ResourceManager(hadoop.managers)
    return (
        f"# {start.script_path}\n{start.script}"
        f"# is run in each container by {start.command_path}\n{start.command}\n"
        f"# POST {rm.url('apps/new-application')}\n# names the APPLICATION\n"
        f"# POST {rm.url('apps')}\n{request}\n"
    )


def allocated_hosts(environ: Mapping[str, str]) -> int:
    """0: even inside a container, another application is submitted."""
    return 0


class Yarn:
    """An application. A Manager (manager.py). ``clock`` counts seconds."""

    name = "YARN"

    def __init__(self, start: Start, rm: ResourceManager, clock: Callable[[], float]) -> None:
        self.outputs: Sequence[str] = [start.output]
        self._start = start
        self._rm = rm
        self._clock = clock
        self._path = ""  # of the application, below the interface's own
        self._has_run = False
        self._deadline: Optional[float] = None

    def submit(self) -> str:
        start, now_s = self._start, int(time.time())
        write_script(start.script_path, start.script)
        try:
            Path(start.command_path).write_bytes(start.shell_commands)
            os.utime(start.command_path, (now_s, now_s))  # Java 8 sees whole seconds only
        except OSError as error:
            raise PeerError(f"has no command: {start.command_path}: {error.strerror}") from error
        try:
            answer = self._rm.ask("POST", "apps/new-application")
            application = _understood(lambda: str(answer["application-id"]))
        except PeerError as error:
            raise PeerError(f"did not take the job: {error}") from error
        self._path = f"apps/{application}"
        try:
            self._rm.ask("POST", "apps", start.request(application, now_s))
        except Refusal as error:
            raise PeerError(f"did not take the job: {error}") from error
        except PeerError as error:
            self._cancel_quietly()  # YARN may have taken it, and the answer was lost
            raise PeerError(f"did not confirm the job: {error}") from error
        return f"YARN {application}"

    def status(self) -> Status:
        try:
            answer = self._rm.ask("GET", self._path)
        except Refusal as error:
            if error.status == 404:
                return Status(OVER, "is not known to YARN any more")
            raise
        status = _understood(lambda: parse_status(answer["app"], self._start.num_hosts))
        if status.phase == RUNNING and not self._has_run:
            self._has_run = True
            self._limit_time()
        elif status.phase == QUEUED and self._has_run:
            status = Status(RUNNING, _where(self._start.num_hosts))
        if status.phase == RUNNING and self._deadline is not None:
            left_s = self._deadline - self._clock()
            if status.left_s is None or left_s < status.left_s:
                return status._replace(left_s=left_s)
        return status

    def cancel(self) -> None:
        try:
            self._rm.ask("PUT", f"{self._path}/state", {"state": "KILLED"})
        except Refusal:
            if self.status().phase != OVER:
                raise

    def _cancel_quietly(self) -> None:
        try:
            self.cancel()
        except PeerError:
            pass

    def ended_agents(self, line: str) -> List[Tuple[int, str]]:
        found = re.fullmatch(r"baryon: agent (\d+) (ended: .*)", line)
        return [(int(found[1]), found[2])] if found else []

    def _limit_time(self) -> None:
        """Start the time of --time. YARN by itself would count from the submission."""
        limit_s = self._start.time_s
        if limit_s is None:
            return
        self._deadline = self._clock() + limit_s
        expiry = time.strftime("%Y-%m-%dT%H:%M:%S.000+0000", time.gmtime(time.time() + limit_s))
        timeout = {"timeout": {"type": "LIFETIME", "expiryTime": expiry}}
        try:
            self._rm.ask("PUT", f"{self._path}/timeout", timeout)
        except Refusal:
            pass  # Hadoop before 2.9 has no such limit; we end the job ourselves


def _understood(read: Callable[[], _Read]) -> _Read:
    try:
        return read()
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PeerError(f"its answer is not a ResourceManager's: {error!r}") from error


def parse_status(app: Mapping[str, Any], num_hosts: int) -> Status:
    """The Status of the object ``app`` in an answer. Raises KeyError and the like for others."""
    state, why = app.get("state", ""), _brief(str(app.get("diagnostics") or ""))
    if state == "KILLED" and _LIFETIME in why:
        return Status(OVER, f"has reached its time limit: {why}", exit_code=TIME_LIMIT_CODE)
    if state == "KILLED":
        return Status(OVER, f"was killed from outside: {why or state}", exit_code=CANCELLED_CODE)
    if state == "FINISHED" and app.get("finalStatus") == "SUCCEEDED":
        return Status(OVER, "is over: all its containers have ended")
    if state in ("FAILED", "FINISHED"):
        return Status(OVER, f"has failed: {why or state}{_remedy(why, str(app.get('id', '')))}")
    if state in _QUEUED_STATES:
        return Status(QUEUED, f"{state}: {why}" if why else state)
    if state != "RUNNING":
        raise ValueError(f"state {state!r}")
    had = _had_containers(app, num_hosts)
    if had < num_hosts:
        return Status(QUEUED, f"RUNNING, with {had} of {num_hosts} containers")
    return Status(RUNNING, _where(num_hosts), _left_s(app))


def _where(num_hosts: int) -> str:
    return f"{num_hosts} container{'s' * (num_hosts > 1)}"


def _had_containers(app: Mapping[str, Any], num_hosts: int) -> int:
    """The number of agents' containers so far, including ended ones."""
    running = int(app.get("runningContainers", -1))
    if running < 0:
        return num_hosts  # we may not see the number
    # The distributed shell reports the share of its ended containers as its progress.
    ended = round(float(app.get("progress", 0.0)) / 100 * num_hosts)
    return max(0, running - 1) + ended  # one is the ApplicationMaster's


def _left_s(app: Mapping[str, Any]) -> Optional[float]:
    timeouts = app.get("timeouts") or {}
    listed = timeouts.get("timeout") or []
    left_s = [
        float(timeout.get("remainingTimeInSeconds", -1))
        for timeout in (listed if isinstance(listed, list) else [listed])
        if timeout.get("type") == "LIFETIME"
    ]
    return next((seconds for seconds in left_s if seconds >= 0), None)


def _brief(diagnostics: str) -> str:
    """One line of the diagnostics, without the time and figures that change all the time."""
    text = re.sub(r"\[\w{3} \w{3} \d[^\]]*\] ?", "", diagnostics).split("Details :")[0]
    line = " ".join(text.split())
    half = _MAX_WORDS // 2
    return line if len(line) <= _MAX_WORDS else f"{line[:half]} ... {line[-half:]}"


def _remedy(why: str, application: str) -> str:
    if _NO_MASTER in why:
        return (
            "; the nodes' class path lacks Hadoop's distributed shell: see "
            "yarn.application.classpath in yarn-site.xml"
        )
    return f"; yarn logs -applicationId {application}" if application else ""
