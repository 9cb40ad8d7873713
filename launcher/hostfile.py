"""Host files and host lists: which machines a job may use. Pure.

Each line of a host file is a host with its settings. ``#`` begins a comment::

    node1                       # a name, an address, or an alias of ~/.ssh/config
    ada@node2:2222 slots=4      # user, ssh port, worker processes
    [fd77::11]:2222             # IPv6; brackets are needed for a port only
    node[01-16,20] gpus=0,1     # ranges; the GPUs that workers may use

A host that is listed twice (same user, name and port) is one host. Its slots add up, and it has the
GPUs of both lines.
All faults are reported at once, each with its place and what to write instead.

ClusterShell's NodeSet was rejected for the ranges. It sorts hosts and drops repeats, while here the
order gives the ranks and a repeat adds slots. It refuses n[1-2][1-2], its operators (``!&^``) make
other lists of typing errors, and n[1-999999999] fills the memory before it can be refused. (Lists
of Slurm's are expanded by Slurm itself: ``scontrol show hostnames``.)
"""

import ipaddress
import itertools
import re
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from baryon.ps import UsageError

__all__ = ["HostLine", "expanded", "parse_host_list", "parse_hosts"]

_MAX_HOSTS = 10_000
_MAX_SLOTS = 10_000
_MOST_FAULTS = 10  # shown for a file; a file with more is probably not a host file
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_USER = re.compile(r"(?!-)[A-Za-z0-9_.+$\\@-]+")
_GPU = re.compile(r"[0-9]{1,4}|(?:GPU|MIG)-[A-Za-z0-9/-]+")
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")
_COMMA_OUTSIDE_BRACKETS = re.compile(r",(?![^\[\]]*\])")

Word = Tuple[str, str]
"""The place of a word, for error messages, and the word."""


class HostLine(NamedTuple):
    """A host as the user wrote it. ``name`` is without user, port and IPv6 brackets.

    ``slots`` is None if only one line names the host, without slots=. ``gpus`` are CUDA's numbers
    or identifiers such as ``GPU-5d6a...``, without repeats.
    """

    name: str
    slots: Optional[int] = None
    user: Optional[str] = None
    port: Optional[int] = None
    gpus: Tuple[str, ...] = ()


def parse_hosts(text: str, source: str) -> Tuple[HostLine, ...]:
    """The hosts in the text of a host file, in order. ``source`` is its name, for messages.

    Raises UsageError that lists every fault as ``source:line:column: ...``.
    """
    listing = _Listing()
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        found = re.finditer(r"\S+", line.partition("#")[0])
        words = [(f"{source}:{number}:{word.start() + 1}", word.group()) for word in found]
        if words:
            listing.add(words)
    if len(listing.faults) > _MOST_FAULTS:
        more = len(listing.faults) - _MOST_FAULTS
        listing.faults[_MOST_FAULTS:] = [f"{source}: and {more} more faults; is it a host file?"]
    return listing.hosts(f"{source}: no host is listed; write one name a line")


def parse_host_list(text: str) -> Tuple[HostLine, ...]:
    """The hosts of ``-H a,ada@b:2222,node[1-4]``.

    Raises UsageError that lists every fault as ``-H, column N: ...``.
    """
    listing = _Listing()
    start = 0
    for item in _COMMA_OUTSIDE_BRACKETS.split(text):
        words = [
            (f"-H, column {start + word.start() + 1}", word.group())
            for word in re.finditer(r"\S+", item)
        ]
        if not words:
            listing.faults.append(f"-H, column {start + 1}: a name is missing beside a comma")
        else:
            listing.add(words[:1])
        for where, word in words[1:]:
            listing.faults.append(
                f"{where}: {word!r} is not understood; put a comma between hosts, and write slots "
                "and gpus into a host file"
            )
        start += len(item) + 1
    return listing.hosts("-H names no host")


class _Listing:
    """Collects hosts and faults."""

    def __init__(self) -> None:
        self.faults: List[str] = []
        self._hosts: Dict[Tuple[object, ...], HostLine] = {}
        self._count = 0

    def hosts(self, if_none: str) -> Tuple[HostLine, ...]:
        if not self._hosts and not self.faults:
            self.faults.append(if_none)
        if self.faults:
            raise UsageError("\n".join(self.faults))
        return tuple(self._hosts.values())

    def add(self, words: Sequence[Word]) -> None:
        """Add a line: a host and its settings."""
        where, target = words[0]
        names, user, port = self._target(where, target)
        slots, gpus, gpus_where = self._settings(words[1:])
        for name in names:
            new = HostLine(name, slots, user, port, gpus)
            old = self._hosts.get((user, name, port))
            if old is not None:
                twice = sorted(set(old.gpus) & set(gpus))
                if twice:
                    self.faults.append(
                        f"{gpus_where}: {name} has GPU {twice[0]} already; name it once"
                    )
                    return
                new = new._replace(slots=_slots(old) + _slots(new), gpus=old.gpus + gpus)
            self._hosts[user, name, port] = new

    def _target(self, where: str, word: str) -> Tuple[List[str], Optional[str], Optional[int]]:
        """The parts of ``[user@]host[:port]``. No names if there is a fault."""
        user, at, host = word.rpartition("@")
        host, port = _split_port(host)
        faults: List[str] = []
        if at and not user:
            faults.append(f"the user before the @ of {word!r} is missing; leave out the @, too")
        elif at and not _USER.fullmatch(user):
            faults.append(
                f"{user!r} cannot be a user name: letters, digits and . _ - + $ only, no - in front"
            )
        if port is not None and not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536):
            faults.append(
                f"the port of {word!r} must be a number from 1 to 65535; an IPv6 address with a "
                "port is written [address]:port"
            )
        names: List[str] = []
        try:
            names = expanded(host, _MAX_HOSTS - self._count)
            self._count += len(names)
            for name in names:
                _check_name(name)
        except ValueError as error:
            faults.append(str(error))
        self.faults += [f"{where}: {fault}" for fault in faults]
        if faults:
            return [], None, None
        return names, user or None, None if port is None else int(port)

    def _settings(self, words: Sequence[Word]) -> Tuple[Optional[int], Tuple[str, ...], str]:
        """The values of ``slots=`` and ``gpus=``, and the place of ``gpus=``."""
        slots: Optional[int] = None
        gpus: Tuple[str, ...] = ()
        gpus_where = ""
        seen = set()
        for where, word in words:
            name, equals, value = word.partition("=")
            fault = None
            if name not in ("slots", "gpus") or not equals:
                fault = (
                    f"{word!r} is not understood; only slots=N and gpus=0,1 may follow a host, "
                    "without blanks in them; each host has a line of its own"
                )
            elif name in seen:
                fault = f"{name}= is there twice; write it once"
            elif name == "slots" and not re.fullmatch("[0-9]{1,5}", value):
                fault = f"slots must be a number from 1 on, not {value!r}"
            elif name == "slots":
                slots = int(value)
                if not 1 <= slots <= _MAX_SLOTS:
                    fault = f"slots must be a number from 1 on, at most {_MAX_SLOTS}, not {value!r}"
            else:
                gpus, gpus_where = tuple(map(_gpu, value.split(","))), where
                fault = _gpus_fault(gpus)
            seen.add(name)
            if fault:
                self.faults.append(f"{where}: {fault}")
        return slots, gpus, gpus_where


def _slots(line: HostLine) -> int:
    """The slots of a line if other lines name the same host."""
    return line.slots or len(line.gpus) or 1


def _gpu(word: str) -> str:
    return str(int(word)) if re.fullmatch("[0-9]{1,4}", word) else word


def _gpus_fault(gpus: Sequence[str]) -> Optional[str]:
    for index, gpu in enumerate(gpus):
        if not _GPU.fullmatch(gpu):
            return (
                f"{gpu!r} is no GPU; write gpus=0,1 or identifiers as nvidia-smi -L shows them "
                "(GPU-...), with commas and without blanks"
            )
        if gpu in gpus[:index]:
            return f"GPU {gpu} is there twice; name it once"
    return None


def _split_port(host: str) -> Tuple[str, Optional[str]]:
    """The host and the port after its last colon, if any. A bare IPv6 address has no port."""
    if host.count(":") >= 2 and "[" not in host:
        return host, None
    name, colon, port = host.rpartition(":")
    return (name, port) if colon and "]" not in port else (host, None)


def expanded(host: str, most: int) -> List[str]:
    """The names that ``host`` means: ``n[1-2]`` is n1 and n2, but ``[fd77::1]`` is an address.

    Raises ValueError with the fault.
    """
    if host.startswith("[") and host.endswith("]") and ":" in host:
        host = host[1:-1]
    if ":" in host:
        return [host]  # an address, or a fault for the caller to find
    parts = re.split(r"\[([^\[\]]*)\]", host)
    if any("[" in part or "]" in part for part in parts[::2]):
        raise ValueError(f"a bracket of {host!r} has no partner; write ranges as node[01-16,20]")
    ranges = []
    count = 1
    for part in parts[1::2]:
        bounds = [_bounds(item, part) for item in part.split(",")]
        count *= sum(last - first + 1 for first, last, _ in bounds)
        ranges.append(bounds)
    if count > most:
        raise ValueError(f"with {host!r} there are more than {_MAX_HOSTS} hosts; name fewer")
    choices = [[part] for part in parts]
    choices[1::2] = [
        [
            str(number).zfill(width)
            for first, last, width in bounds
            for number in range(first, last + 1)
        ]
        for bounds in ranges
    ]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def _bounds(item: str, part: str) -> Tuple[int, int, int]:
    """The first number, last number and width of one item of a range."""
    match = _RANGE.fullmatch(item)
    if match is None:
        raise ValueError(f"[{part}] is no range of numbers; write it as [01-16] or [1-3,7]")
    first, last = match.group(1), match.group(2) or match.group(1)
    if int(last) < int(first):
        raise ValueError(f"the range {item} in [{part}] runs backwards; write {last}-{first}")
    return int(first), int(last), len(first) if first.startswith("0") else 0


def _check_name(name: str) -> None:
    """Raise ValueError if ``name`` is neither a host name nor an address."""
    labels = name.split(".")
    if ":" in name:
        address, percent, zone = name.partition("%")
        try:
            ipaddress.IPv6Address(address)
        except ValueError as error:
            raise ValueError(f"{name!r} is no IPv6 address: {error}") from None
        if percent and not re.fullmatch("[A-Za-z0-9_.-]+", zone):
            raise ValueError(f"{name!r} names no network interface after its %")
    elif not name:
        raise ValueError("the host's name is missing")
    elif name.startswith("-"):
        raise ValueError(f"{name!r} cannot be a host: a name must not begin with a -")
    elif not name.isascii():
        raise ValueError(f"{name!r} is not ASCII; write its xn-- form or its address")
    elif re.fullmatch("[0-9]+", labels[-1]):
        if len(labels) != 4 or not all(_is_octet(label) for label in labels):
            raise ValueError(f"{name!r} is no IPv4 address: four numbers from 0 to 255")
    elif len(name) > 253 or not all(
        map(_LABEL.fullmatch, labels[:-1] if name[-1] == "." else labels)
    ):
        raise ValueError(
            f"{name!r} cannot be a host name: letters, digits, - and _ between dots, at most 63 "
            "each; one host a line"
        )


def _is_octet(text: str) -> bool:
    return re.fullmatch("0|[1-9][0-9]{0,2}", text) is not None and int(text) < 256
