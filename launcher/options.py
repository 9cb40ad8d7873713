"""Makes a `Job` of the flags, the host file and the environment.

All faults are collected first, so that one run reports them all.
"""

import os
import re
import sys
import time
from typing import Dict, List, Mapping, Tuple

from baryon.ps import UsageError
from baryon.scheduler import terminal_sizes
from baryon.scheduler.control import Host, Job, Task, place

from .clusters import allocated_hosts
from .command import Command, read_command
from .flags import MANAGERS, Options, parse_flags
from .heeded import look_for_vain_flags
from .places import groups_of, hosts_of, is_script, too_few_gpus

__all__ = ["parse", "parse_doctor"]

_MAX_SECONDS = 1e7  # four months; clocks and poll(2) have limits
# ssh passes on no environment variables. These control MXNet and its libraries.
_PASSED_ON = ("MXNET_", "OMP_", "KMP_", "MKL_", "NCCL_")


def parse(argv: List[str]) -> Tuple[Job, Options]:
    """The job that ``argv`` describes. ``argv`` lacks the program's name.

    Raises UsageError with every fault found, one a line.
    """
    return _job(parse_flags(argv))


def parse_doctor(argv: List[str]) -> Tuple[Job, Options]:
    """Like `parse`, for ``baryon doctor``, which needs neither -n nor a command."""
    options = parse_flags(argv, is_doctor=True)
    if options.launcher not in (None, "local", "ssh"):
        raise UsageError(
            "the doctor looks at hosts over ssh (-H FILE) or at this machine; for "
            f"{options.launcher} there is launch.py --dry-run"
        )
    return _job(options, is_doctor=True)


def _job(options: Options, is_doctor: bool = False) -> Tuple[Job, Options]:
    faults: List[str] = []
    launcher = options.launcher or ("local" if options.hostfile is None else "ssh")
    if options.hostfile is not None and is_script(options.hostfile):  # then nothing else is right
        raise UsageError(
            f"-H {options.hostfile}: that is a script, not a host file; name the hosts, and then "
            f"the command: launch.py -n 2 -H node1,node2 {options.hostfile}"
        )
    hosts = hosts_of(options, launcher, faults)
    env, env_server, env_worker = _environment(options, launcher, faults)
    command = Command()
    if not is_doctor or options.command or options.module is not None:
        command = _command(options, launcher, faults)
    _check_numbers(options, launcher, faults)
    _check_texts(command, env, faults)
    _check_places(options, launcher, faults)
    if options.json and not (options.dry_run or is_doctor):
        faults.append("--json is for --dry-run and baryon doctor")
    notes: List[str] = []
    is_allocated = launcher == "slurm" and allocated_hosts(launcher, os.environ) > 0
    look_for_vain_flags(options, launcher, is_allocated, faults, notes)
    options.notes = tuple(notes)
    devices = _devices(options, faults)
    tasks = _placed(options, hosts, devices, faults)
    if faults:
        raise UsageError("\n".join(faults))
    job_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    workdir = options.workdir if launcher == "kubernetes" else None
    interface = options.interface or os.environ.get("DMLC_INTERFACE", "")
    on_stdout, on_stderr = terminal_sizes()
    size = on_stderr or on_stdout
    job = Job(
        id=job_id,
        command=command.words,
        is_script=command.is_script,
        cwd=workdir or (launcher == "ssh" and options.sync_dst_dir) or os.getcwd(),
        hosts=hosts,
        tasks=tasks,
        python=sys.executable,
        log_dir=os.path.abspath(options.log_dir or os.path.join("baryon-logs", job_id)),
        launcher=launcher,
        devices=devices,
        kvstore=options.kvstore,
        port=options.port,
        interfaces=tuple(filter(None, interface.split(","))),
        env=env,
        env_worker={**env_worker, **command.env},
        env_server=env_server,
        timeout_s=options.timeout,
        start_s=options.start_timeout,
        silence_s=options.heartbeat_timeout,
        is_quiet=options.quiet,
        is_terminal=on_stdout is not None,
        columns=size.columns if size else 0,
        rows=size.rows if size else 0,
        shares_memory=not options.no_shared_memory,
        encrypts_data=not options.no_encryption,
        staleness=options.staleness,
    )
    return job, options


def _environment(
    options: Options, launcher: str, faults: List[str]
) -> Tuple[Dict[str, str], Dict[str, str], Dict[str, str]]:
    """The variables of all tasks, of servers, and of workers."""
    env = _variables(options.env, "=", "--env", faults, inherit=True)
    env_server = _variables(options.env_server, "=:", "--env-server", faults)
    env_worker = _variables(options.env_worker, "=:", "--env-worker", faults)
    if launcher != "local":
        env = {**_passed_on(os.environ), **env}
    return env, env_server, env_worker


def _command(options: Options, launcher: str, faults: List[str]) -> Command:
    is_copied = options.sync_dst_dir is not None
    is_elsewhere = (launcher == "kubernetes" and options.workdir is not None) or (
        launcher == "ssh" and not is_copied
    )
    return read_command(options.command, options.module, not is_elsewhere, is_copied, faults)


def _placed(
    options: Options, hosts: Tuple[Host, ...], devices: int, faults: List[str]
) -> Tuple[Task, ...]:
    """The tasks on their hosts; none if there are faults."""
    groups = () if faults else groups_of(options.topology, hosts, faults)
    if faults:
        return ()
    count = options.num_workers or sum(host.slots for host in hosts)
    try:
        tasks = place(hosts, count, options.num_servers, not options.no_shared_memory, groups)
    except UsageError as error:
        faults.append(str(error))
        return ()
    faults += too_few_gpus(hosts, tasks, devices)
    return tasks


def _check_texts(command: Command, env: Mapping[str, str], faults: List[str]) -> None:
    for what, text in [
        ("working directory", os.getcwd()),
        *(("argument", word) for word in command.words),
        *((f"value of --env {name}", value) for name, value in env.items()),
    ]:
        if not _is_utf8(text):
            faults.append(f"the {what} {text!r} is not UTF-8, so it cannot reach other hosts")


def _check_places(options: Options, launcher: str, faults: List[str]) -> None:
    if options.sync_dst_dir == "":
        faults.append("--sync-dst-dir is empty; name a directory on the hosts, as '~/job'")
    _check_patterns(options, launcher, faults)
    if launcher == "ssh" and options.hostfile is None:
        faults.append("--launcher ssh needs hosts: -H FILE, or -H node1,node2")
    if launcher == "mpi" and options.hostfile is None and not allocated_hosts("mpi", os.environ):
        faults.append(
            "--launcher mpi needs hosts: -H FILE, or an allocation of Slurm, PBS, Grid Engine or "
            "LSF to run in"
        )
    if launcher in MANAGERS and launcher != "mpi" and options.hostfile is not None:
        faults.append(f"-H is not for --launcher {launcher}, which chooses the hosts itself")


def _check_numbers(options: Options, launcher: str, faults: List[str]) -> None:
    for flag, value in (
        ("-n", options.num_workers),
        ("-s", options.num_servers),
        ("--workers-per-host", options.workers_per_host),
        ("--devices", options.devices),
        ("--cpus-per-worker", options.cpus_per_worker),
        ("--gpus-per-worker", options.gpus_per_worker),
    ):
        if value is not None and value < 1:
            faults.append(f"{flag} must be 1 or more, not {value}")
    for flag, seconds in (
        ("--timeout", options.timeout),
        ("--heartbeat-timeout", options.heartbeat_timeout),
        ("--start-timeout", options.start_timeout),
        ("--queue-timeout", options.queue_timeout),
        ("--time-margin", options.time_margin),
    ):
        if seconds is not None and not 0 < seconds <= _MAX_SECONDS:
            faults.append(f"{flag} must be a number of seconds above 0, not {seconds:g}")
    if 0 < options.heartbeat_timeout < 1:
        faults.append("--heartbeat-timeout must be at least 1 second; less is shorter than a pause")
    if options.staleness < 0:
        faults.append(f"--staleness must be 0 or more rounds, not {options.staleness}")
    if options.resubmit < 0:
        faults.append(f"--resubmit must be 0 or more, not {options.resubmit}")
    if options.resubmit > 0 and launcher in ("local", "ssh", "mpi"):
        faults.append(f"--resubmit is for managers that have a queue, which {launcher} has not")
    if not 0 <= options.port < 65536:
        faults.append(f"--port must be between 1 and 65535, not {options.port}")


def _check_patterns(options: Options, launcher: str, faults: List[str]) -> None:
    if options.fetch and options.sync_dst_dir is None and launcher == "ssh":
        faults.append("--fetch is for files below --sync-dst-dir, which is not given")
    for pattern in options.fetch:
        if not pattern or pattern.startswith(("/", "~")) or ".." in pattern.split("/"):
            faults.append(
                f"--fetch {pattern!r}: write it relative to --sync-dst-dir, and without .., as "
                "'out/*.params'"
            )


def _devices(options: Options, faults: List[str]) -> int:
    """The devices of each worker. --gpus-per-worker sets them, too."""
    gpus = options.gpus_per_worker
    if gpus is not None and options.devices not in (1, gpus):
        faults.append(f"--gpus-per-worker {gpus} and --devices {options.devices} contradict")
    return gpus or options.devices


def _is_utf8(text: str) -> bool:
    """Whether the text encodes as UTF-8. Python marks other bytes by surrogates, which do not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _passed_on(environ: Mapping[str, str]) -> Dict[str, str]:
    return {name: value for name, value in environ.items() if name.startswith(_PASSED_ON)}


def _variables(
    items: List[str], separators: str, flag: str, faults: List[str], inherit: bool = False
) -> Dict[str, str]:
    """``NAME=VALUE``, or, with ":" among the ``separators``, ``NAME:VALUE``."""
    variables = {}
    for item in items:
        found = re.fullmatch(rf"([^\s{separators}]+)(?:[{separators}](.*))?", item, re.DOTALL)
        name, value = found.groups() if found else ("", None)
        if value is not None:
            variables[name] = value
        elif name and inherit and name in os.environ:
            variables[name] = os.environ[name]
        elif name and inherit:
            faults.append(
                f"{flag} {name}: there is no such variable in the environment; {flag} NAME=VALUE "
                "makes one"
            )
        else:
            faults.append(f"{flag} {item!r}: write it as NAME=VALUE")
    return variables
