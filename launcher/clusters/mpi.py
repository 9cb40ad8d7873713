"""MPI: mpirun starts one agent on each host. Everything else is as on other clusters.

mpirun runs on this machine as long as the job does. It uses the hosts of -H, or those of the
allocation in which it runs (Slurm, PBS, Grid Engine, LSF). Agents are not MPI processes, so any
implementation's mpirun will do; ``mpirun --version`` tells which flags and variables it has.

As with other managers, agents find their configurations, here by rank, in a directory that hosts
share. mpirun's standard input was rejected: in some implementations only rank 0 gets it, each rank
would get the keys of all, and mpirun's connections are not encrypted.
"""

import os
import re
import shlex
import shutil
import time
from typing import Callable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from baryon.ps import PeerError, UsageError
from baryon.scheduler.agent import agent_argv
from baryon.scheduler.control import Job

from ..flags import Options
from . import slurm
from .batch import BatchCluster
from .manager import call
from .submission import (
    CANCELLED_CODE,
    Files,
    Step,
    job_files,
    launch_address,
    split_extra,
)
from .watch import OVER, RUNNING, Status, Watch

__all__ = ["allocated_hosts", "prepare", "preview"]

_COMMANDS = ("mpirun", "mpiexec")
_HOST_FILES = ("PBS_NODEFILE", "PE_HOSTFILE", "LSB_DJOB_HOSTFILE")
"""Variables of PBS, Grid Engine and LSF. Each names a file whose lines begin with a host."""

_MOST_CHARACTERS = 800  # of mpirun's messages; Open MPI's fill pages


class _Kind(NamedTuple):
    """An MPI implementation: the flags that name the hosts, keep their order, or use those of an
    allocation; other flags that it needs; the variable with a process's rank."""

    mark: str  # in the output of --version
    hosts: Tuple[str, ...]  # the hosts' names follow, with commas
    order: Tuple[str, ...]
    allocation: Tuple[str, ...]
    others: Tuple[str, ...]
    rank: str
    env: Tuple[str, ...] = ()


_HYDRA = _Kind("HYDRA", ("-hosts",), ("-ppn", "1"), ("-ppn", "1"), (), "PMI_RANK")
_KINDS = (
    _Kind(
        "Open MPI",
        ("--host",),
        ("--map-by", "seq"),  # other mappings put this machine first
        ("--map-by", "ppr:1:node"),
        ("--bind-to", "none"),  # otherwise all tasks of a host share one core
        "OMPI_COMM_WORLD_RANK",
    ),
    _HYDRA._replace(
        mark="Intel(R) MPI",
        # Otherwise a manager's own layout wins over -ppn, and agents are bound to some cores.
        env=("I_MPI_JOB_RESPECT_PROCESS_PLACEMENT=0", "I_MPI_PIN=0"),
    ),
    _HYDRA,  # MPICH and its derivatives
)


def prepare(job: Job, options: Options, say: Callable[[str], None]) -> Tuple[Job, BatchCluster]:
    """Find out which mpirun this is, and how hosts reach this machine.

    Raises UsageError if there is no mpirun, or if it cannot use a host.
    """
    files = job_files(job, options, "mpirun")
    argv = _argv(job, options, files)
    hosts = [line.name for line in options.lines] or _allocation(os.environ)
    address = launch_address(job.interfaces, hosts)
    watch = Watch(None, options.time_margin, time.monotonic)
    num_hosts = len({task.host for task in job.tasks})
    manager = MpiRun(argv, files, ", ".join(hosts[:num_hosts]))
    return job, BatchCluster(manager, files.configs, address, watch, say, is_for_good=True)


def preview(job: Job, options: Options) -> str:
    """The command."""
    return shlex.join(_argv(job, options, job_files(job, options, "mpirun"))) + "\n"


def allocated_hosts(environ: Mapping[str, str]) -> int:
    """The number of hosts in the allocation that this process runs in; 0 outside of one."""
    return slurm.allocated_hosts(environ) or len(_listed(environ))


def _allocation(environ: Mapping[str, str]) -> List[str]:
    """The names of the allocation's hosts."""
    return slurm.node_names(environ) if slurm.allocated_hosts(environ) else _listed(environ)


def _listed(environ: Mapping[str, str]) -> List[str]:
    path = next((environ[name] for name in _HOST_FILES if environ.get(name)), os.devnull)
    try:
        with open(path, encoding="utf-8") as file:
            return list(dict.fromkeys(line.split()[0] for line in file if line.strip()))
    except OSError as error:
        raise UsageError(f"this allocation's hosts: {path}: {error.strerror}") from error


def _argv(job: Job, options: Options, files: Files) -> List[str]:
    program, kind = _find()
    for line in options.lines:
        if line.user or line.port:
            raise UsageError(
                f"-H: mpirun takes no user and no port for {line.name}; put them into ~/.ssh/config"
            )
    num_hosts = len({task.host for task in job.tasks})
    names = [line.name for line in options.lines[:num_hosts]]
    place = [*kind.hosts, ",".join(names), *kind.order] if names else [*kind.allocation]
    python = options.python or job.python
    agent = agent_argv(python, configs=files.configs, index_from=kind.rank)
    # This leaves mpirun's own messages, and ssh's, alone on its standard error.
    shell = ["/bin/sh", "-c", 'exec "$0" "$@" 2>&1']
    command = [program, *place, *kind.others, *split_extra(options), "-n", str(num_hosts)]
    return [*(["env", *kind.env] if kind.env else []), *command, *shell, *agent]


def _find() -> Tuple[str, _Kind]:
    """The command and its implementation. Raises UsageError if there is none that we know."""
    program = next(filter(shutil.which, _COMMANDS), None)
    if program is None:
        raise UsageError("neither mpirun nor mpiexec is on PATH here; try: module load openmpi")
    version = call([program, "--version"]).strip()
    for kind in _KINDS:
        if kind.mark in version:
            return program, kind
    raise UsageError(
        f"{program} is not from Open MPI, MPICH or Intel MPI; --version says "
        f"{version.splitlines()[:1]}"
    )


class MpiRun:
    """An mpirun on this machine. A Manager (manager.py). ``hosts`` are the hosts, for messages."""

    name = "mpirun"

    def __init__(self, argv: Sequence[str], files: Files, hosts: str) -> None:
        self.outputs: Sequence[str] = [files.output]
        self._argv = argv
        self._errors = f"{os.path.splitext(files.output)[0]}.err"
        self._hosts = hosts
        self._step: Optional[Step] = None

    def submit(self) -> str:
        self._step = Step(self._argv, self.outputs[0], self._errors)
        return self.name

    def status(self) -> Status:
        assert self._step is not None
        code, words = self._step.poll(), self._words()
        if code is None:
            # Hydra goes on when it cannot reach a host.
            return Status(RUNNING, self._hosts + (f"; it says: {words}" if words else ""))
        return parse_end(code, words, self._was_terminated())

    def cancel(self) -> None:
        assert self._step is not None
        self._step.terminate()  # it ends the agents, which end their tasks

    def ended_agents(self, line: str) -> List[Tuple[int, str]]:
        return []  # if one ends, mpirun ends them all

    def _words(self) -> str:
        words = one_line(_read(self._errors))
        return f"{words} ({self._errors} has it all)" if words.endswith("...") else words

    def _was_terminated(self) -> bool:
        """Whether an agent reports that it was told to end."""
        return ": SIGTERM received" in _read(self.outputs[0])


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError as error:
        raise PeerError(f"{path}: {error.strerror}") from error


def parse_end(code: int, words: str, was_terminated: bool) -> Status:
    """The Status of a job whose mpirun ended with ``code`` (minus a signal) and these words.

    An mpirun that gets SIGTERM sends SIGTERM to its agents, and ends without a message, with code 0
    or 1.
    """
    if code < 0:
        return Status(OVER, f"was killed by signal {-code}", exit_code=128 - code)
    if was_terminated and not words:
        return Status(OVER, "was ended from outside, as by kill", exit_code=CANCELLED_CODE)
    if code == 0:
        return Status(OVER, "is over: all its agents have ended")
    return Status(OVER, f"exited with code {code}" + (f": {words}" if words else ""))


def one_line(text: str) -> str:
    """A message of mpirun or ssh, shortened, without Open MPI's rules and lists."""
    paragraphs = re.split(r"\n\s*\n|^-{20,}$", text, flags=re.MULTILINE)
    words = (" ".join(text.split()) for text in paragraphs if not text.lstrip().startswith("*"))
    whole = " ".join(filter(None, words))
    return whole if len(whole) <= _MOST_CHARACTERS else f"{whole[:_MOST_CHARACTERS]} ..."
