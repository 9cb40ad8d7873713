"""A test bed: hosts, their network, and the failures that can be injected.

Unless the bed is detached, all its processes end with the process that owns it, however that ends.
All files are in the bed's directory. ``close`` removes them. If the owner was killed, the next bed
in the same directory does.
"""

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Iterable, List, Optional, Sequence, Tuple, Type, Union

from . import requirements
from .access import ACCESS_FILES, write_access
from .hosts import Host, HostOptions, prepare, shared_paths
from .network import MOST_HOSTS, Network
from .processes import Holder, TestbedError, wait_until

if TYPE_CHECKING:
    import psutil

__all__ = ["DRIVER", "Testbed"]

DRIVER = "driver"  # the name of this machine among the hosts
_SSHD = "sshd"  # newer ones also have sshd-session and sshd-auth
End = Union[Host, str]  # of a connection: a host or DRIVER
_FILES = (*ACCESS_FILES, "switch.log")


class Testbed:
    """``num_hosts`` hosts, called node1 and so on. ``rate`` (in tc's notation: 1gbit) limits links.

    ``directory`` is for the bed's files. Hosts see this machine's file system, but have their own
    empty /tmp, /dev/shm, /var/tmp and /run. Of the machine's files there, they see only
    ``directory``, this repository, the interpreter and the ``shared`` directories. ``shell`` is
    root's shell on the hosts, ``bashrc`` its .bashrc. sshd listens on port 22 and ``extra_ports``.

    All methods raise TestbedError with the reason. Use a bed from one thread at a time.
    """

    __test__ = False  # not a test class, although pytest would take it for one

    def __init__(
        self,
        num_hosts: int,
        directory: Union[str, Path],
        rate: Optional[str] = None,
        detached: bool = False,
        *,
        shared: Iterable[Union[str, Path]] = (),
        shell: str = "/bin/bash",
        bashrc: str = "",
        read_only_home: bool = False,
        extra_ports: Sequence[int] = (),
    ) -> None:
        self.num_hosts = num_hosts
        self.directory = Path(directory).resolve()
        self.rate = rate
        self.hosts: List[Host] = []
        self._is_detached = detached
        self._shared = [Path(path) for path in shared]
        self._options = HostOptions(shell, bashrc, read_only_home, tuple(extra_ports))
        self._network: Optional[Network] = None
        self._lifeline: Optional[Tuple[int, int]] = None  # the ends of a pipe: see processes.py

    @classmethod
    def attach(cls, directory: Union[str, Path]) -> "Optional[Testbed]":
        """The bed whose files are in ``directory``, even if it no longer runs; None without one."""
        try:
            state = json.loads((Path(directory) / "testbed.json").read_text())
        except FileNotFoundError:
            return None
        bed = cls(len(state["hosts"]), directory, state["rate"], detached=True)
        started_here = state["boot"] == _boot_id()  # otherwise the pids are meaningless
        switch = Holder(*state["switch"]) if started_here else Holder(0, None)
        bed._network = Network(switch, state["subnet"], bed.rate)
        bed._list_hosts()
        for host, holder in zip(bed.hosts, state["hosts"]):
            host.holder = Holder(*holder) if holder and started_here else None
        return bed

    # -- start and end

    def start(self) -> None:
        """Start everything. Returns when every host answers on port 22. A failure undoes it."""
        requirements.check()
        if not 1 <= self.num_hosts <= MOST_HOSTS:
            raise TestbedError(f"1 to {MOST_HOSTS} hosts are possible, not {self.num_hosts}")
        shared = self._check_paths()
        self._claim_directory()
        try:
            if not self._is_detached:
                self._lifeline = os.pipe()
            self._network = Network.start(self.rate, self._end, self.directory / "switch.log")
            self._list_hosts()
            self._save()
            self._write_files(shared)
            self._boot(self.hosts)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all hosts and remove every trace. May be called again."""
        for host in self.hosts:
            if host.holder is not None:
                host.holder.kill()
        if self._network is not None:
            self._network.close()
            self._network = None
        if self._lifeline is not None:
            for end in self._lifeline:
                os.close(end)
            self._lifeline = None
        for host in self.hosts:
            shutil.rmtree(host.files, ignore_errors=True)
        self.hosts = []
        for name in (*_FILES, "testbed.json"):
            try:
                (self.directory / name).unlink()
            except FileNotFoundError:
                pass
        try:
            self.directory.rmdir()
        except OSError:
            pass  # it has other files, or is gone

    def __enter__(self) -> "Testbed":
        self.start()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if not self._is_detached:
            self.close()

    # -- access to the hosts

    @property
    def hostfile(self) -> Path:
        """A file with one host name per line."""
        return self.directory / "hosts"

    @property
    def ssh_config(self) -> Path:
        """A configuration for ``ssh -F``: each host's address, user, port, key and known hosts."""
        return self.directory / "ssh_config"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    @property
    def client_key(self) -> Path:
        return self.directory / "client_key"

    @property
    def driver_address(self) -> str:
        """This machine's address on the bed's network."""
        return self._net.address(0)

    @property
    def driver_link(self) -> str:
        """This machine's network link to the hosts."""
        return self._net.driver_link

    @property
    def driver_address6(self) -> Optional[str]:
        return self._net.address6(0)

    @property
    def is_up(self) -> bool:
        return bool(self.hosts) and self._net.switch.is_alive() and all(h.is_up for h in self.hosts)

    @property
    def is_whole(self) -> bool:
        """Whether the bed is up, and root's home on each host is the host's own."""
        return self.is_up and not any(host.strange_home for host in self.hosts)

    # -- processes

    def run(self, host: Host, argv: Sequence[Union[str, Path]], **popen: Any) -> Any:
        """Start a command on a host, without ssh. Returns the Popen, with whose process it ends."""
        env = dict(popen.pop("env", None) or os.environ)
        env.setdefault("PATH", os.defpath)
        return subprocess.Popen(self.command(host, argv, popen.pop("cwd", None)), env=env, **popen)

    def command(
        self, host: Host, argv: Sequence[Union[str, Path]], cwd: Union[str, Path, None] = None
    ) -> List[str]:
        """The local command that runs ``argv`` on a host, in ``cwd`` or in root's home there."""
        inside = ["-t", str(host.pid), "--net", "--uts", "--ipc", "--mount", "--pid"]
        # env changes the directory on the host. nsenter keeps the one in which it was started.
        there = ["env", "-C", str(cwd or host.home), f"HOME={host.home}", *map(str, argv)]
        return ["nsenter", *inside, "setpriv", "--pdeathsig", "KILL", *there]

    def processes(self, host: Host) -> "List[psutil.Process]":
        """All live processes of a host, except its init and sshd, with this machine's pids."""
        return [process for process, name in self._named_processes(host) if name != _SSHD]

    # -- failures

    def crash(self, host: Host) -> None:
        """Simulate a power cut: the host sends nothing more, not even the end of connections."""
        self._net.unplug([host.port])
        if host.holder is not None:
            host.holder.kill()
            host.holder = None
        self._save()

    def boot(self, host: Host) -> None:
        """Start a host that is down, with the same name, addresses and keys as before."""
        if host.is_up:
            raise TestbedError(f"{host.name} is up: crash it first")
        self._boot([host])

    def cut(self, host: Host) -> None:
        """Pull the host's cable. Connections survive, and continue after ``mend``."""
        self._net.set_link(host.port, False)

    def mend(self, host: Host) -> None:
        self._net.set_link(host.port, True)

    def block(self, source: End, target: End) -> None:
        """Silently drop packets from ``source`` to ``target``. The other direction stays open."""
        self._net.block([(_port(source), _port(target))])

    def split(self, group_a: Sequence[End], group_b: Sequence[End]) -> None:
        """Drop packets between two groups, in both directions. Others still reach both."""
        pairs = [(_port(a), _port(b)) for a, b in itertools.product(group_a, group_b)]
        self._net.block(pairs + [(b, a) for a, b in pairs])

    def unblock_all(self) -> None:
        """Undo all calls of ``block`` and ``split``."""
        self._net.unblock_all()

    def stop_sshd(self, host: Host, keep_sessions: bool = True) -> None:
        """Make port 22 refuse connections. Sessions continue, as when sshd is restarted."""
        listener = host.sshd_pidfile.read_text().strip()  # as numbered on the host
        if keep_sessions:
            self.run(host, ["sh", "-c", f"kill {listener}"]).wait()
            wait_until(lambda: not host.sshd_pidfile.exists(), f"the end of {host.name}'s sshd")
            return
        host.sshd_pidfile.unlink()
        wait_until(lambda: not self._kill_sshd(host), f"the end of {host.name}'s sshd")

    def start_sshd(self, host: Host) -> None:
        """Start sshd again after ``stop_sshd``."""
        if self.run(host, host.sshd).wait():
            raise TestbedError((host.files / "sshd.log").read_text())
        wait_until(host.sshd_pidfile.exists, f"{host.name}'s sshd to listen")

    # -- inner parts

    @property
    def _net(self) -> Network:
        if self._network is None:
            raise TestbedError("the test bed is not up")
        return self._network

    @property
    def _end(self) -> Optional[int]:
        """The end of the lifeline that holders read."""
        return self._lifeline[0] if self._lifeline else None

    def _check_paths(self) -> List[Path]:
        if set('"\\%\n') & set(str(self.directory)):
            raise TestbedError(
                f"{self.directory}: ssh's files cannot hold \", \\, % or a line break"
            )
        self.directory.mkdir(parents=True, exist_ok=True)
        repository = Path(__file__).resolve().parent.parent.parent
        interpreter = [Path(sys.prefix), Path(sys.base_prefix)]
        return shared_paths([self.directory, repository, *interpreter, *self._shared])

    def _claim_directory(self) -> None:
        """Raises TestbedError if the directory has a running bed, or files of something else."""
        earlier = Testbed.attach(self.directory)
        if earlier is not None:
            if earlier._net.switch.is_alive():
                raise TestbedError(
                    f"{self.directory} has a running test bed; end it first:"
                    f" python -m deploy.testbed down --dir {self.directory}"
                )
            earlier.close()
            self.directory.mkdir(exist_ok=True)
        nodes = [f"node{port}" for port in range(1, self.num_hosts + 1)]
        found = [name for name in (*_FILES, *nodes) if (self.directory / name).exists()]
        if found:
            raise TestbedError(
                f"{self.directory} has files that are not a test bed's ({', '.join(found)}):"
                " choose another directory"
            )

    def _list_hosts(self) -> None:
        for port in range(1, self.num_hosts + 1):
            name = f"node{port}"
            address, address6 = self._net.address(port), self._net.address6(port)
            self.hosts.append(Host(name, port, address, address6, self.directory / name))

    def _write_files(self, shared: List[Path]) -> None:
        lines = [f"{self.driver_address} {DRIVER}", *(f"{h.address} {h.name}" for h in self.hosts)]
        names = "".join(line + "\n" for line in lines)
        for host in self.hosts:
            host.files.mkdir(mode=0o700)
            prepare(host, names, self._options, shared)
        write_access(self.directory, self.hosts, self._options.extra_ports)

    def _boot(self, hosts: Sequence[Host]) -> None:
        """Start hosts in parallel, and wait until all answer."""
        for host in hosts:
            host.start(self._end)
        self._save()
        try:
            self._net.plug({host.port: host.holder for host in hosts if host.holder is not None})
        except TestbedError:
            for host in hosts:
                _answers(host)  # raises a better message if a host has ended
            raise
        for host in hosts:
            wait_until(partial(_answers, host), f"{host.name} to answer on port 22")

    def _save(self) -> None:
        """Record the running processes, for ``attach``."""
        state = {
            "boot": _boot_id(),
            "subnet": self._net.subnet,
            "rate": self.rate,
            "switch": self._net.switch.state,
            "hosts": [host.holder.state if host.holder else None for host in self.hosts],
        }
        path = self.directory / "testbed.json"
        path.with_suffix(".new").write_text(json.dumps(state))
        path.with_suffix(".new").replace(path)

    def _named_processes(self, host: Host) -> "List[Tuple[psutil.Process, str]]":
        """(process, name) of all live processes on a host, except its init. sshd's are _SSHD."""
        import psutil

        namespace = os.readlink(f"/proc/{host.pid}/ns/pid")
        found = []
        for process in psutil.process_iter():
            try:
                if os.readlink(f"/proc/{process.pid}/ns/pid") != namespace:
                    continue
                name, is_zombie = process.name(), process.status() == psutil.STATUS_ZOMBIE
            except (OSError, psutil.NoSuchProcess):
                continue  # it ended meanwhile
            if process.pid != host.pid and not is_zombie:
                found.append((process, _SSHD if name.startswith(_SSHD) else name))
        return found

    def _kill_sshd(self, host: Host) -> int:
        """Kill the listener and all sessions. Returns the number of processes."""
        pids = [process.pid for process, name in self._named_processes(host) if name == _SSHD]
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it ended meanwhile
        return len(pids)


def _port(end: End) -> int:
    if isinstance(end, Host):
        return end.port
    if end != DRIVER:
        raise TestbedError(f"{end!r} is neither a Host nor {DRIVER!r}")
    return 0


def _answers(host: Host) -> bool:
    if not host.is_up:
        log = (host.files / "boot.log").read_text() + (host.files / "sshd.log").read_text()
        raise TestbedError(f"{host.name} did not boot: {log.strip()}")
    try:
        socket.create_connection((host.address, 22), 0.2).close()
    except OSError:
        return False
    return True


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
