"""Grid Engine: an array job with a task for each agent.

qsub submits a script (deploy/templates/sge.sh.j2, or the user's). Our options on its command line
override those in a template. qstat reports the state of the tasks until they are over. After that,
only their output tells whether agents ended by themselves or the job was ended from outside.

Every cell runs array jobs, while parallel environments differ from site to site. The tasks of an
array may start one by one, or two on one host; both work. To get all hosts at once, submit a script
to a parallel environment that runs launch.py --launcher mpi.
"""

import os
import pwd
import re
import shlex
import signal
import time
import xml.etree.ElementTree as ElementTree
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from baryon.ps import PeerError, UsageError
from baryon.scheduler.agent import agent_argv
from baryon.scheduler.control import Job

from ..flags import Options
from .batch import BatchCluster
from .manager import SUBMIT_LIMIT_S, call
from .submission import (
    CANCELLED_CODE,
    Files,
    description,
    job_files,
    launch_address,
    render,
    require_commands,
    split_extra,
    write_script,
)
from .watch import OVER, QUEUED, RUNNING, TIME_LIMIT_CODE, Status, Watch

__all__ = ["allocated_hosts", "prepare", "preview"]

_INDEX = "BARYON_AGENT"
_SPECIAL = ",:$\n"
"""Characters with a meaning for Grid Engine in a path: separators, variables, line ends."""

_ENDED = re.compile(r"baryon: agent (\d+) (ended with code \d+)")


def prepare(job: Job, options: Options, say: Callable[[str], None]) -> Tuple[Job, BatchCluster]:
    """Find out how hosts reach this machine, and make the script.

    Raises UsageError if Grid Engine's commands are missing or an option is wrong, PeerError if its
    qmaster does not answer.
    """
    require_commands(
        ("qsub", "qstat", "qdel", "qconf"),
        "run launch.py where you submit jobs to Grid Engine, with its settings.sh sourced",
    )
    start = _start(job, options)
    hosts = [] if job.interfaces else call(["qconf", "-sel"]).split()
    address = launch_address(job.interfaces, hosts)
    watch = Watch(options.queue_timeout, options.time_margin, time.monotonic)
    return job, BatchCluster(Sge(start), start.files.configs, address, watch, say)


def preview(job: Job, options: Options) -> str:
    """The script, and the command that would submit it."""
    start = _start(job, options)
    return description(start.files.script, start.script, start.qsub)


def allocated_hosts(environ: Mapping[str, str]) -> int:
    """0: even inside a job of Grid Engine, another one is submitted."""
    return 0


class _Start(NamedTuple):
    """How the agents are started: by a ``script`` that ``qsub`` submits."""

    script: str
    qsub: List[str]
    files: Files
    num_hosts: int
    limit_s: Optional[float]


def _start(job: Job, options: Options) -> _Start:
    files = job_files(job, options, "sge")
    special = set(_SPECIAL) & set(files.directory)
    if special:
        raise UsageError(
            f"Grid Engine cannot write to {files.directory!r}, because of the {special.pop()!r}; "
            "use --job-dir"
        )
    if options.cpus_per_worker and not options.pe:
        raise UsageError(
            "--cpus-per-worker needs --pe NAME: CPUs are slots, and a parallel environment keeps "
            "those of an agent on one host (qconf -spl lists them; many sites have smp)"
        )
    num_hosts = len({task.host for task in job.tasks})
    python = options.python or job.python
    agent = shlex.join(agent_argv(python, configs=files.configs, index_from=_INDEX))
    agent = f"{_INDEX}=$((SGE_TASK_ID - 1)) {agent}"
    script = render(options, "sge.sh.j2", job=job, num_hosts=num_hosts, agent=agent)
    qsub = ["qsub", "-terse", "-t", f"1-{num_hosts}", "-cwd", "-S", "/bin/bash", "-notify"]
    qsub += ["-r", "n", "-j", "y", "-o", f"{files.output}.$TASK_ID", *_options(job, options)]
    qsub += [*split_extra(options), files.script]
    return _Start(script, qsub, files, num_hosts, parse_seconds(options.time or ""))


def _options(job: Job, options: Options) -> List[str]:
    """launch.py's flags as options of qsub."""
    slots = job.hosts[0].slots
    gpus = options.gpus_per_worker
    given = [
        ("-N", _name(options.job_name or job.title)),
        ("-q", options.queue),
        ("-A", options.account),
        ("-l", options.time and f"h_rt={options.time}"),
        # Not h_vmem: it limits address space, and MXNet and CUDA reserve far more than they use.
        ("-l", options.mem and f"mem_free={options.mem}"),
        ("-l", gpus and f"gpu={gpus * slots}"),
        ("-l", options.constraint),
        ("-M", options.mail),
        ("-m", options.mail and "ea"),
    ]
    words = [word for flag, value in given if value for word in (flag, value)]
    if options.pe:
        words += ["-pe", options.pe, str((options.cpus_per_worker or 1) * slots)]
    return words


def _name(text: str) -> str:
    """A name that Grid Engine accepts: no leading digit, and none of these characters."""
    name = re.sub(r"[\s/:@\\*?\x00-\x1f]", "_", text)
    return f"_{name}" if name[:1].isdigit() else name


class Sge:
    """An array job. A Manager (manager.py)."""

    name = "Grid Engine"

    def __init__(self, start: _Start) -> None:
        self.outputs: Sequence[str] = [
            f"{start.files.output}.{number}" for number in range(1, start.num_hosts + 1)
        ]
        self._start = start
        self._id = ""
        self._reasons: Dict[str, str] = {}
        self._started: Optional[float] = None  # wall-clock time, as in qstat

    def submit(self) -> str:
        write_script(self._start.files.script, self._start.script)
        try:
            answer = call(self._start.qsub, SUBMIT_LIMIT_S)
        except PeerError as error:
            words = str(error).replace("; Exiting.", "")
            raise PeerError(f"did not take the job: {words}") from error
        found = re.search(r"^(\d+)\.\d+-\d+:\d+$", answer, re.MULTILINE)  # beside what a site says
        if found is None:
            raise PeerError(f"did not tell the job's number: {answer.strip()}")
        self._id = found[1]
        return f"Grid Engine job {self._id}"

    def status(self) -> Status:
        user = pwd.getpwuid(os.getuid()).pw_name
        text = call(["qstat", "-xml", "-g", "d", "-u", user])
        tasks = [task for task in parse_tasks(text) if task.job_id == self._id]
        if not tasks:
            return self._end()
        if any("E" in task.state for task in tasks):
            why = "; ".join(self._messages("QIM_message").values())
            self.cancel()  # otherwise it stays for ever
            return Status(OVER, f"could not start: {why}")
        waiting = sum(not task.host for task in tasks)
        if waiting:
            words = self._why_it_waits()
            if waiting < self._start.num_hosts:
                words = f"{waiting} of {self._start.num_hosts} agents have no slot: {words}"
            return Status(QUEUED, words)
        self._started = min(task.start for task in tasks)
        hosts = ", ".join(dict.fromkeys(task.host for task in tasks))
        return Status(RUNNING, hosts, self._left_s())

    def cancel(self) -> None:
        try:
            call(["qdel", self._id])
        except PeerError as error:
            if "does not exist" not in str(error):  # it is over
                raise

    def ended_agents(self, line: str) -> List[Tuple[int, str]]:
        return parse_ended(line)

    def _messages(self, tag: str) -> Dict[str, str]:
        return parse_messages(call(["qstat", "-xml", "-j", self._id]), tag)

    def _why_it_waits(self) -> str:
        found = self._messages("MES_message")
        if found.keys() != self._reasons.keys():  # otherwise only numbers have changed
            self._reasons = found
        return "; ".join(self._reasons.values()) or f"qalter -w p {self._id} may say why"

    def _left_s(self) -> Optional[float]:
        if self._start.limit_s is None or self._started is None:
            return None
        return self._start.limit_s - (time.time() - self._started)

    def _end(self) -> Status:
        left_s = self._left_s()
        if left_s is not None and left_s <= 0:
            return Status(OVER, "has reached its time limit", exit_code=TIME_LIMIT_CODE)
        if any(map(_has_ended_by_itself, self.outputs)):
            return Status(OVER, "is over: its agents have ended")
        how = "was deleted from outside, as by qdel"
        return Status(OVER, how, exit_code=CANCELLED_CODE)


def _has_ended_by_itself(path: str) -> bool:
    """Whether, according to its output, an agent ended without a request of Grid Engine's."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            ends = [how for line in file for _, how in parse_ended(line)]
    except OSError:
        return False
    return bool(ends) and f"ended with code {128 + signal.SIGUSR2}" not in ends


class Task(NamedTuple):
    """A task of an array: ``state`` in Grid Engine's letters, and, once it has a slot, its ``host``
    and the time of its ``start``."""

    job_id: str
    state: str
    host: str = ""
    start: float = 0.0


def parse_tasks(xml: str) -> List[Task]:
    """All tasks that ``qstat -xml -g d`` lists."""
    tasks = []
    for item in _parsed(xml).iter("job_list"):
        queue, start = item.findtext("queue_name", ""), item.findtext("JAT_start_time")
        seconds = time.mktime(time.strptime(start, "%Y-%m-%dT%H:%M:%S")) if start else 0.0
        host = queue.partition("@")[2]
        job_id, state = item.findtext("JB_job_number", ""), item.findtext("state", "")
        tasks.append(Task(job_id, state, host, seconds))
    return tasks


def parse_messages(xml: str, tag: str) -> Dict[str, str]:
    """One message of each kind in ``qstat -xml -j``, by kind. Messages that differ only in names,
    numbers and times are of one kind."""
    found: Dict[str, str] = {}
    for element in _parsed(xml).iter(tag):
        text = (element.text or "").strip()
        found.setdefault(re.sub(r'"[^"]*"|\d[\d.:/]*\w?', "", text), text)
    return found


def _parsed(xml: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise PeerError(f"qstat's answer cannot be read: {error}") from error


def parse_seconds(text: str) -> Optional[float]:
    """The seconds of [[H:]M:]S, or None for INFINITY and for text that is not a time."""
    if not re.fullmatch(r"(\d*:){0,2}\d*", text) or not text.strip(":"):
        return None
    seconds = 0
    for part in text.split(":"):
        seconds = 60 * seconds + int(part or 0)
    return float(seconds)


def parse_ended(line: str) -> List[Tuple[int, str]]:
    """(number, how it ended) of the agent whose end this line of our script reports."""
    found = _ENDED.match(line)
    return [(int(found[1]), found[2])] if found else []
