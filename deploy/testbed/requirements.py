"""Checks that this machine can run a test bed. Reports all problems at once, with remedies."""

import os
import shutil
from typing import List

from .processes import COMMAND_ENV, TestbedError, call

__all__ = ["check", "problems"]

_PACKAGES = {
    "sshd": "openssh-server",
    "ssh-keygen": "openssh-client",
    "ip": "iproute2",
    "tc": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
    "hostname": "hostname",
    "bash": "bash",
}
_PROBES = {
    "bridges": "ip link add probe type bridge",
    "veth links": "ip link add probe0 type veth peer name probe1",
    "token bucket filter": "tc qdisc add dev lo root tbf rate 1gbit burst 256k latency 50ms",
    "packet filters on bridges (nft)": "nft add table bridge probe",
}


def problems() -> List[str]:
    """The problems that prevent a test bed here, with remedies; empty if there are none."""
    found = []
    missing = [command for command in _PACKAGES if not _has(command)]
    if missing:
        packages = " ".join(sorted({_PACKAGES[command] for command in missing}))
        found.append(f"not found: {', '.join(missing)}; apt-get install {packages}")
    if os.geteuid():
        found.append("only root can make hosts; put sudo before the command")
    return found or _kernel_problems()


def check() -> None:
    """Raises TestbedError that lists all problems, one a line."""
    found = problems()
    if found:
        raise TestbedError("\n".join(found))


def _has(command: str) -> bool:
    return shutil.which(command, path=COMMAND_ENV["PATH"]) is not None


def _kernel_problems() -> List[str]:
    """Try each feature in a namespace of its own, so that nothing remains."""
    try:
        call(["unshare", "-n", "-u", "-i", "-m", "-p", "-f", "true"])
    except TestbedError as error:
        return [f"no namespaces ({error}); in a container, run it with --privileged"]
    found = []
    for what, command in _PROBES.items():
        try:
            call(["unshare", "-n", "sh", "-ec", command])
        except TestbedError as error:
            reason = str(error).rpartition(": ")[2]
            found.append(
                f"the kernel has no {what} ({reason});"
                " load the module (modprobe bridge veth sch_tbf nf_tables) or use another kernel"
            )
    return found
