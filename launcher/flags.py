"""The flags of ``launch.py`` and of ``baryon doctor``, and their help."""

import argparse
from typing import List, NoReturn, Optional, Tuple

from baryon import __version__
from baryon.ps import UsageError
from baryon.scheduler import KVSTORE_TYPES

from .hostfile import HostLine

__all__ = ["MANAGERS", "JobCommand", "Options", "parse_command", "parse_flags"]

MANAGERS = ("slurm", "sge", "mpi", "kubernetes", "yarn")
"""Those that choose the hosts of a job themselves."""

_LAUNCHERS = ("local", "ssh", *MANAGERS)
_DESCRIPTION = """\
Run a data-parallel MXNet script on many machines, its parameters kept in step by Baryon's own
servers. The script does not change: mx.kv.create('dist_sync') is served by this job."""
_DOCTOR = """\
Look at every host of a job before it runs, and name every problem with its remedy: SSH and host
keys, versions of Python, MXNet and NumPy, the script and its directory, ports between hosts,
clocks, memory, GPUs, /dev/shm, limits. The exit code is 1 if there is any problem. It takes
launch.py's own flags."""
_JOBS = """\
Looks after jobs: those to come (doctor), and those that launch.py --detach has started, from any
shell of the machine that it was called on."""
_EPILOG = """\
The command may be a Python file, run by this interpreter (over ssh: the same path there), or any
program with its arguments; all that follows it belongs to it. The exit code is 0 if every worker
ended well, otherwise that of the first task to fail (128 + N if signal N ended it), 1 if the job
itself failed, 2 for a wrong command line. SIGUSR1 prints the job's state."""


class Options(argparse.Namespace):
    """What the command line said, before it is looked at more closely."""

    num_workers: Optional[int]
    num_servers: Optional[int]
    hostfile: Optional[str]
    launcher: Optional[str]
    sync_dst_dir: Optional[str]
    env: List[str]
    env_server: List[str]
    env_worker: List[str]
    p3: bool
    dry_run: bool
    detach: bool
    workers_per_host: Optional[int]
    devices: int
    kvstore: Optional[str]
    log_dir: Optional[str]
    timeout: float
    heartbeat_timeout: float
    port: int
    start_timeout: float
    ssh_config: Optional[str]
    accept_new_host_keys: bool
    python: Optional[str]
    setup: str
    interface: Optional[str]
    tunnel: bool
    topology: Optional[str]
    no_shared_memory: bool
    no_encryption: bool
    queue: Optional[str]
    account: Optional[str]
    time: Optional[str]
    mem: Optional[str]
    cpus_per_worker: Optional[int]
    gpus_per_worker: Optional[int]
    job_name: Optional[str]
    mail: Optional[str]
    constraint: Optional[str]
    pe: Optional[str]
    extra: List[str]
    template: Optional[str]
    job_dir: Optional[str]
    queue_timeout: Optional[float]
    time_margin: float
    resubmit: int
    image: Optional[str]
    image_pull_secret: Optional[str]
    namespace: Optional[str]
    context: Optional[str]
    workdir: Optional[str]
    shm_size: Optional[str]
    spread: str
    command: List[str]
    json: bool = False

    lines: Tuple[HostLine, ...] = ()  # of the host file, one for each host of the job


class JobCommand(argparse.Namespace):
    """What ``baryon VERB`` is to do, with which detached job; None is the newest."""

    verb: str
    job: Optional[str]
    task: Optional[str]
    follow: bool


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        if "required: -n" in message:
            message += ", before the command"
        raise UsageError(f"{message}; see {self.prog} --help")


def parse_flags(argv: List[str], is_doctor: bool = False) -> Options:
    """What ``argv`` (without the program's name) says; raises UsageError."""
    return _parser(is_doctor).parse_args(argv, namespace=Options())


def parse_command(argv: List[str]) -> JobCommand:
    """What the words after ``baryon`` say, other than ``doctor``'s; raises UsageError."""
    parser = _Parser(prog="baryon", description=_JOBS, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"baryon {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    verbs.add_parser("doctor", help="look at the hosts of a job: baryon doctor -H HOSTS")
    status = verbs.add_parser("status", help="how a detached job is, or which there are")
    logs = verbs.add_parser("logs", help="what a detached job has written")
    stop = verbs.add_parser("stop", help="end a detached job")
    for verb in (status, logs, stop):
        verb.add_argument("job", nargs=None if verb is stop else "?", metavar="JOB")
    logs.add_argument("--task", metavar="TASK", help="of one task only, as worker-0")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the job's end")
    return parser.parse_args(argv, namespace=JobCommand())


def _parser(is_doctor: bool) -> argparse.ArgumentParser:
    program, usage = "launch.py", "launch.py -n WORKERS [options] command [its arguments]"
    if is_doctor:
        program = "baryon doctor"
        usage = "baryon doctor -H HOSTS [options of launch.py] [command [its arguments]]"
    parser = _Parser(
        prog=program,
        usage=usage,
        description=_DOCTOR if is_doctor else _DESCRIPTION,
        epilog=None if is_doctor else _EPILOG,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "-n", "--num-workers", type=int, required=not is_doctor, metavar="N",
        help="worker processes",
    )  # fmt: skip
    add(
        "-s",
        "--num-servers",
        type=int,
        metavar="N",
        help="servers (default: one on each host with a worker)",
    )
    add(
        "-H", "--hostfile", metavar="FILE",
        help="the hosts, one a line: [user@]name[:port] [slots=N] [gpus=0,1]; or a list of names "
        "with a comma in it: node1,node2",
    )  # fmt: skip
    add(
        "--launcher", choices=_LAUNCHERS,
        metavar="NAME",
        help="how tasks are started: " + ", ".join(_LAUNCHERS) + " (default: ssh with -H, local "
        "without); local with -H simulates those hosts on this machine",
    )  # fmt: skip
    add(
        "--sync-dst-dir", metavar="DIR",
        help="copy the working directory there on every host, what has changed, without what "
        ".baryonignore names (not with local)",
    )  # fmt: skip
    add(
        "--env", action="append", default=[], metavar="NAME[=VALUE]",
        help="pass a variable on to all tasks",
    )  # fmt: skip
    add("--env-server", action="append", default=[], metavar="K:V", help="for servers only")
    add("--env-worker", action="append", default=[], metavar="K:V", help="for workers only")
    add("--p3", action="store_true", help="accepted; big arrays are always sliced and prioritised")
    add("--dry-run", action="store_true", help="print what would run where, and run nothing")
    add(
        "--detach", action="store_true",
        help="print the job's name and return as soon as it waits in the queue or runs; then "
        "baryon status, logs and stop are for it",
    )  # fmt: skip
    add(
        "--workers-per-host", type=int, metavar="N",
        help="workers on each host (default: its slots; all on one host with local; with a "
        "cluster manager 1, or, inside an allocation, as many as it takes)",
    )  # fmt: skip
    add("--devices", type=int, default=1, metavar="N", help="devices per worker (default: 1)")
    add(
        "--kvstore", choices=KVSTORE_TYPES, metavar="TYPE",
        help="override the kvstore type that the script asks for: " + ", ".join(KVSTORE_TYPES),
    )  # fmt: skip
    add(
        "--staleness", type=int, default=3, metavar="N",
        help="rounds by which a worker may be ahead of another in a dist_ssp store (default: "
        "%(default)s)",
    )  # fmt: skip
    add(
        "--log-dir", metavar="DIR",
        help="where each task's output is kept (default: baryon-logs/JOB)",
    )  # fmt: skip
    add(
        "--timeout", type=float, default=1800.0, metavar="S",
        help="longest wait of one task for another that is alive (default: %(default)g)",
    )  # fmt: skip
    add(
        "--heartbeat-timeout", type=float, default=20.0, metavar="S",
        help="longest silence of a task before it is given up (default: %(default)g)",
    )  # fmt: skip
    add(
        "--start-timeout", type=float, default=60.0, metavar="S",
        help="longest wait for hosts, agents and servers to come up (default: %(default)g)",
    )  # fmt: skip
    add(
        "--topology", metavar="FILE",
        help="groups of hosts that are near each other, one a line: rack1: node1 node2; each gets "
        "a server of its own, and only its sums leave it",
    )  # fmt: skip
    add(
        "--no-shared-memory", action="store_true",
        help="exchange gradients and values over TCP also between the tasks of a host",
    )  # fmt: skip
    add(
        "--no-encryption", action="store_true",
        help="send gradients and values in the clear, for networks that nobody else is on; tasks "
        "prove who they are all the same",
    )  # fmt: skip
    add("--port", type=int, default=0, metavar="P", help="the scheduler's (default: a free one)")
    _add_ssh(parser)
    _add_manager(parser)
    _add_kubernetes(parser)
    if is_doctor:
        add("--json", action="store_true", help="print the findings as JSON")
    add("--version", action="version", version=f"baryon {__version__}")
    add("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _add_ssh(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("hosts over ssh").add_argument
    add("--ssh-config", metavar="FILE", help="instead of ~/.ssh/config")
    add(
        "--accept-new-host-keys", action="store_true",
        help="record the keys of hosts that known_hosts lacks; a changed key stops all the same",
    )  # fmt: skip
    add("--python", metavar="PATH", help="the interpreter on the hosts (default: as here)")
    add(
        "--setup", metavar="LINE", default="",
        help="a line of bash to be run there first, as 'source activate mx'; the interpreter is "
        "then the python that it puts on PATH",
    )  # fmt: skip
    add(
        "--interface", metavar="NAME[,NAME]",
        help="the network interface of each host that the others reach it by (default: "
        "DMLC_INTERFACE, or the one that leads here)",
    )  # fmt: skip
    add(
        "--tunnel", action="store_true",
        help="let hosts reach this machine through their SSH connections only (default: those "
        "that cannot reach it otherwise)",
    )  # fmt: skip


def _add_manager(parser: argparse.ArgumentParser) -> None:
    title = f"jobs of a cluster manager ({', '.join(MANAGERS)})"
    add = parser.add_argument_group(title).add_argument
    add("--queue", "--partition", metavar="NAME", help="where the job waits")
    add("--account", metavar="NAME", help="whom it is charged to")
    add("--time", metavar="LIMIT", help="its time limit, as the manager writes it: 4:00:00")
    add("--mem", metavar="SIZE", help="memory on each host, as the manager writes it: 64G")
    add("--cpus-per-worker", type=int, metavar="N", help="CPUs for each worker of a host")
    add(
        "--gpus-per-worker", type=int, metavar="N",
        help="GPUs for each worker of a host; also its --devices",
    )  # fmt: skip
    add("--job-name", metavar="NAME", help="its name in the queue (default: the command's)")
    add("--mail", metavar="ADDRESS", help="who is told of its end")
    add("--constraint", metavar="WORDS", help="what its hosts must have")
    add("--pe", metavar="NAME", help="SGE's parallel environment that keeps CPUs on one host")
    add(
        "--extra", action="append", default=[], metavar="OPTIONS",
        help="more options for the manager's own command: --extra='--exclusive --nice=5'",
    )  # fmt: skip
    add("--template", metavar="FILE", help="a job script of your own (jinja2) instead of ours")
    add(
        "--job-dir", metavar="DIR",
        help="where script, agents' output and, while they start, their keys lie; hosts must see "
        "it (default: the log directory)",
    )  # fmt: skip
    add(
        "--queue-timeout", type=float, metavar="S",
        help="longest wait in the queue (default: for ever)",
    )  # fmt: skip
    add(
        "--time-margin", type=float, default=60.0, metavar="S",
        help="how long before the time limit workers get SIGTERM, and 20 s less to save their work "
        "(default: %(default)g)",
    )  # fmt: skip
    add(
        "--resubmit", type=int, default=0, metavar="N",
        help="submit the job again, up to N times, if it was pre-empted, lost a host or ran out "
        "of time; the script goes on from its own checkpoint (default: 0)",
    )  # fmt: skip


def _add_kubernetes(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("pods (--launcher kubernetes)").add_argument
    add("--image", metavar="NAME", help="what pods run: an image with Baryon and the script")
    add("--image-pull-secret", metavar="NAME", help="the Secret that lets nodes fetch it")
    add("--namespace", metavar="NAME", help="where (default: the context's, or this pod's)")
    add("--context", metavar="NAME", help="of the kubeconfig (default: the current one)")
    add("--workdir", metavar="DIR", help="where the command runs in the image (default: as here)")
    add(
        "--shm-size", metavar="SIZE",
        help="of /dev/shm, for the script's own use (default: --mem, or all that the node has)",
    )  # fmt: skip
    add(
        "--spread", choices=("preferred", "required"), default="preferred",
        help="whether pods must be on nodes of their own (default: %(default)s)",
    )  # fmt: skip
