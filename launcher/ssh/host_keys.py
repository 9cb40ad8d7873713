"""Whether a host is who it says: its key against known_hosts.

A key that is not the known one always stops. One that is not known stops as well, unless new ones
are to be recorded (``--accept-new-host-keys``). One instance serves all threads.
"""

import base64
import hashlib
import os
import threading
from typing import Dict, List, Tuple

import paramiko

from .config import Target

__all__ = ["HostKeys", "UnknownHostKey"]


class UnknownHostKey(Exception):
    """A host whose key nobody has vouched for; the text is for the user."""


class HostKeys(paramiko.MissingHostKeyPolicy):
    """The known_hosts files of all targets; also decides on keys that are not in them."""

    def __init__(self, accept_new: bool) -> None:
        self._accept_new = accept_new
        self._lock = threading.Lock()
        self._files: Dict[str, paramiko.HostKeys] = {}
        self._targets: Dict[paramiko.SSHClient, Target] = {}

    def apply(self, client: paramiko.SSHClient, target: Target) -> None:
        """Make ``client``, about to connect to ``target``, check its key."""
        keys = client.get_host_keys()
        with self._lock:
            self._targets[client] = target
            for path in target.known_hosts:
                known = self._read(path).lookup(target.key_name)
                for kind, key in (known or {}).items():
                    # Under the name that paramiko will look for.
                    keys.add(_name(target), kind, key)
        client.set_missing_host_key_policy(self)

    def forget(self, client: paramiko.SSHClient) -> None:
        with self._lock:
            self._targets.pop(client, None)

    def missing_host_key(
        self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey
    ) -> None:
        """Called by paramiko for a host without a known key; raises UnknownHostKey."""
        with self._lock:
            target = self._targets[client]
            if self._accept_new:
                self._record(target, key)
                return
        raise UnknownHostKey(
            f"its {key.get_name()} key {fingerprint(key)} is in no known_hosts file; compare it, "
            f"then connect once with ssh {target.name}, or add --accept-new-host-keys"
        )

    def _read(self, path: str) -> paramiko.HostKeys:
        if path not in self._files:
            keys = self._files[path] = paramiko.HostKeys()
            try:
                keys.load(path)
            except OSError:
                pass  # there is none yet
        return self._files[path]

    def _record(self, target: Target, key: paramiko.PKey) -> None:
        """Append one line: rewriting the file would lose comments and what paramiko cannot read."""
        path = target.known_hosts[0]
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        line = f"{target.key_name} {key.get_name()} {key.get_base64()}\n"
        with open(path, "a+", encoding="utf-8", errors="surrogateescape") as file:
            file.seek(0)
            text = file.read()
            file.write(line if not text or text.endswith("\n") else "\n" + line)


def fingerprint(key: paramiko.PKey) -> str:
    """A key's fingerprint as ssh-keygen(1) prints it."""
    digest = hashlib.sha256(key.asbytes()).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def changed_key_text(target: Target, key: paramiko.PKey) -> str:
    """What to say of a host whose key is not the known one."""
    files = ", ".join(_existing(target.known_hosts))
    return (
        f"its host key has CHANGED (now {key.get_name()} {fingerprint(key)}): another machine "
        f"answers there, or it was installed anew; if you know why, remove the old key: "
        f"ssh-keygen -R '{target.key_name}' -f FILE (of {files})"
    )


def _existing(paths: Tuple[str, ...]) -> List[str]:
    return [path for path in paths if os.path.exists(path)]


def _name(target: Target) -> str:
    """What paramiko's client calls the host in its own table."""
    return target.hostname if target.port == 22 else f"[{target.hostname}]:{target.port}"
