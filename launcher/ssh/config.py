"""Finds out how to reach a host, from its line in the host file and the user's ~/.ssh/config."""

import getpass
import os
import shlex
from typing import Dict, List, NamedTuple, Optional, Tuple

import paramiko

from baryon.ps import UsageError

from ..hostfile import HostLine

__all__ = ["SshConfig", "Target"]

_DEFAULT_PATH = "~/.ssh/config"
_USER_KNOWN_HOSTS = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
_GLOBAL_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
_MAX_JUMPS = 8


class Target(NamedTuple):
    """A host to connect to. ``name`` is the user's name for it, ``hostname`` the network's.

    ``known_hosts`` are the files with host keys; new keys go to the first. ``key_name`` is the
    host's name in them. ``jumps`` are the hosts to pass through, in order. ``ssh`` is the command
    with which a user would connect.
    """

    name: str
    hostname: str
    port: int
    user: str
    key_name: str
    identity_files: Tuple[str, ...] = ()
    identities_only: bool = False
    known_hosts: Tuple[str, ...] = ()
    proxy_command: str = ""
    jumps: Tuple["Target", ...] = ()
    ssh: str = "ssh"

    @property
    def where(self) -> str:
        return f"{self.user}@{self.hostname} port {self.port}"


class SshConfig:
    """The user's ssh configuration. Raises UsageError if the file cannot be read."""

    def __init__(self, path: Optional[str] = None) -> None:
        self._path = os.path.expanduser(path or _DEFAULT_PATH)
        self._flags = ["-F", path] if path else []
        self._text = ""
        if path is None and not os.path.exists(self._path):
            return
        try:
            with open(self._path, encoding="utf-8", errors="replace") as file:
                self._text = file.read()
            paramiko.SSHConfig.from_text(self._text)
        except OSError as error:
            raise UsageError(f"--ssh-config {self._path}: {error.strerror}") from error
        except paramiko.ConfigParseError as error:
            raise UsageError(f"{self._path}: {error}; see ssh_config(5)") from error

    def target(self, line: HostLine) -> Target:
        """How to reach a host of the host file.

        The host file takes precedence over the configuration.
        """
        words = ["ssh", *self._flags]
        words += ["-p", str(line.port)] if line.port else []
        words.append(f"{line.user}@{line.name}" if line.user else line.name)
        made = self._target(line.name, line.user, line.port, ())
        return made._replace(ssh=" ".join(map(shlex.quote, words)))

    def _target(
        self, name: str, user: Optional[str], port: Optional[int], via: Tuple[str, ...]
    ) -> Target:
        # The first value found counts, even where it is part of another one: %r, %p.
        first = [f"Host {name}"]
        first += [f"    User {user}"] if user else []
        first += [f"    Port {port}"] if port else []
        try:
            config = paramiko.SSHConfig.from_text("\n".join([*first, "", self._text]))
            found = config.lookup(name)
        except Exception as error:  # Match exec, or a pattern that paramiko does not know
            raise UsageError(f"{self._path}: cannot be applied to {name}: {error}") from error
        hostname = str(found.get("hostname", name))
        try:
            number = int(found.get("port", 22))
        except ValueError:
            raise UsageError(
                f"{self._path}: Port {found['port']} of {name} is not a number"
            ) from None
        jumps = _words(found, "proxyjump", "none").replace(",", " ").split()
        if name in via or len(via) > _MAX_JUMPS:
            raise UsageError(f"{self._path}: ProxyJump of {name} leads back to itself")
        alias = str(found.get("hostkeyalias", hostname)).lower()
        command = str(found.get("proxycommand") or "")
        return Target(
            name=name,
            hostname=hostname,
            port=number,
            user=str(found.get("user") or getpass.getuser()),
            key_name=alias if number == 22 or "hostkeyalias" in found else f"[{alias}]:{number}",
            identity_files=tuple(os.path.expanduser(f) for f in found.get("identityfile", ())),
            identities_only=_words(found, "identitiesonly", "no") == "yes",
            known_hosts=_files(found, "userknownhostsfile", _USER_KNOWN_HOSTS)
            + _files(found, "globalknownhostsfile", _GLOBAL_KNOWN_HOSTS),
            proxy_command="" if command == "none" else command,
            jumps=() if jumps == ["none"] else self._jumps(jumps, (*via, name)),
        )

    def _jumps(self, words: List[str], via: Tuple[str, ...]) -> Tuple[Target, ...]:
        """The targets of ``[user@]host[:port]`` words. A jump's own jumps come before it."""
        jumps: List[Target] = []
        for word in words:
            user, _, rest = word.rpartition("@")
            name, colon, port = rest.rpartition(":")
            if not colon or not port.isdigit() or (":" in name and not name.endswith("]")):
                name, port = rest, ""
            target = self._target(name.strip("[]"), user or None, int(port or 0) or None, via)
            jumps += [*target.jumps, target._replace(jumps=())]
        return tuple(jumps)


def _words(found: Dict[str, str], option: str, default: str) -> str:
    return str(found.get(option) or default)


def _files(found: Dict[str, str], option: str, default: str) -> Tuple[str, ...]:
    names = _words(found, option, default).split()
    return tuple(os.path.expanduser(name) for name in names if name != "none")
