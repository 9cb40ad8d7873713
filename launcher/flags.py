"""Parsed command lines, before their values are checked."""

import argparse
from typing import FrozenSet, List, Optional, Tuple

from .flag_groups import MANAGERS
from .hostfile import HostLine
from .parsers import command_parser, flag_parser

__all__ = ["MANAGERS", "JobCommand", "Options", "parse_command", "parse_flags"]


class Options(argparse.Namespace):
    """The values of all flags, as given."""

    num_workers: Optional[int]
    num_servers: Optional[int]
    hostfile: Optional[str]
    launcher: Optional[str]
    sync_dst_dir: Optional[str]
    fetch: List[str]
    env: List[str]
    env_server: List[str]
    env_worker: List[str]
    p3: bool
    dry_run: bool
    detach: bool
    quiet: bool
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
    module: Optional[List[str]] = None  # of -m, with its arguments
    command: List[str]
    json: bool = False

    given: FrozenSet[str] = frozenset()  # names of the flags with other values than the default
    notes: Tuple[str, ...] = ()  # for the user: flags that have no effect
    lines: Tuple[HostLine, ...] = ()  # of the host file, one for each host of the job


class JobCommand(argparse.Namespace):
    """A command line of ``baryon``, except ``doctor``'s. No ``job`` means the newest one."""

    verb: str
    shell: str  # of completion
    job: Optional[str]
    task: Optional[str]
    follow: bool


def parse_flags(argv: List[str], is_doctor: bool = False) -> Options:
    """Parse ``argv``, which lacks the program's name. Raises UsageError."""
    parser = flag_parser(is_doctor)
    options = parser.parse_args(argv, namespace=Options())
    if not is_doctor and options.num_workers is None and options.workers_per_host is None:
        parser.error("the number of workers is missing: -n N, before the command")
    options.given = frozenset(
        name for name, value in vars(options).items() if value != parser.get_default(name)
    )
    return options


def parse_command(argv: List[str]) -> JobCommand:
    """Parse the words after ``baryon``, except ``doctor``'s. Raises UsageError."""
    return command_parser().parse_args(argv, namespace=JobCommand())
