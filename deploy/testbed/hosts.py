"""One host: its files, and the script that its init runs to become a machine of its own.

A host has namespaces of its own for network, host name, mounts, processes and System V IPC. It
shares the machine's file system except for what a cluster's machines do not share: /tmp, /dev/shm,
/var/tmp and /run are empty at each boot, root's home is the host's own, and /etc is a copy, made at
boot, with other files for /etc/hosts, /etc/passwd and /etc/shadow. Rejected: these three mounted
over the machine's. Whoever changes such a file, as useradd does, puts another in its place; the
kernel then takes away what is mounted on it anywhere, and root's home would be the machine's.
"""

import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence, Tuple

from .processes import COMMAND_ENV, Holder, TestbedError, call

__all__ = ["Host", "HostOptions", "prepare", "shared_paths"]

PRIVATE = ("/tmp", "/dev/shm", "/var/tmp", "/run")
_OWN = ("hosts", "passwd", "shadow")  # in /etc


class HostOptions(NamedTuple):
    """What may be odd about hosts; see Testbed."""

    shell: str = "/bin/bash"
    bashrc: str = ""
    read_only_home: bool = False
    extra_ports: Tuple[int, ...] = ()


@dataclass
class Host:
    """A host of a test bed; ``files`` is its directory, the ``home`` in it root's home there."""

    name: str
    port: int  # of the switch
    address: str
    address6: Optional[str]
    files: Path
    holder: Optional[Holder] = None

    @property
    def home(self) -> Path:
        return self.files / "home"

    @property
    def is_up(self) -> bool:
        return self.holder is not None and self.holder.is_alive()

    @property
    def strange_home(self) -> str:
        """Root's home there if that is not `home`, and so may be this machine's; else empty."""
        passwd = Path(f"/proc/{self.pid}/root/etc/passwd").read_text()
        homes = [line.split(":")[5] for line in passwd.splitlines() if line.startswith("root:")]
        return "" if homes == [str(self.home)] else " ".join(homes) or "none"

    @property
    def pid(self) -> int:
        """Its init's, as seen from this machine; raises TestbedError if the host is down."""
        if self.holder is None or not self.holder.is_alive():
            raise TestbedError(f"{self.name} is down: boot it first")
        return self.holder.pid

    def start(self, lifeline: Optional[int]) -> None:
        """Start its init; ends with ``lifeline`` or, if that is None, when killed."""
        namespaces = ["--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "--kill-child"]
        sleeper = "exec sleep infinity" if lifeline is None else "exec cat"
        script = (self.files / "boot").read_text() + sleeper
        self.holder = Holder.start(
            [*namespaces, "--propagation", "private", "--mount-proc", "bash", "-euc", script],
            lifeline,
            self.files / "boot.log",
        )

    @property
    def sshd(self) -> List[str]:
        """The command that starts its sshd, inside."""
        program = shutil.which("sshd", path=COMMAND_ENV["PATH"])
        assert program is not None  # requirements.check
        return [program, "-f", str(self.files / "sshd_config"), "-E", str(self.files / "sshd.log")]

    @property
    def sshd_pidfile(self) -> Path:
        """There while sshd listens."""
        return self.files / "sshd.pid"


def prepare(host: Host, names: str, options: HostOptions, shared: Sequence[Path]) -> None:
    """Write the host's files; ``names`` is what all hosts have in /etc/hosts."""
    files = host.files
    host.home.mkdir(parents=True)
    (files / "private").mkdir()
    (files / "sshd.log").touch()
    (host.home / ".bashrc").write_text(options.bashrc + "\n" if options.bashrc else "")
    # Debian resolves a machine's own name to 127.0.1.1, which no other machine can use.
    (files / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {host.name}\n{names}")
    (files / "passwd").write_text(_passwd(host.home, options.shell))
    # Without PAM, sshd lets nobody in whose password is locked, as root's often is.
    (files / "shadow").write_text("root:*:19000::::::\n")
    (files / "shadow").chmod(0o600)
    (files / "sshd_config").write_text(_sshd_config(host, options.extra_ports))
    (files / "boot").write_text(_boot_script(host, options, shared))


def shared_paths(paths: Sequence[Path]) -> List[Path]:
    """Those of ``paths`` that a host's private directories would hide, without those in others.

    Raises TestbedError if one is no directory, or is such a directory or holds one.
    """
    resolved = sorted({path.resolve() for path in paths})
    shared: List[Path] = []
    for path in resolved:
        if any(Path(place) == path or path in Path(place).parents for place in PRIVATE):
            raise TestbedError(
                f"{path} cannot be shared: hosts have their own; share what is in it"
            )
        if not path.is_dir():
            raise TestbedError(f"{path} cannot be shared: it is not a directory")
        is_hidden = any(Path(place) in path.parents for place in PRIVATE)
        if is_hidden and not any(other in path.parents for other in shared):
            shared.append(path)
    return shared


def _passwd(home: Path, shell: str) -> str:
    lines = Path("/etc/passwd").read_text().splitlines()
    others = [line for line in lines if not line.startswith("root:")]
    return "\n".join([f"root:x:0:0:root:{home}:{shell}", *others]) + "\n"


def _sshd_config(host: Host, extra_ports: Sequence[int]) -> str:
    lines = [f"Port {port}" for port in (22, *extra_ports)]
    lines += [
        f'HostKey "{host.files / "host_key"}"',
        f'PidFile "{host.sshd_pidfile}"',
        f'AuthorizedKeysFile "{host.files.parent / "client_key.pub"}"',
        "StrictModes no",
        "UsePAM no",
        "UseDNS no",
        "PasswordAuthentication no",
        "PermitRootLogin prohibit-password",
        "MaxSessions 100",
        "MaxStartups 200",
        "PrintMotd no",
        "AcceptEnv LANG LC_*",
        "Subsystem sftp internal-sftp",
    ]
    if _can_penalize():
        lines.append("PerSourcePenalties no")  # all connections come from one machine
    return "\n".join(lines) + "\n"


def _can_penalize() -> bool:
    """Whether this sshd refuses addresses that failed to log in (OpenSSH 9.8 and newer)."""
    try:
        call(["sshd", "-G", "-f", "/dev/null", "-o", "PerSourcePenalties=no"])
    except TestbedError:
        return False
    return True


def _boot_script(host: Host, options: HostOptions, shared: Sequence[Path]) -> str:
    """For ``bash -eu``; whoever runs it adds the last line, which the init becomes.

    The init ignores SIGCHLD (dash cannot make it), so that the kernel reaps the host's orphans.
    """
    lines = [f"hostname {host.name}", "ip link set lo up"]
    for place in PRIVATE:
        if os.path.isdir(place) and not os.path.islink(place):
            lines += _private_directory(place, host.files / "private", shared)
    lines.append("mkdir -p /run/sshd")
    etc = host.files / "private"
    lines.append(_quote("mount", "-n", "-t", "tmpfs", "-o", "mode=755", "tmpfs", etc))
    lines.append(_quote("cp", "-a", "/etc/.", etc))
    lines += [_quote("ln", "-sf", host.files / name, etc / name) for name in _OWN]
    lines.append(_quote("mount", "-n", "--move", etc, "/etc"))
    if options.read_only_home:
        lines.append(_quote("mount", "-n", "--bind", host.home, host.home))
        lines.append(_quote("mount", "-n", "-o", "remount,bind,ro", host.home))
    lines += [_quote("rm", "-f", host.sshd_pidfile), _quote(*host.sshd), "trap '' CHLD", ""]
    return "\n".join(lines)


def _private_directory(place: str, mount_point: Path, shared: Sequence[Path]) -> List[str]:
    """Put an empty file system over ``place`` in which the shared paths below it still are.

    mount(8) keeps notes below /run, which would not be found again: hence its ``-n``.
    """
    mode = "755" if place == "/run" else "1777"
    lines = [_quote("mount", "-n", "-t", "tmpfs", "-o", f"mode={mode}", "tmpfs", mount_point)]
    for path in shared:
        if Path(place) in path.parents:
            inside = mount_point / path.relative_to(place)
            lines.append(_quote("mkdir", "-p", inside))
            lines.append(_quote("mount", "-n", "--bind", path, inside))
    return [*lines, _quote("mount", "-n", "--move", mount_point, place)]


def _quote(*words: object) -> str:
    return " ".join(shlex.quote(str(word)) for word in words)
