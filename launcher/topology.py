"""Topology files: which hosts are near each other. Pure.

Each line is a group of hosts or of other groups. ``#`` begins a comment::

    rack1: node[01-08]
    rack2: node[09-16]
    site1: rack1 rack2

Each group gets a server that sums the gradients of its members, so the links out of the group carry
the bytes of one worker. Hosts have the same names as in the host file. Hosts outside of all groups
send to the owners directly.
"""

import re
from typing import Dict, List, Sequence, Tuple

from baryon.ps import UsageError
from baryon.scheduler.control import Group

from .hostfile import expanded

__all__ = ["parse_topology"]

_MAX_MEMBERS = 10_000


def parse_topology(text: str, source: str, hosts: Sequence[str]) -> Tuple[Group, ...]:
    """The groups in the text of a topology file. ``hosts`` are the names of the job's hosts.

    Raises UsageError that lists every fault as ``source:line: ...``.
    """
    faults: List[str] = []
    lines: Dict[str, Tuple[str, List[str]]] = {}  # group -> where it stands, its members
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        where = f"{source}:{number}"
        name, colon, rest = line.partition(":")
        name = name.strip()
        if not colon or not name or re.search(r"\s", name):
            faults.append(f"{where}: write a group as NAME: MEMBER MEMBER ..., not {line!r}")
        elif name in hosts or name in lines:
            what = "a host" if name in hosts else "a group"
            faults.append(f"{where}: {name} is {what} already; give the group another name")
        elif not rest.strip():
            faults.append(f"{where}: group {name} has no members; name hosts or groups after it")
        else:
            lines[name] = where, _members(where, rest, faults)
    if not lines and not faults:
        faults.append(f"{source}: no group is listed; write one as NAME: HOST HOST ...")
    group_of = _group_of(lines, hosts, faults)
    faults += _circles(lines, group_of)
    if faults:
        raise UsageError("\n".join(faults))
    numbers = {name: number for number, name in enumerate(lines)}
    return tuple(
        Group(
            name,
            tuple(hosts.index(member) for member in members if member not in lines),
            numbers[group_of[name]] if name in group_of else None,
        )
        for name, (_, members) in lines.items()
    )


def _members(where: str, text: str, faults: List[str]) -> List[str]:
    members: List[str] = []
    for word in text.split():
        try:
            members += expanded(word, _MAX_MEMBERS - len(members))
        except ValueError as error:
            faults.append(f"{where}: {error}")
    return members


def _group_of(
    lines: Dict[str, Tuple[str, List[str]]], hosts: Sequence[str], faults: List[str]
) -> Dict[str, str]:
    """The group that each member is in."""
    group_of: Dict[str, str] = {}
    for group, (where, members) in lines.items():
        for member in members:
            if member not in hosts and member not in lines:
                faults.append(f"{where}: {member} is neither a host of this job nor a group")
            elif hosts.count(member) > 1:
                faults.append(f"{where}: several hosts are called {member}; name it once in -H")
            elif member in group_of:
                faults.append(
                    f"{where}: {member} is in group {group_of[member]} already; "
                    "a host or group is in one"
                )
            else:
                group_of[member] = group
    return group_of


def _circles(lines: Dict[str, Tuple[str, List[str]]], group_of: Dict[str, str]) -> List[str]:
    for name, (where, _) in lines.items():
        way = [name]
        while way[-1] in group_of and len(way) <= len(lines):
            way.append(group_of[way[-1]])
            if way[-1] == name:
                return [f"{where}: group {name} contains itself: {' in '.join(way)}"]
    return []
