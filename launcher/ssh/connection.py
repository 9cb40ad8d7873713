"""Makes authenticated connections to many hosts in parallel.

Every failure becomes a `ConnectError` in that host's place. This module neither prints nor asks:
`Access` carries what the user has entered already.
"""

import errno
import os
import random
import socket
import subprocess
import threading
import time
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import paramiko

from baryon.ps import PeerError

from ..parallel import side_by_side
from .config import Target
from .host_keys import HostKeyRefused, HostKeys

__all__ = ["Access", "ConnectError", "Connection", "connect_all"]

_TRIES = 3  # a server refuses while it starts, or when it has too many new connections
_PAUSE_S = 0.5
_KEEPALIVE_S = 5
_REAP_LIMIT_S = 5.0
_SSH_PORT = 22
_MOST_SLOTS = 256  # that a host is likely to have


class Access(NamedTuple):
    """What to log in with, beside keys and ssh-agent. The passphrase is for local key files."""

    host_keys: HostKeys
    limit_s: float = 10.0
    password: Optional[str] = None
    passphrase: Optional[str] = None


class ConnectError(PeerError):
    """A host that we cannot reach or log in to. ``wants`` is what might help: "password",
    "passphrase", or empty."""

    def __init__(self, text: str, wants: str = "") -> None:
        super().__init__(text)
        self.wants = wants


class _Retry(Exception):
    """A refusal that may be temporary."""


class Connection:
    """A host that we are logged in to. Close it."""

    def __init__(self, target: Target, clients: List[paramiko.SSHClient]) -> None:
        self.target = target
        self._clients = clients  # the last is the host's; those before it are its jumps
        transport = clients[-1].get_transport()
        assert transport is not None
        self.transport = transport
        transport.set_keepalive(_KEEPALIVE_S)

    @property
    def name(self) -> str:
        return self.target.name

    @property
    def is_direct(self) -> bool:
        """Whether the TCP connection is this machine's own: no jump, no proxy command."""
        return len(self._clients) == 1 and not self.target.proxy_command

    def peer_address(self) -> str:
        """The host's address as this machine sees it; empty through a jump."""
        if not self.is_direct:
            return ""
        address = str(self.transport.getpeername()[0]).split("%")[0]
        return address[len("::ffff:") :] if address.startswith("::ffff:") else address

    @property
    def is_alive(self) -> bool:
        return self.transport.is_active()

    def close(self) -> None:
        for client in reversed(self._clients):
            client.close()


def connect_all(targets: Sequence[Target], access: Access) -> List[Union[Connection, ConnectError]]:
    """Connect to all targets in parallel. Returns the outcomes in the same order.

    Targets behind the same jump host share one connection to it.
    """
    jumps = _Jumps(access)
    outcomes: List[Union[Connection, ConnectError]] = [ConnectError("not tried")] * len(targets)

    def connect(number: int) -> None:
        try:
            outcomes[number] = _connect(targets[number], access, jumps)
        except ConnectError as error:
            outcomes[number] = error

    side_by_side(connect, range(len(targets)))
    return outcomes


class _Jumps:
    """Connections to jump hosts, by the whole way to each."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._lock = threading.Lock()
        self._locks: Dict[Tuple[Target, ...], threading.Lock] = {}
        self._clients: Dict[Tuple[Target, ...], paramiko.SSHClient] = {}

    def through(self, way: Tuple[Target, ...]) -> List[paramiko.SSHClient]:
        """The clients along the way; raises ConnectError or _Retry."""
        if not way:
            return []
        before = self.through(way[:-1])
        with self._lock:
            lock = self._locks.setdefault(way, threading.Lock())
        with lock:
            if way not in self._clients:
                via = before[-1] if before else None
                self._clients[way] = _enter(way[-1], via, self._access)
            return [*before, self._clients[way]]


def _connect(target: Target, access: Access, jumps: _Jumps) -> Connection:
    for attempt in range(_TRIES):
        try:
            way = jumps.through(target.jumps)
            client = _enter(target._replace(jumps=()), way[-1] if way else None, access)
            return Connection(target, [*way, client])
        except _Retry as error:
            if attempt == _TRIES - 1:
                raise ConnectError(f"{error} (tried {_TRIES} times)") from error
            # At random times: a server accepts only so many at once (sshd's MaxStartups).
            time.sleep(_PAUSE_S * 2**attempt * random.uniform(1, 2))
    raise AssertionError("the last try raises")


def _enter(target: Target, via: Optional[paramiko.SSHClient], access: Access) -> paramiko.SSHClient:
    """Connect to one host, through ``via`` if given; raises ConnectError or _Retry."""
    client = paramiko.SSHClient()
    try:
        _log_in(client, target, via, access)
        return client
    except BaseException:
        client.close()
        raise
    finally:
        access.host_keys.forget(client)


def _log_in(
    client: paramiko.SSHClient, target: Target, via: Optional[paramiko.SSHClient], access: Access
) -> None:
    limit_s = access.limit_s
    keys = [path for path in target.identity_files if os.path.exists(path)]
    not_known = access.host_keys.apply(client, target)
    try:
        client.connect(
            target.hostname,
            port=target.port,
            username=target.user,
            password=access.password,
            passphrase=access.passphrase,
            key_filename=keys or None,  # type: ignore[arg-type]
            look_for_keys=not target.identities_only,
            disabled_algorithms={"keys": not_known} if not_known else None,
            timeout=limit_s,
            banner_timeout=limit_s,
            auth_timeout=limit_s,
            channel_timeout=limit_s,
            sock=_way_to(target, via, limit_s),
        )
    except (HostKeyRefused, ConnectError) as error:
        raise ConnectError(f"{target.where}: {error}") from None
    except paramiko.PasswordRequiredException as error:
        text = f"{target.where}: its key file is encrypted; add the key to ssh-agent (ssh-add)"
        raise ConnectError(text, wants="passphrase") from error
    except (paramiko.AuthenticationException, paramiko.ssh_exception.NoValidConnectionsError) as e:
        raise _explain(target, e, limit_s) from e
    except (socket.timeout, TimeoutError) as error:
        raise ConnectError(
            f"{target.where} did not answer in {limit_s:g} s; is it on, and is the port open?"
            f"{_slots_hint(target)}"
        ) from error
    except socket.gaierror as error:
        raise ConnectError(
            f"there is no host {target.hostname} ({error.strerror}); check its spelling, "
            f"/etc/hosts, and HostName in your ssh configuration: {target.ssh}"
        ) from error
    except (ConnectionError, EOFError) as error:
        text = f"{target.where} broke the connection off: {error}{_slots_hint(target)}"
        raise _Retry(text) from error
    except OSError as error:
        raise ConnectError(f"{target.where}: {error.strerror or error}") from error
    except paramiko.ssh_exception.IncompatiblePeer as error:
        raise ConnectError(
            f"{target.where}: its host keys are not of the kinds in known_hosts, or we have no "
            f"algorithm in common ({error}); compare with {target.ssh}"
        ) from error
    except paramiko.SSHException as error:
        transport = client.get_transport()
        if transport is not None and transport.is_active():  # SSH works, so it is about keys
            refused = paramiko.AuthenticationException(str(error))
            raise _explain(target, refused, limit_s) from error
        text = f"{target.where}: {error}; is that an SSH server?{_slots_hint(target)}"
        raise _Retry(text) from error
    except ValueError as error:  # a key file that cannot be read
        raise ConnectError(f"{target.where}: {error}") from error


def _explain(target: Target, error: Exception, limit_s: float) -> Exception:
    if isinstance(error, paramiko.AuthenticationException):
        if "timeout" in str(error).lower():
            text = f"{target.where} did not answer the login in {limit_s:g} s"
            return ConnectError(f"{text}; try {target.ssh}, or raise --start-timeout")
        allowed: Tuple[str, ...] = tuple(getattr(error, "allowed_types", ()) or ())
        text = f"{target.where}: none of your keys is accepted"
        text += f" (it takes {', '.join(allowed)})" if allowed else ""
        remedy = f"; try {target.ssh}, ssh-copy-id, or IdentityFile in your ssh configuration"
        return ConnectError(text + remedy, wants="password")
    errors = getattr(error, "errors", {})
    reasons = sorted({os.strerror(e.errno) if e.errno else str(e) for e in errors.values()})
    text = f"{target.where}: {', '.join(reasons)}"
    if any(e.errno == errno.ECONNREFUSED for e in errors.values()):
        return _Retry(f"{text}; is sshd running there?{_slots_hint(target)}")
    return ConnectError(f"{text}; is it on, and is there a route to it?{_slots_hint(target)}")


def _slots_hint(target: Target) -> str:
    """A hint if ``node1:2`` may have meant two workers, as in other launchers."""
    if target.port == _SSH_PORT or target.port > _MOST_SLOTS:
        return ""
    return (
        f"; in {target.name}:{target.port} that is a port: for {target.port} workers, write "
        f"'{target.name} slots={target.port}' into a host file"
    )


def _way_to(
    target: Target, via: Optional[paramiko.SSHClient], limit_s: float
) -> Optional[Union[paramiko.Channel, paramiko.ProxyCommand]]:
    """The channel or proxy that carries the connection; None for a TCP socket of our own."""
    if via is not None:
        transport = via.get_transport()
        assert transport is not None
        where = (target.hostname, target.port)
        try:
            return transport.open_channel("direct-tcpip", where, ("127.0.0.1", 0), timeout=limit_s)
        except paramiko.ChannelException as error:
            raise ConnectError(f"the jump host cannot reach it: {error.text}") from error
    if target.proxy_command:
        return _Proxy(target.proxy_command)
    return None


class _Proxy(paramiko.ProxyCommand):
    """A proxy command in a session of its own: Ctrl-C must not end it, because stopping the job
    takes its connection. Closing it leaves no pipe open."""

    def __init__(self, command: str) -> None:
        super().__init__(f"setsid {command}")

    def close(self) -> None:
        process = self.process
        process.kill()
        try:
            process.wait(_REAP_LIMIT_S)
        except subprocess.TimeoutExpired:
            pass  # it hangs in the kernel, and will end after that
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
