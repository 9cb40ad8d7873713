"""What is wrong with the hosts of a job, according to their reports. Pure.

Each finding says what was found on which host, and what to do about it. An error is what would make
the job fail. Everything else may be as the host's owner wants it.
"""

import re
from collections import Counter
from typing import Any, Dict, Iterator, List, Sequence, Tuple

from .expectations import Expectations
from .findings import MIB, Finding, HostReport, size, some

__all__ = ["DISTRIBUTIONS", "judge", "missing", "skew_s"]

_LOW_MEMORY = 1024 * MIB
_LOW_SHM = 64 * MIB
_LOW_TMP = 100 * MIB
_FEW_FILES = 1024
_SKEW_S = 2.0
_COPY = "use a file system that all hosts share, or copy it there: --sync-dst-dir DIR"
_PYTHONS = ((3, 8), (3, 12))  # as in docs/index.md
_LOWEST = {"zmq": "25", "msgspec": "0.18", "psutil": "5.9", "cloudpickle": "2"}  # as in setup.cfg

DISTRIBUTIONS = {
    "zmq": "pyzmq",
    "msgspec": "msgspec",
    "psutil": "psutil",
    "cloudpickle": "cloudpickle",
}
"""What agents and tasks need beside NumPy, by the names of modules."""


def judge(reports: Sequence[HostReport], expected: Expectations) -> List[Finding]:
    """All findings, errors first, otherwise in the order of the hosts."""
    findings: List[Finding] = []
    usual = {name: _usual(reports, name) for name in ("mxnet", "numpy")}
    for index, report in enumerate(reports):
        if report.error:
            findings.append(Finding(report.name, True, report.error, ""))
            continue
        for look in (_python, _mxnet, _libraries, _files, _network, _resources):
            for is_error, found, remedy in look(index, reports, expected, usual):
                findings.append(Finding(report.name, is_error, found, remedy))
    return sorted(findings, key=lambda finding: not finding.is_error)


Problem = Tuple[bool, str, str]
"""Whether it is an error, what was found, what to do."""


def _python(
    index: int, reports: Sequence[HostReport], expected: Expectations, usual: Dict[str, str]
) -> Iterator[Problem]:
    found = reports[index].found
    python, version = found["python"], found["python_version"]
    if version != expected.python_version:
        yield (
            True,
            f"{python} is Python {version}, here it is {expected.python_version}",
            "use the same on all machines: --python PATH or --setup LINE",
        )
    elif not _PYTHONS[0] <= tuple(_numbers(version)) <= _PYTHONS[1]:
        yield True, f"{python} is Python {version}", "Baryon needs 3.8 to 3.12"


def _mxnet(
    index: int, reports: Sequence[HostReport], expected: Expectations, usual: Dict[str, str]
) -> Iterator[Problem]:
    """MXNet and NumPy: they are there, and of one version on all hosts."""
    found = reports[index].found
    python, pip = found["python"], f"{found['python']} -m pip install"
    mxnet, numpy = found["mxnet"], found["numpy"]
    if not mxnet:
        version = usual["mxnet"] or "1.9.1"
        yield True, f"{python} has no mxnet", f"{pip} mxnet=={version}, or name another --python"
    elif mxnet.startswith("error: "):
        yield True, f"mxnet cannot be imported: {mxnet[7:]}", "repair its installation there"
    is_too_new = numpy.split(".")[0].isdigit() and int(numpy.split(".")[0]) >= 2
    if not numpy:
        yield True, f"{python} has no numpy", f"{pip} numpy=={usual['numpy'] or '1.23.5'}"
    if is_too_new:
        yield True, f"numpy {numpy} is too new for mxnet 1.9", f"{pip} 'numpy<2'"
    for name, version in (("mxnet", mxnet), ("numpy", "" if is_too_new else numpy)):
        is_odd = version and not version.startswith("error: ") and version != usual[name]
        if is_odd and usual[name]:
            remedy = f"{pip} {name}=={usual[name]}"
            yield True, f"{name} {version}, others have {usual[name]}", remedy


def _libraries(
    index: int, reports: Sequence[HostReport], expected: Expectations, usual: Dict[str, str]
) -> Iterator[Problem]:
    """What agents and tasks need beside them. Missing libraries are sent if ours run there."""
    found = reports[index].found
    python, pip = found["python"], f"{found['python']} -m pip install"
    lacking = [DISTRIBUTIONS[module] for module in missing(found)]
    if lacking and not _can_run(found["platform"], expected.platform):
        packages = " ".join(lacking)
        yield (
            True,
            f"{python} lacks {packages}, and those of this machine do not fit there",
            f"{pip} {packages}",
        )
    for module, lowest in _LOWEST.items():
        version = found["modules"][module]
        if version and _numbers(version) < _numbers(lowest):
            name = DISTRIBUTIONS[module]
            yield True, f"{name} {version} is too old", f"{pip} '{name}>={lowest}'"
    if not found["cache"] and (not found["home"] or lacking):
        yield (
            True,
            "neither the home directory nor /tmp has a place for baryon that is ours alone",
            "make ~/.cache/baryon writable, or install baryon there",
        )


def missing(found: Dict[str, Any]) -> List[str]:
    """The modules of DISTRIBUTIONS that a host lacks."""
    return [module for module, version in found["modules"].items() if not version]


def _can_run(theirs: Sequence[str], ours: Sequence[str]) -> bool:
    """Whether compiled modules of ours run there: [cache tag, machine, libc, its version].

    A program runs with the libc that it was made for, and with later ones.
    """
    return theirs[:3] == ours[:3] and _numbers(theirs[3]) >= _numbers(ours[3])


def _numbers(version: str) -> List[int]:
    return [int(number) for number in re.findall("[0-9]+", version)]


def _files(
    index: int, reports: Sequence[HostReport], expected: Expectations, usual: Dict[str, str]
) -> Iterator[Problem]:
    found = reports[index].found
    if not expected.is_synced:
        if found["cwd"] == "missing":
            yield True, f"there is no directory {expected.cwd}", _COPY
            return
        if found["cwd"] == "read-only":
            yield False, f"{expected.cwd} cannot be written to", "the script may want to"
    yield from _program(found, expected)
    if found["other_python"]:
        yield (
            True,
            f"{found['other_python']}, which is to run the script, has no mxnet",
            f"leave the interpreter out ({found['python']} has it: train.py), or name another",
        )


def _program(found: Dict[str, Any], expected: Expectations) -> Iterator[Problem]:
    program, state = expected.program, found["program"]
    if state == "missing":
        if "/" not in program and not expected.is_script:
            remedy = "set PATH by --setup; to run a script, leave its interpreter out: train.py"
            yield True, f"{program} is not on PATH in a login there", remedy
        elif expected.is_synced:
            yield True, f"there is no {program}", "only what is below this directory is copied"
        elif expected.is_here:
            yield True, f"{program} is not in {expected.cwd}", _COPY
        else:
            has_blanks = len(program.split()) > 1
            hint = "; if it is a program with arguments, leave off the quotes round them all"
            remedy = "check its name" + hint * has_blanks
            yield True, f"{program} is not in {expected.cwd}, nor is it here", remedy
    elif state == "not executable":
        yield True, f"{program} is not executable", f"chmod +x {program}"
    elif state.startswith("no "):
        remedy = "install it there, or change the first line of the program"
        yield True, f"{program} is to be run by {state[3:]}, which is not there", remedy


def _network(
    index: int, reports: Sequence[HostReport], expected: Expectations, usual: Dict[str, str]
) -> Iterator[Problem]:
    report = reports[index]
    if report.found["address_error"]:
        yield True, report.found["address_error"], "name one by --interface"
    elif len(reports) > 1 and report.found["address"].startswith(("127.", "::1")):
        yield (
            True,
            f"its address {report.found['address']} leads other hosts to themselves",
            "name the interface that they reach it by: --interface",
        )
    names = [reports[number].name for number in report.unreachable if number >= 0]
    if names:
        yield (
            True,
            f"cannot reach {some(names)}",
            "open all TCP ports between the hosts of a job, or name another --interface",
        )
    if -1 in report.unreachable:
        yield (
            False,
            "cannot reach this machine (NAT or a firewall)",
            "nothing needs to be done: what it has to say goes through its SSH connection",
        )
    if abs(report.skew_s) > _SKEW_S:
        way = "ahead of" if report.skew_s > 0 else "behind"
        yield (
            False,
            f"its clock is {abs(report.skew_s):.1f} s {way} this machine's",
            "logs and file times will not fit together; run NTP there",
        )


def _resources(
    index: int, reports: Sequence[HostReport], expected: Expectations, usual: Dict[str, str]
) -> Iterator[Problem]:
    found = reports[index].found
    if found["memory_error"]:
        yield (
            True,
            f"tasks there cannot share memory: {found['memory_error']}",
            "it takes memfd_create(2) and /proc; a container may lack them",
        )
    named, needed = expected.gpus[index], expected.workers[index] * expected.devices
    if named > found["gpus"]:
        yield (
            True,
            f"{found['gpus']} GPUs, and the host file names {named}",
            "correct gpus= there, or see what nvidia-smi says on the host",
        )
    elif 0 < found["gpus"] < needed and not named:
        yield (
            False,
            f"{found['gpus']} GPUs for {expected.workers[index]} workers with {expected.devices} "
            "devices each",
            "fewer slots= or --devices, or workers share",
        )
    for is_low, what, remedy in (
        (found["memory_free"] < _LOW_MEMORY, f"{size(found['memory_free'])} of memory free", ""),
        (0 <= found["shm"] < _LOW_SHM, f"{size(found['shm'])} free in /dev/shm", ""),
        (found["shm"] < 0, "no /dev/shm", "mount a tmpfs there"),
        (0 <= found["tmp"] < _LOW_TMP, f"{size(found['tmp'])} free in /tmp", "clear it"),
        (
            0 <= found["open_files"] < _FEW_FILES,
            f"at most {found['open_files']} open files",
            "raise nofile in /etc/security/limits.conf",
        ),
    ):
        if is_low:
            yield False, f"only {what}" if what[0].isdigit() else what, remedy or "end what uses it"


def _usual(reports: Sequence[HostReport], name: str) -> str:
    """The version that most hosts have."""
    versions = [r.found[name] for r in reports if r.found and r.found[name]]
    counts = Counter(v for v in versions if not v.startswith("error: "))
    return counts.most_common(1)[0][0] if counts else ""


def skew_s(sent_at_s: float, received_at_s: float, theirs_s: float) -> float:
    """How far a clock that said ``theirs_s`` in between is certainly ahead, or behind if negative
    (Cristian's method: it may have been said at any time between the two)."""
    return min(0.0, theirs_s - sent_at_s) or max(0.0, theirs_s - received_at_s)
