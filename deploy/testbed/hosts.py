"""One host: its files, and the script by which its init makes it a machine of its own.

A host has its own namespaces for network, host name, mounts, processes and System V IPC. It shares
this machine's file system, except for the places that machines of a cluster do not share. /tmp,
/dev/shm, /var/tmp and /run are empty at each boot. Root's home is the host's own. /etc is a copy,
made at boot, with the host's own /etc/hosts, /etc/passwd and /etc/shadow.

Mounting these three files over the machine's was rejected. Programs such as useradd replace the
file; the kernel then removes all mounts on it, and root's home would be this machine's.
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
    """Unusual properties of hosts; see Testbed."""

    shell: str = "/bin/bash"
    bashrc: str = ""
    read_only_home: bool = False
    extra_ports: Tuple[int, ...] = ()


@dataclass
class Host:
    """A host of a test bed. ``files`` is its directory, and ``home`` in there is root's home."""

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
        """Root's home on the host if it is not `home`, so perhaps this machine's; else empty."""
        passwd = Path(f"/proc/{self.pid}/root/etc/passwd").read_text()
        homes = [line.split(":")[5] for line in passwd.splitlines() if line.startswith("root:")]
        return "" if homes == [str(self.home)] else " ".join(homes) or "none"

    @property
    def pid(self) -> int:
        """The pid of its init on this machine. Raises TestbedError if the host is down."""
        if self.holder is None or not self.holder.is_alive():
            raise TestbedError(f"{self.name} is down: boot it first")
        return self.holder.pid

    def start(self, lifeline: Optional[int]) -> None:
        """Start the host's init. It ends with ``lifeline``, or if that is None, when killed."""
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
        """The command that starts sshd on the host."""
        program = shutil.which("sshd", path=COMMAND_ENV["PATH"])
        assert program is not None  # requirements.check
        return [program, "-f", str(self.files / "sshd_config"), "-E", str(self.files / "sshd.log")]

    @property
    def sshd_pidfile(self) -> Path:
        """This file exists while sshd listens."""
        return self.files / "sshd.pid"


def prepare(host: Host, names: str, options: HostOptions, shared: Sequence[Path]) -> None:
    """Write the host's files. ``names`` are the lines for /etc/hosts on all hosts."""
    files = host.files
    host.home.mkdir(parents=True)
    (files / "private").mkdir()
    (files / "sshd.log").touch()
    (host.home / ".bashrc").write_text(options.bashrc + "\n" if options.bashrc else "")
    # As on Debian, a machine's own name is 127.0.1.1, which no other machine can use.
    (files / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {host.name}\n{names}")
    (files / "passwd").write_text(_passwd(host.home, options.shell))
    # Without PAM, sshd refuses users with a locked password, which root's often is.
    (files / "shadow").write_text("root:*:19000::::::\n")
    (files / "shadow").chmod(0o600)
    (files / "sshd_config").write_text(_sshd_config(host, options.extra_ports))
    (files / "boot").write_text(_boot_script(host, options, shared))


def shared_paths(paths: Sequence[Path]) -> List[Path]:
    """The ``paths`` that a host's private directories would hide, without nested ones.

    Raises TestbedError if a path is not a directory, or if it is or contains a private directory.
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
    """The script for ``bash -eu``. The caller adds the last line, which becomes the init.

    The init ignores SIGCHLD, so the kernel reaps the host's orphans. (dash cannot ignore it.)
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
    """Mount an empty file system over ``place``, with the shared paths below it.

    mount(8) keeps records below /run, which would then be hidden: hence ``-n``.
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
