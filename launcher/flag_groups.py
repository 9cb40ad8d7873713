"""The flags of ``launch.py``, in the groups in which ``--help`` shows them."""

import argparse
from typing import Callable, Tuple

from baryon import __version__
from baryon.scheduler.control import KVSTORE_TYPES

__all__ = ["MANAGERS", "add_groups"]

MANAGERS = ("slurm", "sge", "mpi", "kubernetes", "yarn")
"""The launchers of cluster managers, which choose a job's hosts themselves."""

_LAUNCHERS = ("local", "ssh", *MANAGERS)
_Add = Callable[..., argparse.Action]


def add_groups(parser: argparse.ArgumentParser) -> None:
    """Add all flags to ``parser``."""
    groups: Tuple[Tuple[str, Callable[[_Add], None]], ...] = (
        ("what runs", _add_workers),
        ("where", _add_places),
        ("environment of the tasks", _add_environment),
        ("how it runs", _add_ways),
        ("limits, in seconds", _add_limits),
        ("network", _add_network),
        ("hosts over ssh", _add_ssh),
        (f"jobs of a cluster manager ({', '.join(MANAGERS)})", _add_manager),
        ("pods (--launcher kubernetes)", _add_kubernetes),
    )
    for title, add_to in groups:
        add_to(parser.add_argument_group(title).add_argument)


def _add_workers(add: _Add) -> None:
    add("-n", "--num-workers", type=int, metavar="N", help="worker processes; required")
    add(
        "-s",
        "--num-servers",
        type=int,
        metavar="N",
        help="parameter servers (default: one on each host with a worker)",
    )
    add(
        "-m", nargs=argparse.REMAINDER, dest="module", metavar="MODULE ...",
        help="run a module, like python -m, with the arguments that follow",
    )  # fmt: skip
    add("--devices", type=int, default=1, metavar="N", help="devices per worker (default: 1)")
    add(
        "--kvstore", choices=KVSTORE_TYPES, metavar="TYPE",
        help="replace the kvstore type that the script requests: " + ", ".join(KVSTORE_TYPES),
    )  # fmt: skip
    add(
        "--staleness", type=int, default=3, metavar="N",
        help="in a dist_ssp store, how many rounds a worker may be ahead of another (default: "
        "%(default)s)",
    )  # fmt: skip
    add(
        "--p3",
        action="store_true",
        help="accepted, without effect: arrays are always sliced",
    )


def _add_places(add: _Add) -> None:
    add(
        "-H", "--hostfile", metavar="FILE",
        help="file of hosts, one per line: [user@]name[:port] [slots=N] [gpus=0,1]; or a list with "
        "a comma: node1,node2",
    )  # fmt: skip
    add(
        "--launcher", choices=_LAUNCHERS,
        metavar="NAME",
        help="how to start tasks: " + ", ".join(_LAUNCHERS) + " (default: ssh with -H, local "
        "without it); local with -H simulates the hosts on this machine",
    )  # fmt: skip
    add(
        "--workers-per-host", type=int, metavar="N",
        help="workers on each host (default: its slots; with local, all on one host; with a "
        "cluster manager, 1; inside an allocation, as many as needed)",
    )  # fmt: skip
    add(
        "--topology", metavar="FILE",
        help="file of groups of nearby hosts, one per line: rack1: node1 node2; each group gets a "
        "server, and sends only sums to the others",
    )  # fmt: skip


def _add_environment(add: _Add) -> None:
    add(
        "--env", action="append", default=[], metavar="NAME[=VALUE]",
        help="set a variable for all tasks; without VALUE, copy it from here",
    )  # fmt: skip
    for role in ("server", "worker"):
        add(
            f"--env-{role}", action="append", default=[], metavar="NAME=VALUE",
            help=f"set a variable for {role}s only; NAME:VALUE works, too",
        )  # fmt: skip


def _add_ways(add: _Add) -> None:
    add("-h", "--help", action="help", help="show this help")
    add("--version", action="version", version=f"baryon {__version__}")
    add("--dry-run", action="store_true", help="show what would run where, and run nothing")
    add("--json", action="store_true", help="with --dry-run or baryon doctor: print JSON")
    add(
        "--detach", action="store_true",
        help="print the job's name and return once the job is queued or runs; afterwards use "
        "baryon status, logs and stop",
    )  # fmt: skip
    add(
        "-q", "--quiet", action="store_true",
        help="print nothing about the job itself unless something goes wrong",
    )  # fmt: skip
    add(
        "--log-dir", metavar="DIR",
        help="directory for each task's output (default: baryon-logs/JOB)",
    )  # fmt: skip


def _add_limits(add: _Add) -> None:
    add(
        "--timeout", type=float, default=1800.0, metavar="S",
        help="longest wait of a task for another live task (default: %(default)g)",
    )  # fmt: skip
    add(
        "--heartbeat-timeout", type=float, default=20.0, metavar="S",
        help="a host silent for this long is lost, a silent task reported (default: %(default)g)",
    )  # fmt: skip
    add(
        "--start-timeout", type=float, default=60.0, metavar="S",
        help="longest wait for hosts, agents and servers to start (default: %(default)g)",
    )  # fmt: skip


def _add_network(add: _Add) -> None:
    add(
        "--port",
        type=int,
        default=0,
        metavar="P",
        help="scheduler's port (default: a free one)",
    )
    add(
        "--interface", metavar="NAME[,NAME]",
        help="network interface by which hosts reach each other (default: DMLC_INTERFACE, or the "
        "one that leads to this machine)",
    )  # fmt: skip
    add(
        "--no-shared-memory", action="store_true",
        help="send gradients and values over TCP even between tasks on one host",
    )  # fmt: skip
    add(
        "--no-encryption", action="store_true",
        help="send gradients and values unencrypted, for private networks; tasks still "
        "authenticate each other",
    )  # fmt: skip


def _add_ssh(add: _Add) -> None:
    add(
        "--sync-dst-dir", metavar="DIR",
        help="copy the working directory to DIR on every host: changed files only, without those "
        "that .baryonignore lists",
    )  # fmt: skip
    add(
        "--fetch", action="append", default=[], metavar="PATTERN",
        help="when the job ends, even by a failure, copy matching files below that directory from "
        "every host to fetched/HOST in the log directory; may be repeated",
    )  # fmt: skip
    add("--ssh-config", metavar="FILE", help="ssh configuration (default: ~/.ssh/config)")
    add(
        "--accept-new-host-keys", action="store_true",
        help="add unknown host keys to known_hosts; a changed key is still an error",
    )  # fmt: skip
    add(
        "--python", metavar="PATH",
        help="Python interpreter on the hosts (default: same path as here)",
    )  # fmt: skip
    add(
        "--setup", metavar="LINE", default="",
        help="line of bash to run on hosts first, as 'source activate mx'; the interpreter is then "
        "the python that it puts on PATH",
    )  # fmt: skip
    add(
        "--tunnel", action="store_true",
        help="all hosts reach this machine through their SSH connections (default: only hosts that "
        "cannot reach it directly)",
    )  # fmt: skip


def _add_manager(add: _Add) -> None:
    add("--queue", "--partition", metavar="NAME", help="queue or partition of the job")
    add("--account", metavar="NAME", help="account to charge")
    add("--time", metavar="LIMIT", help="time limit, in the manager's notation: 4:00:00")
    add("--mem", metavar="SIZE", help="memory on each host, in the manager's notation: 64G")
    add("--cpus-per-worker", type=int, metavar="N", help="CPUs for each worker")
    add(
        "--gpus-per-worker", type=int, metavar="N",
        help="GPUs for each worker; also sets --devices",
    )  # fmt: skip
    add("--job-name", metavar="NAME", help="name in the queue (default: the command's)")
    add("--mail", metavar="ADDRESS", help="send mail to ADDRESS when the job ends")
    add("--constraint", metavar="WORDS", help="features that the hosts must have")
    add("--pe", metavar="NAME", help="SGE parallel environment that keeps CPUs on one host")
    add(
        "--extra", action="append", default=[], metavar="OPTIONS",
        help="options to pass to the manager's own command: --extra='--exclusive --nice=5'",
    )  # fmt: skip
    add(
        "--template",
        metavar="FILE",
        help="your own job script (jinja2), instead of ours",
    )
    add(
        "--job-dir", metavar="DIR",
        help="shared directory for the job script, the agents' output and, while they start, their "
        "keys (default: the log directory)",
    )  # fmt: skip
    add(
        "--queue-timeout", type=float, metavar="S",
        help="longest wait in the queue (default: no limit)",
    )  # fmt: skip
    add(
        "--time-margin", type=float, default=60.0, metavar="S",
        help="send workers SIGTERM this long before the time limit; they have 20 s less to save "
        "their work (default: %(default)g)",
    )  # fmt: skip
    add(
        "--resubmit", type=int, default=0, metavar="N",
        help="submit the job again, up to N times, if it was preempted, lost a host or ran out "
        "of time; the script resumes from its own checkpoint (default: 0)",
    )  # fmt: skip


def _add_kubernetes(add: _Add) -> None:
    add("--image", metavar="NAME", help="image of the pods, with Baryon and the script")
    add("--image-pull-secret", metavar="NAME", help="Secret with which nodes pull the image")
    add("--namespace", metavar="NAME", help="namespace (default: the context's, or this pod's)")
    add("--context", metavar="NAME", help="context in the kubeconfig (default: the current one)")
    add(
        "--workdir",
        metavar="DIR",
        help="working directory in the image (default: same as here)",
    )
    add(
        "--shm-size", metavar="SIZE",
        help="size of /dev/shm, for the script's own use (default: --mem, or the node's memory)",
    )  # fmt: skip
    add(
        "--spread", choices=("preferred", "required"), default="preferred",
        help="put each pod on its own node, if possible or always (default: %(default)s)",
    )  # fmt: skip
