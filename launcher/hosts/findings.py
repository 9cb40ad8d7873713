"""What hosts report, what was found to be wrong with it, and how both are shown. Pure."""

from typing import Any, Callable, Dict, List, Sequence, Tuple

import msgspec
from rich.table import Table
from rich.text import Text

__all__ = ["MIB", "Finding", "HostReport", "lines", "size", "some", "table", "to_json"]

MIB = 1 << 20
_NAMED_AT_MOST = 5


class HostReport(msgspec.Struct):
    """``found`` is what the probe on the host reported; empty with an ``error``: it could not be
    asked, or left. ``unreachable`` are the hosts that it does not reach; -1 is this machine.
    ``skew_s`` is how far its clock is ahead of this machine's."""

    name: str
    error: str = ""
    found: Dict[str, Any] = {}
    unreachable: Tuple[int, ...] = ()
    skew_s: float = 0.0


class Finding(msgspec.Struct, frozen=True):
    """``host`` has ``found``, and ``remedy`` is what to do; if empty, ``found`` says that, too."""

    host: str
    is_error: bool
    found: str
    remedy: str


def size(nbytes: int) -> str:
    return f"{nbytes / 2**30:.1f} GiB" if nbytes >= 2**30 else f"{nbytes / MIB:.0f} MiB"


def lines(findings: Sequence[Finding]) -> List[str]:
    """A line for each thing that was found, however many hosts have it."""
    hosts: Dict[Tuple[str, str], List[str]] = {}
    for finding in findings:
        hosts.setdefault((finding.found, finding.remedy), []).append(finding.host)
    return [
        f"{some(names)}: {found}" + (f"; {remedy}" if remedy else "")
        for (found, remedy), names in hosts.items()
    ]


def some(names: Sequence[str]) -> str:
    """Names, but not too many."""
    more = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


_COLUMNS: Tuple[Tuple[str, Callable[[Dict[str, Any]], str]], ...] = (
    ("address", lambda found: str(found["address"])),
    ("python", lambda found: str(found["python_version"])),
    ("mxnet", lambda found: str(found["mxnet"])),
    ("numpy", lambda found: str(found["numpy"])),
    ("cores", lambda found: str(found["cores"])),
    ("free", lambda found: size(found["memory_free"])),
    ("GPUs", lambda found: str(found["gpus"])),
    ("/dev/shm", lambda found: size(found["shm"])),
)


def table(reports: Sequence[HostReport], findings: Sequence[Finding]) -> Table:
    """One row a host."""
    made = Table()
    for name in ("host", *(name for name, _ in _COLUMNS), "clock", "problems"):
        made.add_column(name, no_wrap=True)
    for report in reports:
        count = sum(finding.host == report.name for finding in findings)
        cells = [column(report.found) if report.found else "" for _, column in _COLUMNS]
        clock = f"{report.skew_s:+.2f} s" if report.found else ""
        made.add_row(*map(Text, (report.name, *cells, clock, str(count or "none"))))
    return made


def to_json(reports: Sequence[HostReport], findings: Sequence[Finding]) -> bytes:
    """Everything, for programs."""
    content = msgspec.json.encode({"hosts": list(reports), "findings": list(findings)})
    return msgspec.json.format(content, indent=2) + b"\n"
