"""Host files: which machines a job may use. Pure.

One host a line: ``name``, ``name slots=4``; blank lines and what follows a ``#`` are ignored.
"""

import re
from typing import List, NamedTuple, Optional, Tuple

from baryon.ps import UsageError

__all__ = ["HostLine", "parse_hosts"]


class HostLine(NamedTuple):
    """``slots`` is None where the line leaves it to --workers-per-host."""

    name: str
    slots: Optional[int] = None
    user: Optional[str] = None
    port: Optional[int] = None
    gpus: Tuple[str, ...] = ()


def parse_hosts(text: str, source: str) -> Tuple[HostLine, ...]:
    """The hosts in the text of a host file; ``source`` is its name, for errors.

    Raises UsageError that lists every fault with its line and column.
    """
    hosts: List[HostLine] = []
    faults: List[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = list(re.finditer(r"\S+", line.partition("#")[0]))
        if not words:
            continue
        host = words[0].group()
        slots = None
        for match in words[1:]:
            word = match.group()
            name, equals, value = word.partition("=")
            where = f"{source}:{number}:{match.start() + 1}"
            if name != "slots" or not equals:
                faults.append(
                    f"{where}: {word!r} is not understood; only slots=N may follow a host"
                )
            elif not re.fullmatch("[0-9]+", value) or int(value) < 1:
                faults.append(f"{where}: slots must be a number from 1 on, not {value!r}")
            else:
                slots = int(value)
        if any(host == other.name for other in hosts):
            where = f"{source}:{number}:{words[0].start() + 1}"
            faults.append(f"{where}: host {host!r} is listed twice; use slots=N")
        hosts.append(HostLine(host, slots))
    if not hosts and not faults:
        faults.append(f"{source}: no host is listed; write one name a line")
    if faults:
        raise UsageError("\n".join(faults))
    return tuple(hosts)


def parse_host_list(text):
    return tuple(HostLine(n) for n in text.split(",") if n)
