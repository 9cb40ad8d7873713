"""The flags of ``launch.py`` and ``baryon``, in the groups in which ``--help`` shows them."""

import argparse
from typing import Any, Callable, NoReturn, Tuple

from baryon import __version__
from baryon.ps import UsageError
from baryon.scheduler.control import KVSTORE_TYPES

from .habits import remedy_for, translated

__all__ = ["MANAGERS", "command_parser", "flag_parser"]

MANAGERS = ("slurm", "sge", "mpi", "kubernetes", "yarn")
"""Those that choose the hosts of a job themselves."""

_LAUNCHERS = ("local", "ssh", *MANAGERS)
_DESCRIPTION = """\
Run a data-parallel MXNet script on many machines, its parameters kept in step
by Baryon's own servers. The script does not change: mx.kv.create('dist_sync')
is served by this job.

examples:
  launch.py -n 2 train.py --epochs 10                  two workers, this machine
  launch.py -n 4 -H node1,node2 --workers-per-host 2 train.py         over ssh
  launch.py -n 4 -H hosts --sync-dst-dir '~/job' --fetch 'out/*' train.py
  launch.py -n 8 --launcher slurm --time 4:00:00 train.py      a queue's hosts
  launch.py -n 2 -m package.train                      a module, as python -m
  launch.py -n 2 --dry-run train.py                    show what would run where
  launch.py -n 2 --kvstore dist_sync train.py          for kvstore='device'
"""
_EPILOG = """\
The command may be a Python file, run by this interpreter (over ssh: the same
path there), or any program with its arguments; all that follows it belongs to
it. A whole line in quotes works, too: 'cd d && python x.py', which bash runs.

The exit code is 0 if every worker ended well, otherwise that of the first task
to fail (128 + N if signal N ended it), 1 if the job itself failed, 2 for a
wrong command line. SIGUSR1 prints the job's state.
"""
_DOCTOR = """\
Look at every host of a job before it runs, and name every problem with its
remedy: SSH and host keys, versions of Python, MXNet and NumPy, the script and
its directory, ports between hosts, clocks, memory, GPUs, /dev/shm, limits.
Without -H, look at this machine. The exit code is 1 if there is any problem.
It takes launch.py's own flags.

examples:
  baryon doctor                         can jobs run on this machine?
  baryon doctor -H hosts train.py       can this one run on these hosts?
"""
_JOBS = """\
Looks after jobs: those to come (doctor), and those that launch.py --detach has started, from any
shell of the machine that it was called on."""

_Add = Callable[..., argparse.Action]


class _Parser(argparse.ArgumentParser):
    """Knows the flags of other launchers, too (habits.py)."""

    def _parse_optional(self, arg_string: str) -> Any:
        return super()._parse_optional(translated(arg_string))

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: "):
            words = message.partition(": ")[2].split()
            known = (name for action in self._actions for name in action.option_strings)
            remedy = remedy_for(words[0], known)
            message += f"; {remedy}" if remedy else ""
        raise UsageError(f"{message}; see {self.prog} --help")


def command_parser() -> argparse.ArgumentParser:
    """Of the words after ``baryon``, other than ``doctor``'s."""
    parser = _Parser(prog="baryon", description=_JOBS, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"baryon {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    verbs.add_parser("doctor", help="look at this machine, or at hosts: baryon doctor -H HOSTS")
    status = verbs.add_parser("status", help="how a detached job is, or which there are")
    logs = verbs.add_parser("logs", help="what a detached job has written")
    stop = verbs.add_parser("stop", help="end a detached job")
    completion = verbs.add_parser(
        "completion", help="print a script by which a shell completes launch.py and baryon"
    )
    completion.add_argument("shell", choices=("bash", "zsh"))
    for verb in (status, logs, stop):
        verb.add_argument("job", nargs=None if verb is stop else "?", metavar="JOB")
    logs.add_argument("--task", metavar="TASK", help="of one task only, as worker-0")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the job's end")
    return parser


def flag_parser(is_doctor: bool) -> argparse.ArgumentParser:
    """Of ``launch.py``'s own words, or those after ``baryon doctor``."""
    program, usage = "launch.py", "launch.py -n WORKERS [options] command [its arguments]"
    if is_doctor:
        program = "baryon doctor"
        usage = "baryon doctor [-H HOSTS] [options of launch.py] [command [its arguments]]"
    parser = _Parser(
        prog=program,
        usage=usage,
        description=_DOCTOR if is_doctor else _DESCRIPTION,
        epilog=None if is_doctor else _EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    groups: Tuple[Tuple[str, Callable[[_Add], None]], ...] = (
        ("what runs", _add_workers),
        ("where", _add_places),
        ("what tasks find in their environment", _add_environment),
        ("how it runs", _add_ways),
        ("limits, in seconds", _add_limits),
        ("network", _add_network),
        ("hosts over ssh", _add_ssh),
        (f"jobs of a cluster manager ({', '.join(MANAGERS)})", _add_manager),
        ("pods (--launcher kubernetes)", _add_kubernetes),
    )
    for title, add_to in groups:
        add_to(parser.add_argument_group(title).add_argument)
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _add_workers(add: _Add) -> None:
    add("-n", "--num-workers", type=int, metavar="N", help="worker processes; required")
    add(
        "-s",
        "--num-servers",
        type=int,
        metavar="N",
        help="servers (default: one on each host with a worker)",
    )
    add(
        "-m", nargs=argparse.REMAINDER, dest="module", metavar="MODULE ...",
        help="run a module, as python -m does, with the arguments that follow",
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
    add("--p3", action="store_true", help="accepted; big arrays are always sliced and prioritised")


def _add_places(add: _Add) -> None:
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
        "--workers-per-host", type=int, metavar="N",
        help="workers on each host (default: its slots; all on one host with local; with a "
        "cluster manager 1, or, inside an allocation, as many as it takes)",
    )  # fmt: skip
    add(
        "--topology", metavar="FILE",
        help="groups of hosts that are near each other, one a line: rack1: node1 node2; each gets "
        "a server of its own, and only its sums leave it",
    )  # fmt: skip


def _add_environment(add: _Add) -> None:
    add(
        "--env", action="append", default=[], metavar="NAME[=VALUE]",
        help="pass a variable on to all tasks",
    )  # fmt: skip
    for role in ("server", "worker"):
        add(
            f"--env-{role}", action="append", default=[], metavar="NAME=VALUE",
            help=f"for {role}s only; NAME:VALUE works, too",
        )  # fmt: skip


def _add_ways(add: _Add) -> None:
    add("-h", "--help", action="help", help="show this")
    add("--version", action="version", version=f"baryon {__version__}")
    add("--dry-run", action="store_true", help="show what would run where, and run nothing")
    add("--json", action="store_true", help="with --dry-run and doctor: as JSON")
    add(
        "--detach", action="store_true",
        help="print the job's name and return as soon as it waits in the queue or runs; then "
        "baryon status, logs and stop are for it",
    )  # fmt: skip
    add(
        "-q", "--quiet", action="store_true",
        help="say nothing of the job itself while all goes well",
    )  # fmt: skip
    add(
        "--log-dir", metavar="DIR",
        help="where each task's output is kept (default: baryon-logs/JOB)",
    )  # fmt: skip


def _add_limits(add: _Add) -> None:
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


def _add_network(add: _Add) -> None:
    add("--port", type=int, default=0, metavar="P", help="the scheduler's (default: a free one)")
    add(
        "--interface", metavar="NAME[,NAME]",
        help="the network interface of each host that the others reach it by (default: "
        "DMLC_INTERFACE, or the one that leads here)",
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


def _add_ssh(add: _Add) -> None:
    add(
        "--sync-dst-dir", metavar="DIR",
        help="copy the working directory there on every host, what has changed, without what "
        ".baryonignore names",
    )  # fmt: skip
    add(
        "--fetch", action="append", default=[], metavar="PATTERN",
        help="at the end, also of a job that has failed, bring what matches below that directory "
        "from every host into fetched/HOST of the log directory; may be repeated",
    )  # fmt: skip
    add("--ssh-config", metavar="FILE", help="instead of ~/.ssh/config")
    add(
        "--accept-new-host-keys", action="store_true",
        help="record the keys of hosts that known_hosts lacks; a changed key stops all the same",
    )  # fmt: skip
    add(
        "--python", metavar="PATH",
        help="the interpreter on the hosts, also of a manager (default: as here)",
    )  # fmt: skip
    add(
        "--setup", metavar="LINE", default="",
        help="a line of bash to be run there first, as 'source activate mx'; the interpreter is "
        "then the python that it puts on PATH",
    )  # fmt: skip
    add(
        "--tunnel", action="store_true",
        help="let hosts reach this machine through their SSH connections only (default: those "
        "that cannot reach it otherwise)",
    )  # fmt: skip


def _add_manager(add: _Add) -> None:
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


def _add_kubernetes(add: _Add) -> None:
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
