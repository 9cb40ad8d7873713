"""The command line: flags, host file and environment in, a `Job` out.

Every fault is collected before anything is said, so that one run shows them all.
"""

import argparse
import os
import re
import shutil
import sys
import time
from typing import Dict, List, NoReturn, Optional, Tuple

from baryon import __version__
from baryon.ps import UsageError
from baryon.scheduler import KVSTORE_TYPES, Host, Job, Task, place

from .clusters import CLUSTERS
from .hostfile import HostLine, parse_hosts

__all__ = ["Options", "parse"]

_MAX_SECONDS = 1e7  # four months; clocks and poll(2) have limits
_LAUNCHERS = ("local", "ssh", "slurm", "sge", "mpi", "kubernetes", "yarn")
_DESCRIPTION = """\
Run a data-parallel MXNet script on many machines, its parameters kept in step by Baryon's own
servers. The script does not change: mx.kv.create('dist_sync') is served by this job."""
_EPILOG = """\
The command may be a Python file, run by this interpreter, or any program with its arguments; all
that follows it belongs to it. The exit code is 0 if every worker ended well, otherwise that of the
first task to fail (128 + N if signal N ended it), 1 if the job itself failed, 2 for a wrong
command line. SIGUSR1 prints the job's state."""


class Options(argparse.Namespace):
    """What the command line said, before it is looked at more closely."""

    num_workers: int
    num_servers: Optional[int]
    hostfile: Optional[str]
    launcher: Optional[str]
    sync_dst_dir: Optional[str]
    env: List[str]
    env_server: List[str]
    env_worker: List[str]
    p3: bool
    dry_run: bool
    workers_per_host: Optional[int]
    devices: int
    kvstore: Optional[str]
    log_dir: Optional[str]
    timeout: float
    heartbeat_timeout: float
    port: int
    command: List[str]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see launch.py --help")


def parse(argv: List[str]) -> Tuple[Job, Options]:
    """The job that ``argv`` (without the program's name) describes.

    Raises UsageError with every fault found, one a line.
    """
    options = _parser().parse_args(argv, namespace=Options())
    faults: List[str] = []
    hosts = _hosts(options, faults)
    job_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    env = _variables(options.env, "=", "--env", faults, inherit=True)
    env_server = _variables(options.env_server, ":", "--env-server", faults)
    env_worker = _variables(options.env_worker, ":", "--env-worker", faults)
    command = _command(options.command, faults)
    _check_numbers(options, faults)
    for what, text in [
        ("working directory", os.getcwd()),
        *(("argument", word) for word in command),
        *((f"value of --env {name}", value) for name, value in env.items()),
    ]:
        if not _is_utf8(text):
            faults.append(f"the {what} {text!r} is not UTF-8, so it cannot reach other hosts")
    launcher = options.launcher or ("local" if options.hostfile is None else "ssh")
    if launcher not in CLUSTERS:
        known = ", ".join(sorted(CLUSTERS))
        why = "" if options.launcher else " (which -H alone asks for)"
        faults.append(
            f"--launcher {launcher}{why} is not in version {__version__} yet; there is {known}, "
            "which simulates the hosts of a file on this machine"
        )
    tasks: Tuple[Task, ...] = ()
    if not faults:
        try:
            tasks = place(hosts, options.num_workers, options.num_servers)
        except UsageError as error:
            faults.append(str(error))
    if faults:
        raise UsageError("\n".join(faults))
    job = Job(
        id=job_id,
        command=command,
        cwd=os.getcwd(),
        hosts=hosts,
        tasks=tasks,
        python=sys.executable,
        log_dir=os.path.abspath(options.log_dir or os.path.join("baryon-logs", job_id)),
        launcher=launcher,
        devices=options.devices,
        kvstore=options.kvstore,
        port=options.port,
        env=env,
        env_worker=env_worker,
        env_server=env_server,
        timeout_s=options.timeout,
        silence_s=options.heartbeat_timeout,
        is_terminal=sys.stdout.isatty(),
    )
    return job, options


def _check_numbers(options: Options, faults: List[str]) -> None:
    for flag, value in (
        ("-n", options.num_workers),
        ("-s", options.num_servers),
        ("--workers-per-host", options.workers_per_host),
        ("--devices", options.devices),
    ):
        if value is not None and value < 1:
            faults.append(f"{flag} must be 1 or more, not {value}")
    for flag, seconds in (
        ("--timeout", options.timeout),
        ("--heartbeat-timeout", options.heartbeat_timeout),
    ):
        if not 0 < seconds <= _MAX_SECONDS:
            faults.append(f"{flag} must be a number of seconds above 0, not {seconds:g}")
    if 0 < options.heartbeat_timeout < 1:
        faults.append("--heartbeat-timeout must be at least 1 second; less is shorter than a pause")
    if not 0 <= options.port < 65536:
        faults.append(f"--port must be between 1 and 65535, not {options.port}")


def _is_utf8(text: str) -> bool:
    """False for what Python has kept of bytes that are no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="launch.py",
        usage="launch.py -n WORKERS [options] command [its arguments]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-n", "--num-workers", type=int, required=True, metavar="N", help="worker processes")
    add(
        "-s",
        "--num-servers",
        type=int,
        metavar="N",
        help="servers (default: one on each host with a worker)",
    )
    add("-H", "--hostfile", metavar="FILE", help="the hosts, one a line: name [slots=N]")
    add(
        "--launcher", choices=_LAUNCHERS,
        help="how tasks are started (default: ssh with -H, local without); local with -H "
        "simulates those hosts on this machine",
    )  # fmt: skip
    add("--sync-dst-dir", metavar="DIR", help="copy the working directory there (not with local)")
    add(
        "--env", action="append", default=[], metavar="NAME[=VALUE]",
        help="pass a variable on to all tasks",
    )  # fmt: skip
    add("--env-server", action="append", default=[], metavar="K:V", help="for servers only")
    add("--env-worker", action="append", default=[], metavar="K:V", help="for workers only")
    add("--p3", action="store_true", help="accepted; big arrays are always sliced and prioritised")
    add("--dry-run", action="store_true", help="print what would run where, and run nothing")
    add(
        "--workers-per-host", type=int, metavar="N",
        help="workers on each host (default: its slots; all on one host with local)",
    )  # fmt: skip
    add("--devices", type=int, default=1, metavar="N", help="devices per worker (default: 1)")
    add(
        "--kvstore", choices=KVSTORE_TYPES, metavar="TYPE",
        help="override the kvstore type that the script asks for: " + ", ".join(KVSTORE_TYPES),
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
    add("--port", type=int, default=0, metavar="P", help="the scheduler's (default: a free one)")
    add("--version", action="version", version=f"baryon {__version__}")
    add("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _hosts(options: Options, faults: List[str]) -> Tuple[Host, ...]:
    per_host = options.workers_per_host
    lines: Tuple[HostLine, ...] = ()
    if options.hostfile is not None:
        try:
            with open(options.hostfile, encoding="utf-8-sig") as file:
                lines = parse_hosts(file.read(), options.hostfile)
        except OSError as error:
            faults.append(f"host file {options.hostfile}: {error.strerror}")
        except UnicodeDecodeError as error:
            faults.append(f"host file {options.hostfile} is not UTF-8 text: {error.reason}")
        except UsageError as error:
            faults.append(str(error))
    if lines:
        return tuple(Host(line.name, per_host or line.slots or 1) for line in lines)
    if per_host is None or per_host < 1:
        return (Host("localhost", max(1, options.num_workers)),)
    count = -(-max(1, options.num_workers) // per_host)
    return tuple(Host(f"local{index}", per_host) for index in range(count))


def _variables(
    items: List[str], separator: str, flag: str, faults: List[str], inherit: bool = False
) -> Dict[str, str]:
    variables = {}
    for item in items:
        name, found, value = item.partition(separator)
        is_name = re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name)
        if is_name and found:
            variables[name] = value
        elif is_name and inherit and name in os.environ:
            variables[name] = os.environ[name]
        elif is_name and inherit:
            faults.append(f"{flag} {name}: there is no such variable in the environment")
        else:
            faults.append(f"{flag} {item!r}: write it as NAME{separator}VALUE")
    return variables


def _command(command: List[str], faults: List[str]) -> Tuple[str, ...]:
    if command[:1] == ["--"]:
        command = command[1:]
    if not command:
        faults.append("no command is given: launch.py -n 2 train.py")
        return ()
    program = command[0]
    if program.endswith(".py"):
        if not os.path.isfile(program):
            faults.append(f"the script {program!r} does not exist in {os.getcwd()}")
        return (sys.executable, *command)
    if shutil.which(program) is None:
        is_file = os.path.isfile(program)
        problem = "is not executable (chmod +x it)" if is_file else "does not exist"
        faults.append(f"the command {program!r} {problem}")
    return tuple(command)
