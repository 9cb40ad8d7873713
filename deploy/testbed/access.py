"""Writes the files that ssh needs to reach the hosts: keys, known hosts and a configuration."""

import os
import subprocess
from pathlib import Path
from typing import Sequence

from .hosts import Host
from .processes import COMMAND_ENV, TestbedError

__all__ = ["ACCESS_FILES", "write_access"]

ACCESS_FILES = ("hosts", "ssh_config", "known_hosts", "client_key", "client_key.pub")


def write_access(directory: Path, hosts: Sequence[Host], extra_ports: Sequence[int]) -> None:
    """Make all keys, including the hosts' own, and the files that refer to them."""
    client_key, known_hosts = directory / "client_key", directory / "known_hosts"
    _make_keys([client_key, *(host.files / "host_key" for host in hosts)])
    if "SUDO_UID" in os.environ:
        # ssh accepts only a key file that its user owns.
        os.chown(client_key, int(os.environ["SUDO_UID"]), -1)
    (directory / "hosts").write_text("".join(f"{host.name}\n" for host in hosts))
    known_hosts.write_text("".join(_known_host(host, extra_ports) for host in hosts))
    (directory / "ssh_config").write_text(
        "\n".join(_ssh_entry(host, client_key, known_hosts) for host in hosts)
    )


def _make_keys(paths: Sequence[Path]) -> None:
    """Make keys in parallel, because each process waits for the disk."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "testbed", "-f"]
    makers = [subprocess.Popen([*command, str(path)], env=COMMAND_ENV) for path in paths]
    codes = [maker.wait() for maker in makers]
    if any(codes):
        raise TestbedError("ssh-keygen failed; see its message above")


def _known_host(host: Host, extra_ports: Sequence[int]) -> str:
    names = [name for name in (host.name, host.address, host.address6) if name]
    names += [f"[{name}]:{port}" for port in extra_ports for name in names]
    kind, key = (host.files / "host_key.pub").read_text().split()[:2]
    return f"{','.join(names)} {kind} {key}\n"


def _ssh_entry(host: Host, client_key: Path, known_hosts: Path) -> str:
    return (
        f"Host {host.name}\n"
        f"    HostName {host.address}\n"
        "    Port 22\n"
        "    User root\n"
        f'    IdentityFile "{client_key}"\n'
        "    IdentitiesOnly yes\n"
        f'    UserKnownHostsFile "{known_hosts}"\n'
    )
