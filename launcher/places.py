"""Where a job runs: from host file, topology file and flags to Hosts and Groups."""

import os
from typing import List, Optional, Tuple

from baryon.ps import UsageError
from baryon.scheduler.control import Group, Host, Task

from .clusters import allocated_hosts
from .flags import MANAGERS, Options
from .hostfile import HostLine, parse_host_list, parse_hosts
from .topology import parse_topology

__all__ = ["groups_of", "hosts_of", "is_script", "too_few_gpus"]


def hosts_of(options: Options, launcher: str, faults: List[str]) -> Tuple[Host, ...]:
    """The hosts that the flags name, or stand-ins for those that a manager will choose.

    Keeps the lines of a host file in ``options.lines``.
    """
    per_host = options.workers_per_host
    lines: Tuple[HostLine, ...] = ()
    if options.hostfile is not None:
        try:
            lines = _host_lines(options.hostfile)
        except UsageError as error:
            faults.append(str(error))
    if lines:
        options.lines = lines
        names = _display_names(lines)
        devices = max(1, options.devices)
        return tuple(
            Host(name, per_host or line.slots or len(line.gpus) // devices or 1, line.gpus)
            for name, line in zip(names, lines)
        )
    allocated = allocated_hosts(launcher, os.environ) if launcher in MANAGERS else 0
    count = max(1, options.num_workers or (per_host or 1) * (allocated or 1))
    if launcher in MANAGERS:
        slots = per_host if per_host and per_host > 0 else -(-count // (allocated or count))
        indices = range(-(-count // slots))
        return tuple(Host(f"host {index}", slots, is_allotted=True) for index in indices)
    if per_host is None or per_host < 1:
        return (Host("localhost", count),)
    return tuple(Host(f"local{index}", per_host) for index in range(-(-count // per_host)))


def groups_of(path: Optional[str], hosts: Tuple[Host, ...], faults: List[str]) -> Tuple[Group, ...]:
    """The groups of a topology file."""
    if path is None:
        return ()
    try:
        with open(path, encoding="utf-8-sig") as file:
            return parse_topology(file.read(), path, [host.name for host in hosts])
    except OSError as error:
        faults.append(f"topology file {path}: {error.strerror}")
    except UnicodeDecodeError as error:
        faults.append(f"topology file {path} is not UTF-8 text: {error.reason}")
    except UsageError as error:
        faults.append(str(error))
    return ()


def too_few_gpus(hosts: Tuple[Host, ...], tasks: Tuple[Task, ...], devices: int) -> List[str]:
    """A fault for each host that has fewer GPUs than its workers need."""
    faults = []
    for index, host in enumerate(hosts):
        workers = sum(task.host == index and task.role == "worker" for task in tasks)
        if host.gpus and workers * devices > len(host.gpus):
            faults.append(
                f"host {host.name}: gpus={','.join(host.gpus)} are too few for {workers} workers "
                f"with --devices {devices} each; name more GPUs or fewer slots"
            )
    return faults


def is_script(path: str) -> bool:
    """Whether a file that was given as a host file is a program."""
    if path.endswith(".py"):
        return True
    try:
        with open(path, "rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return False


def _host_lines(hostfile: str) -> Tuple[HostLine, ...]:
    """The lines of a host file, or of a list with a comma in it. Raises UsageError."""
    if "," in hostfile and not os.path.exists(hostfile):
        return parse_host_list(hostfile[:-1] if hostfile.endswith(",") else hostfile)
    try:
        with open(hostfile, encoding="utf-8-sig") as file:
            return parse_hosts(file.read(), hostfile)
    except OSError as error:
        hint = f"; a list needs a comma: -H {hostfile}," if "/" not in hostfile else ""
        raise UsageError(f"host file {hostfile}: {error.strerror}{hint}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"host file {hostfile} is not UTF-8 text: {error.reason}") from error


def _display_names(lines: Tuple[HostLine, ...]) -> List[str]:
    """The hosts' names, with user and port where a name alone is ambiguous."""
    names = [line.name for line in lines]
    full = [
        (f"{line.user}@" if line.user else "")
        + (f"[{line.name}]" if ":" in line.name and line.port else line.name)
        + (f":{line.port}" if line.port else "")
        for line in lines
    ]
    return [name if names.count(name) == 1 else long for name, long in zip(names, full)]
