"""Reads known_hosts files. sshd(8) describes their format.

paramiko's reader was rejected: one line that it does not understand makes it drop the whole file,
it knows neither patterns nor @revoked, and it keeps one key of each kind for a name.
"""

import base64
import binascii
import hashlib
import hmac
import re
from typing import FrozenSet, Iterable, List, NamedTuple, Optional, Tuple

__all__ = ["Known", "KnownHosts"]

HostKey = Tuple[str, bytes]
"""The kind of a key ("ssh-ed25519") and its bytes."""


class Known(NamedTuple):
    """A host's valid keys, and its revoked keys."""

    keys: FrozenSet[HostKey]
    revoked: FrozenSet[HostKey]


class _Line(NamedTuple):
    marker: str
    names: List[str]
    key: HostKey


class KnownHosts:
    """The lines of several files. Unreadable files and unknown lines are skipped."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._lines: List[_Line] = []
        for path in paths:
            try:
                with open(path, encoding="utf-8", errors="replace") as file:
                    self._lines += filter(None, map(_parse, file))
            except OSError:
                pass  # the file does not exist, or is not ours to read

    def lookup(self, name: str) -> Known:
        """The keys of ``name``, which is a host's name or ``[name]:port``."""
        name = name.lower()
        found = [line for line in self._lines if _is_meant(name, line.names)]
        return Known(
            frozenset(line.key for line in found if not line.marker),
            frozenset(line.key for line in found if line.marker == "@revoked"),
        )

    def add(self, name: str, key: HostKey) -> None:
        self._lines.append(_Line("", [name], key))


def _parse(text: str) -> Optional[_Line]:
    words = text.split()
    marker = words.pop(0) if words and words[0].startswith("@") else ""
    if len(words) < 3 or words[0].startswith("#"):
        return None
    try:
        key = base64.b64decode(words[2], validate=True)
    except (binascii.Error, ValueError):
        return None
    return _Line(marker, words[0].split(","), (words[1], key))


def _is_meant(name: str, patterns: List[str]) -> bool:
    """Whether a pattern matches and none that begins with ! does."""
    if any(p.startswith("!") and _matches(name, p[1:]) for p in patterns):
        return False
    return any(_matches(name, pattern) for pattern in patterns)


def _matches(name: str, pattern: str) -> bool:
    if pattern.startswith("|1|"):
        return _is_hash_of(name, pattern)
    parts = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern.lower())
    return re.fullmatch("".join(parts), name) is not None


def _is_hash_of(name: str, text: str) -> bool:
    """``|1|salt|HMAC-SHA1 of the name``, as HashKnownHosts writes it."""
    try:
        _, _, salt, expected = text.split("|")
        digest = hmac.new(base64.b64decode(salt), name.encode(), hashlib.sha1).digest()
        return hmac.compare_digest(digest, base64.b64decode(expected))
    except ValueError:
        return False
