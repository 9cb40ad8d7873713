"""Host files: which machines a job may use. Pure.

One host a line: ``name``, ``name slots=4``; blank lines and what follows a ``#`` are ignored.
"""

from typing import List, NamedTuple, Optional, Tuple

from baryon.ps import UsageError

__all__ = ["HostLine", "parse_hosts"]


class HostLine(NamedTuple):
    """``slots`` is None where the line leaves it to --workers-per-host."""

    name: str
    slots: Optional[int]


def parse_hosts(text: str, source: str) -> Tuple[HostLine, ...]:
    """The hosts in the text of a host file; ``source`` is its name, for errors.

    Raises UsageError that lists every fault with its line and column.
    """
    hosts: List[HostLine] = []
    faults: List[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        slots = None
        for word in words[1:]:
            name, equals, value = word.partition("=")
            where = f"{source}:{number}:{line.index(word) + 1}"
            if name != "slots" or not equals:
                faults.append(
                    f"{where}: {word!r} is not understood; only slots=N may follow a host"
                )
            elif not value.isdigit() or int(value) < 1:
                faults.append(f"{where}: slots must be a number from 1 on, not {value!r}")
            else:
                slots = int(value)
        if any(host.name == words[0] for host in hosts):
            faults.append(f"{source}:{number}:1: host {words[0]!r} is listed twice; use slots=N")
        hosts.append(HostLine(words[0], slots))
    if not hosts and not faults:
        faults.append(f"{source}: no host is listed; write one name a line")
    if faults:
        raise UsageError("\n".join(faults))
    return tuple(hosts)
