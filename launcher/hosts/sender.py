"""Sends files of a host back. The host runs the text of this file, without the rest of Baryon.

So it needs only Python 3.6 and its standard library. On standard input and output it speaks this
protocol with collect.py::

    collector  {"dst": ..., "patterns": [...]}
    sender     {"files": [[path, size, mtime_ns, mode], ...], "left_out": [sentence, ...]}
    sender     for each file: chunks (4 bytes of length, data), a length of 0, its SHA-256;
               or, if it cannot be read, a length of ABORT, then that of the reason, the reason

Instead of the first line, the sender may send ``{"error": words}`` and end. The line begins with
MARK, because login scripts may print as well. Patterns are those of ``glob``, relative to ``dst``;
``**`` matches any directories, but follows no links. If a pattern matches a directory, all files
below it are sent. Only regular files and links to them are sent, and never from outside of ``dst``,
wherever a link leads.
"""

import fnmatch
import glob
import hashlib
import json
import os
import stat
import struct
import sys
from typing import BinaryIO, Dict, Iterator, List, Sequence, Tuple

MARK = b"BARYON-FETCH "
ABORT = 0xFFFFFFFF
LENGTH = struct.Struct("!I")
_CHUNK = 256 << 10
_FEW = 20  # sentences about matches that are not sent


def main() -> int:
    """Serve one request on standard input and output. Returns the exit code."""
    outgoing = sys.stdout.buffer
    request = json.loads(sys.stdin.buffer.readline().decode("ascii"))
    dst = os.path.expanduser(request["dst"].encode("utf-8", "surrogateescape"))
    dst = os.path.realpath(os.path.join(os.path.expanduser(b"~"), dst))
    if not os.path.isdir(dst):
        _answer(outgoing, error=f"{_text(dst)!r} no longer exists")
        return 1
    patterns = [pattern.encode("utf-8", "surrogateescape") for pattern in request["patterns"]]
    files, left_out = find(dst, patterns)
    described = []
    for path, state in sorted(files.items()):
        described.append([_text(path), state.st_size, state.st_mtime_ns, state.st_mode & 0o777])
    _answer(outgoing, files=described, left_out=left_out)
    for path in sorted(files):
        _send(outgoing, os.path.join(dst, path))
    outgoing.flush()
    return 0


def find(dst: bytes, patterns: List[bytes]) -> Tuple[Dict[bytes, os.stat_result], List[str]]:
    """(files below ``dst`` that match a pattern, by relative path; sentences on other matches)."""
    files = {}
    left_out = set()
    for pattern in patterns:
        for match in _matches(dst, dst, [part for part in pattern.split(b"/") if part]):
            for full in _below(dst, match):
                path = os.path.relpath(full, dst)
                if path in files:
                    continue
                real = os.path.realpath(full)
                try:
                    state = os.stat(real)
                except OSError as error:
                    left_out.add(f"{_text(path)!r}: {error.strerror}")
                    continue
                if not _is_inside(dst, full):
                    left_out.add(f"{_text(path)!r} leads out of {_text(dst)!r}")
                elif stat.S_ISREG(state.st_mode):
                    files[path] = state
                else:
                    left_out.add(f"{_text(path)!r} is no file")
    return files, few(sorted(left_out), _FEW)


def few(sentences: Sequence[str], count: int) -> List[str]:
    """The first ``count`` sentences, and the number of the others."""
    more = len(sentences) - count
    return [*sentences[:count], *([f"and {more} more"] if more > 0 else [])]


def _matches(dst: bytes, path: bytes, parts: List[bytes]) -> Iterator[bytes]:
    """Paths below ``path`` that match a pattern's ``parts``. A link out of ``dst`` is returned
    itself, because a whole data set may lie behind it. glob would walk that."""
    if not parts or not _is_inside(dst, path):
        yield path
    elif parts[0] == b"**":
        yield from _matches(dst, path, parts[1:])
        for name in _names(path):
            child = os.path.join(path, name)
            if not name.startswith(b".") and (len(parts) == 1 or os.path.isdir(child)):
                is_link = os.path.islink(child)  # following links might never end
                yield from _matches(dst, child, parts[1:] if is_link else parts)
    elif glob.has_magic(parts[0]):
        for name in fnmatch.filter(_names(path), parts[0]):
            if parts[0].startswith(b".") or not name.startswith(b"."):
                yield from _matches(dst, os.path.join(path, name), parts[1:])
    elif os.path.lexists(os.path.join(path, parts[0])):
        yield from _matches(dst, os.path.join(path, parts[0]), parts[1:])


def _names(folder: bytes) -> List[bytes]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _below(dst: bytes, top: bytes) -> Iterator[bytes]:
    """The files below a directory, or ``top`` itself."""
    if not os.path.isdir(top) or not _is_inside(dst, top):
        yield top
        return
    for folder, folders, names in os.walk(top):
        folders.sort()
        for name in names:
            yield os.path.join(folder, name)


def _is_inside(dst: bytes, path: bytes) -> bool:
    return os.path.join(os.path.realpath(path), b"").startswith(os.path.join(dst, b""))


def _send(outgoing: BinaryIO, path: bytes) -> None:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while True:
                data = file.read(_CHUNK)
                if not data:
                    break
                digest.update(data)
                outgoing.write(LENGTH.pack(len(data)) + data)
    except OSError as error:
        reason = str(error.strerror).encode()
        outgoing.write(LENGTH.pack(ABORT) + LENGTH.pack(len(reason)) + reason)
        return
    outgoing.write(LENGTH.pack(0) + digest.digest())


def _answer(outgoing: BinaryIO, **fields: object) -> None:
    outgoing.write(b"\n" + MARK + json.dumps(fields).encode("ascii") + b"\n")
    outgoing.flush()


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


if __name__ == "__main__":
    sys.exit(main())
