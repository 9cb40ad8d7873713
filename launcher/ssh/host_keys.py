"""Checks hosts' keys against known_hosts.

A changed or revoked key is always an error. An unknown host is an error too, unless
``--accept-new-host-keys`` says to record its key. One instance serves all threads.
"""

import base64
import hashlib
import os
import threading
from typing import Dict, List, Tuple

import paramiko

from .config import Target
from .known_hosts import HostKey, KnownHosts

__all__ = ["HostKeyRefused", "HostKeys"]

_RSA = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")  # signature algorithms of an ssh-rsa key
_ALL_KINDS = (
    "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", *_RSA,
    "ssh-dss",
)  # fmt: skip


class HostKeyRefused(Exception):
    """A host key that we do not trust. The text is for the user."""


class HostKeys(paramiko.MissingHostKeyPolicy):
    """The known_hosts files of all targets. paramiko itself has no keys, so it asks this object
    about every key."""

    def __init__(self, accept_new: bool) -> None:
        self._accept_new = accept_new
        self._lock = threading.Lock()
        self._files: Dict[Tuple[str, ...], KnownHosts] = {}
        self._targets: Dict[paramiko.SSHClient, Target] = {}

    def apply(self, client: paramiko.SSHClient, target: Target) -> List[str]:
        """Make ``client`` ask here when it connects to ``target``.

        Returns the algorithms that it must not use: with them the host might show a key of another
        kind than the known ones.
        """
        client.set_missing_host_key_policy(self)
        with self._lock:
            self._targets[client] = target
            known = self._known_hosts(target).lookup(target.key_name)
        kinds = {kind for kind, _ in known.keys}
        wanted = kinds | (set(_RSA) if "ssh-rsa" in kinds else set())
        return [kind for kind in _ALL_KINDS if kind not in wanted] if kinds else []

    def forget(self, client: paramiko.SSHClient) -> None:
        with self._lock:
            self._targets.pop(client, None)

    def missing_host_key(
        self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey
    ) -> None:
        """paramiko calls this when a host has proved that it has ``key``. Raises HostKeyRefused."""
        shown: HostKey = (key.get_name(), key.asbytes())
        name, print_ = key.get_name(), fingerprint(key)
        with self._lock:
            target = self._targets[client]
            files = self._known_hosts(target)
            known = files.lookup(target.key_name)
            if shown in known.revoked:
                raise HostKeyRefused(f"its {name} key {print_} is marked as @revoked")
            if shown in known.keys:
                return
            if known.keys:
                raise HostKeyRefused(
                    f"its host key has CHANGED (now {name} {print_}): another machine answers "
                    "there, or it was reinstalled; if you know why, remove the old key: "
                    f"ssh-keygen -R '{target.key_name}' -f {_existing(target)}"
                )
            if not self._accept_new:
                raise HostKeyRefused(
                    f"its {name} key {print_} is in no known_hosts file; compare it, then connect "
                    f"once with {target.ssh}, or add --accept-new-host-keys"
                )
            files.add(target.key_name, shown)
            _record(target, key)

    def _known_hosts(self, target: Target) -> KnownHosts:
        if target.known_hosts not in self._files:
            self._files[target.known_hosts] = KnownHosts(target.known_hosts)
        return self._files[target.known_hosts]


def _record(target: Target, key: paramiko.PKey) -> None:
    """Append one line to the first file, if there is one."""
    if not target.known_hosts:
        return
    path = target.known_hosts[0]
    os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
    line = f"{target.key_name} {key.get_name()} {key.get_base64()}\n"
    with open(path, "a+", encoding="utf-8", errors="surrogateescape") as file:
        file.seek(0)
        text = file.read()
        file.write(line if not text or text.endswith("\n") else "\n" + line)


def fingerprint(key: paramiko.PKey) -> str:
    """A key's fingerprint as ssh-keygen(1) prints it."""
    digest = hashlib.sha256(key.asbytes()).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _existing(target: Target) -> str:
    return " or ".join(path for path in target.known_hosts if os.path.exists(path))
