"""Authenticated connections to hosts, made in parallel.

Every way to fail ends in a `ConnectError` in one host's place; nothing is printed here, and
nothing is asked: `Access` carries what the user has already said.
"""

import errno
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import List, NamedTuple, Optional, Sequence, Tuple, Union

import paramiko

from baryon.ps import PeerError

from .config import Target
from .host_keys import HostKeys, UnknownHostKey, changed_key_text

__all__ = ["Access", "ConnectError", "Connection", "connect_all"]

_AT_ONCE = 64  # connections under way; each is a thread, mostly waiting
_TRIES = 3  # a server that is starting, or has too many connections at once, refuses
_PAUSE_S = 0.5
_KEEPALIVE_S = 5


class Access(NamedTuple):
    """What may open the door beside keys and the agent: a password, or a key's passphrase."""

    host_keys: HostKeys
    limit_s: float = 10.0
    password: Optional[str] = None


class ConnectError(PeerError):
    """A host that cannot be reached or entered; ``wants_password``: one might help."""

    def __init__(self, text: str, wants_password: bool = False) -> None:
        super().__init__(text)
        self.wants_password = wants_password


class _Retry(Exception):
    """Refused for now; another try may succeed."""


class Connection:
    """One host, entered. Close it."""

    def __init__(self, target: Target, clients: List[paramiko.SSHClient]) -> None:
        self.target = target
        self._clients = clients  # the last is the host's, those before are the jumps to it
        transport = clients[-1].get_transport()
        assert transport is not None
        self.transport = transport
        transport.set_keepalive(_KEEPALIVE_S)

    @property
    def name(self) -> str:
        return self.target.name

    @property
    def is_direct(self) -> bool:
        """Whether this machine itself has the TCP connection: no jump, no proxy command."""
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
    """Connect to all targets side by side; the result has the outcome for each, in order."""

    def connect(target: Target) -> Union[Connection, ConnectError]:
        try:
            return _connect(target, access)
        except ConnectError as error:
            return error

    with ThreadPoolExecutor(min(_AT_ONCE, len(targets)), "ssh-connect") as pool:
        return list(pool.map(connect, targets))


def _connect(target: Target, access: Access) -> Connection:
    for attempt in range(_TRIES):
        clients: List[paramiko.SSHClient] = []
        try:
            for hop in (*target.jumps, target._replace(jumps=())):
                clients.append(_enter(hop, clients[-1] if clients else None, access))
            return Connection(target, clients)
        except _Retry as error:
            _close(clients)
            if attempt == _TRIES - 1:
                raise ConnectError(f"{error} (tried {_TRIES} times)") from error
            time.sleep(_PAUSE_S * 2**attempt)
        except BaseException:
            _close(clients)
            raise
    raise AssertionError("the last try raises")


def _enter(target: Target, via: Optional[paramiko.SSHClient], access: Access) -> paramiko.SSHClient:
    """Connect to one host, through ``via`` if given; raises ConnectError or _Retry."""
    client = paramiko.SSHClient()
    access.host_keys.apply(client, target)
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
    try:
        client.connect(
            target.hostname,
            port=target.port,
            username=target.user,
            password=access.password,
            passphrase=access.password,
            key_filename=keys or None,  # type: ignore[arg-type]
            look_for_keys=not target.identities_only,
            allow_agent=not target.identities_only,
            timeout=limit_s,
            banner_timeout=limit_s,
            auth_timeout=limit_s,
            channel_timeout=limit_s,
            sock=_way_to(target, via, limit_s),
        )
    except (UnknownHostKey, ConnectError) as error:
        raise ConnectError(f"{target.where}: {error}") from None
    except paramiko.BadHostKeyException as error:
        raise ConnectError(f"{target.where}: {changed_key_text(target, error.key)}") from error
    except paramiko.PasswordRequiredException as error:
        text = f"{target.where}: its key file is encrypted; add the key to ssh-agent (ssh-add)"
        raise ConnectError(text, wants_password=True) from error
    except (paramiko.AuthenticationException, paramiko.ssh_exception.NoValidConnectionsError) as e:
        raise _explain(target, e) from e
    except (socket.timeout, TimeoutError) as error:
        raise ConnectError(
            f"{target.where} did not answer in {limit_s:g} s; is it on, and is the port open?"
        ) from error
    except socket.gaierror as error:
        raise ConnectError(
            f"{target.hostname}: no such host ({error.strerror}); check its spelling, /etc/hosts "
            "and HostName in ~/.ssh/config"
        ) from error
    except (ConnectionError, EOFError) as error:
        raise _Retry(f"{target.where} broke the connection off: {error}") from error
    except OSError as error:
        raise ConnectError(f"{target.where}: {error.strerror or error}") from error
    except paramiko.SSHException as error:
        transport = client.get_transport()
        if transport is not None and transport.is_active():  # they talk, so it is about keys
            raise _explain(target, paramiko.AuthenticationException(str(error))) from error
        raise _Retry(f"{target.where}: {error}; is that an SSH server?") from error
    except ValueError as error:  # a key file that cannot be read
        raise ConnectError(f"{target.where}: {error}") from error


def _explain(target: Target, error: Exception) -> Exception:
    if isinstance(error, paramiko.AuthenticationException):
        allowed: Tuple[str, ...] = tuple(getattr(error, "allowed_types", ()) or ())
        text = f"{target.where}: none of your keys is accepted"
        text += f" (it takes {', '.join(allowed)})" if allowed else ""
        remedy = f"; try ssh {target.name}, ssh-copy-id, or IdentityFile in ~/.ssh/config"
        return ConnectError(text + remedy, wants_password=True)
    errors = getattr(error, "errors", {})
    reasons = sorted({os.strerror(e.errno) if e.errno else str(e) for e in errors.values()})
    text = f"{target.where}: {', '.join(reasons)}"
    if any(e.errno == errno.ECONNREFUSED for e in errors.values()):
        return _Retry(f"{text}; is sshd running there?")
    return ConnectError(f"{text}; is it on, and is there a route to it?")


def _way_to(
    target: Target, via: Optional[paramiko.SSHClient], limit_s: float
) -> Optional[Union[paramiko.Channel, paramiko.ProxyCommand]]:
    """What carries the connection, if not a TCP socket of this machine."""
    if via is not None:
        transport = via.get_transport()
        assert transport is not None
        where = (target.hostname, target.port)
        try:
            return transport.open_channel("direct-tcpip", where, ("127.0.0.1", 0), timeout=limit_s)
        except paramiko.ChannelException as error:
            raise ConnectError(f"the host to jump through cannot reach it: {error.text}") from error
    return paramiko.ProxyCommand(target.proxy_command) if target.proxy_command else None


def _close(clients: List[paramiko.SSHClient]) -> None:
    for client in reversed(clients):
        client.close()
