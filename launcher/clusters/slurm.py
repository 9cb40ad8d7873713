"""Slurm: a job with one srun step that runs an agent on each node.

Outside of an allocation, sbatch submits a script (deploy/templates/slurm.sh.j2, or the user's)
whose last line is srun. Options are arguments of sbatch, not lines of the script: arguments need no
quoting, and override a template's lines. Inside an allocation (salloc, or the user's own job), srun
is started on this machine. squeue reports the job's state, and lists a finished job for MinJobAge.
"""

import os
import re
import shlex
import time
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import msgspec

from baryon.ps import PeerError, UsageError
from baryon.scheduler.agent import agent_argv
from baryon.scheduler.control import Job

from ..flags import Options
from .batch import BatchCluster
from .manager import SUBMIT_LIMIT_S, call
from .submission import (
    CANCELLED_CODE,
    Files,
    Step,
    description,
    job_files,
    launch_address,
    render,
    require_commands,
    split_extra,
    write_script,
)
from .watch import OVER, QUEUED, RUNNING, TIME_LIMIT_CODE, Status, Watch

__all__ = ["allocated_hosts", "node_names", "prepare", "preview"]

_PREEMPTED = ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL")
_QUEUED_STATES = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")
_OVER_STATES: Dict[str, Tuple[str, int]] = {
    "COMPLETED": ("is over: all its agents have ended", 1),
    "CANCELLED": ("was cancelled from outside, as by scancel", CANCELLED_CODE),
    "FAILED": ("has failed", 1),
    "TIMEOUT": ("has reached its time limit", TIME_LIMIT_CODE),
    "DEADLINE": ("has reached its deadline", TIME_LIMIT_CODE),
    "PREEMPTED": ("was preempted by another job", CANCELLED_CODE),
    "NODE_FAIL": ("has lost a node", 1),
    "BOOT_FAIL": ("could not boot its nodes", 1),
    "OUT_OF_MEMORY": ("has run out of memory", 1),
    "REVOKED": ("was revoked", 1),
}
_SQUEUE_FORMAT = "%T|%L|%N|%r"
_NO_SUCH_JOB = "Invalid job id"


def prepare(job: Job, options: Options, say: Callable[[str], None]) -> Tuple[Job, BatchCluster]:
    """Find out how nodes reach this machine, and make the script.

    Raises UsageError if Slurm's commands are missing or an option is wrong, PeerError if Slurm does
    not answer.
    """
    allocation = os.environ.get("SLURM_JOB_ID", "")
    require_commands(
        ("sbatch", "srun", "squeue", "sinfo", "scancel"),
        "run launch.py where you submit jobs to Slurm, on a login node or in an allocation",
    )
    start = _start(job, options)
    if allocation:
        nodes = node_names(os.environ)
        job = _named(job, nodes)
        manager: Slurm = SlurmStep(start, allocation)
        place = ["-n", ",".join(nodes)]
    else:
        manager = Slurm(start)
        place = ["-p", options.queue] if options.queue else []
    address = launch_address(job.interfaces, [] if job.interfaces else _node_addresses(place))
    watch = Watch(options.queue_timeout, options.time_margin, time.monotonic)
    is_for_good = bool(allocation)
    return job, BatchCluster(manager, start.files.configs, address, watch, say, is_for_good)


def preview(job: Job, options: Options) -> str:
    """The script and the command that would submit it, or the command alone in an allocation."""
    start = _start(job, options)
    if "SLURM_JOB_ID" in os.environ:
        return f"# in allocation {os.environ['SLURM_JOB_ID']}\n{shlex.join(start.srun)}\n"
    return description(start.files.script, start.script, start.sbatch)


def allocated_hosts(environ: Mapping[str, str]) -> int:
    """The number of nodes in the allocation that this process runs in; 0 outside of one."""
    return int(environ.get("SLURM_JOB_NUM_NODES", 0)) if "SLURM_JOB_ID" in environ else 0


class _Start(msgspec.Struct, frozen=True):
    """How the agents are started: ``srun``, in a ``script`` that ``sbatch`` submits."""

    srun: List[str]
    script: str
    sbatch: List[str]
    files: Files


def _start(job: Job, options: Options) -> _Start:
    files = job_files(job, options, "slurm")
    if "\\" in files.directory:
        raise UsageError(
            f"Slurm cannot write to {files.directory}, because of the \\; use --job-dir"
        )
    num_hosts = len({task.host for task in job.tasks})
    srun = ["srun", *_layout(num_hosts), f"--ntasks={num_hosts}"]
    srun += ["--kill-on-bad-exit=0", "--wait=0", "--cpu-bind=none", "--input=none", "--overlap"]
    python = options.python or job.python
    srun += agent_argv(python, configs=files.configs, index_from="SLURM_PROCID")
    sbatch = ["sbatch", "--parsable", "--no-requeue", *_layout(num_hosts)]
    sbatch += [f"--output={files.output.replace('%', '%%')}", *_options(job, options)]
    sbatch += [*split_extra(options), files.script]
    script = render(options, "slurm.sh.j2", job=job, num_hosts=num_hosts, srun=shlex.join(srun))
    return _Start(srun, script, sbatch, files)


def _layout(num_hosts: int) -> List[str]:
    return [f"--nodes={num_hosts}", "--ntasks-per-node=1"]


def _options(job: Job, options: Options) -> List[str]:
    """launch.py's flags as options of sbatch."""
    slots = job.hosts[0].slots
    cpus, gpus = options.cpus_per_worker, options.gpus_per_worker
    given = {
        "job-name": options.job_name or job.title,
        "partition": options.queue,
        "account": options.account,
        "time": options.time,
        "mem": options.mem,
        "cpus-per-task": cpus and str(cpus * slots),
        "gres": gpus and f"gpu:{gpus * slots}",
        "constraint": options.constraint,
        "mail-user": options.mail,
        "mail-type": options.mail and "END,FAIL",
    }
    return [f"--{name}={value}" for name, value in given.items() if value]


def _named(job: Job, nodes: List[str]) -> Job:
    """The job with its nodes' names. Raises UsageError if there are too few nodes."""
    if len(nodes) < len(job.hosts):
        raise UsageError(
            f"{job.num_workers} workers need {len(job.hosts)} hosts, and the allocation has "
            f"{len(nodes)}; leave out --workers-per-host to spread the workers evenly"
        )
    hosts = (msgspec.structs.replace(h, name=name) for h, name in zip(job.hosts, nodes))
    return msgspec.structs.replace(job, hosts=tuple(hosts))


def node_names(environ: Mapping[str, str]) -> List[str]:
    """The nodes of the allocation that this process runs in."""
    names = call(["scontrol", "show", "hostnames", environ.get("SLURM_JOB_NODELIST", "")])
    return names.split()


def _node_addresses(place: List[str]) -> List[str]:
    sinfo = ["sinfo", "-h", "-N", "-o", "%o"]
    # If the partition does not exist, sbatch will report that.
    nodes = call([*sinfo, *place]).split() or call(sinfo).split()
    if not nodes:
        raise PeerError("sinfo lists no nodes")
    return nodes


class Slurm:
    """A job that is submitted. A Manager (manager.py)."""

    name = "Slurm"

    def __init__(self, start: _Start, job_id: str = "") -> None:
        self.outputs: Sequence[str] = [start.files.output]
        self._start = start
        self._id = job_id
        self._place: List[str] = []  # the cluster, where there are several

    def submit(self) -> str:
        write_script(self._start.files.script, self._start.script)
        try:
            answer = call(self._start.sbatch, SUBMIT_LIMIT_S)
        except PeerError as error:
            raise PeerError(f"did not take the job: {error}") from error
        self._id, _, cluster = answer.strip().partition(";")
        self._place = ["-M", cluster] if cluster else []
        return f"Slurm job {self._id}"

    def status(self) -> Status:
        squeue = ["squeue", *self._place, "-h", "-t", "all", "-j", self._id, "-o", _SQUEUE_FORMAT]
        try:
            return parse_status(call(squeue))
        except PeerError as error:
            if _NO_SUCH_JOB in str(error):
                return Status(OVER, "is not known to Slurm any more")
            raise

    def cancel(self) -> None:
        call(["scancel", *self._place, self._id])

    def ended_agents(self, line: str) -> List[Tuple[int, str]]:
        return parse_ended(line)


class SlurmStep(Slurm):
    """A step in an existing allocation, run by an srun on this machine."""

    def __init__(self, start: _Start, job_id: str) -> None:
        super().__init__(start, job_id)
        self._srun: Optional[Step] = None

    def submit(self) -> str:
        self._srun = Step(self._start.srun, self._start.files.output)
        return f"the step in Slurm job {self._id}"

    def status(self) -> Status:
        assert self._srun is not None
        code = self._srun.poll()
        job = super().status()
        if code is None or job.phase == OVER:
            return job
        return Status(OVER, f"is over: srun exited with code {code}")

    def cancel(self) -> None:
        assert self._srun is not None
        self._srun.terminate()  # it ends the step


def parse_status(text: str) -> Status:
    """The Status that a line of squeue in `_SQUEUE_FORMAT` describes."""
    lines = [line for line in text.splitlines() if line and not line.startswith("CLUSTER: ")]
    state, left, nodes, reason = [*"".join(lines).split("|", 3), "", "", ""][:4]
    reason = "" if reason == "None" else reason
    if state in _OVER_STATES:
        words, code = _OVER_STATES[state]
        why = f"{state}, {reason}" if reason else state
        return Status(OVER, f"{words} ({why})", None, code, state in _PREEMPTED)
    if state in _QUEUED_STATES:
        return Status(QUEUED, reason)
    if not state:
        return Status(OVER, "is not known to Slurm any more")
    return Status(RUNNING, nodes, parse_seconds(left))


def parse_seconds(text: str) -> Optional[float]:
    """The seconds of [D-][H:]M:S, or None for UNLIMITED and the like."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def parse_ended(line: str) -> List[Tuple[int, str]]:
    """(number, how it ended) of each agent whose end this line of srun reports.

    ``srun: error: node2: tasks 1-2,4: Exited with exit code 1``
    """
    found = re.fullmatch(r"srun: error: \S+: tasks? ([\d,-]+): (.*)", line)
    if found is None:
        return []
    numbers: List[int] = []
    for part in found[1].split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    how = found[2][:1].lower() + found[2][1:]
    return [(number, f"ended: {how}") for number in numbers]
