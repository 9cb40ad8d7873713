"""Puts files into place on a host. The host runs the text of this file, without the rest of Baryon.

So it needs only Python 3.6 and its standard library. On standard input and output it speaks this
protocol with delivery.py::

    sender    {"dst": ..., "files": [[path, kind, size, mtime_ns, mode, target], ...]}
    receiver  {"need": [index, ...], "dst": absolute path}
    sender    for each needed file: chunks (4 bytes of length, data), a length of 0, its SHA-256
    receiver  {"done": count, "nbytes": count}

Instead of either line, the receiver may send ``{"error": words}`` and end. Its lines begin with
MARK, because login scripts may print as well. A length of ABORT means that the sender gives up.

Guarantees: All files arrive in a staging directory and are verified before the first one is put
into place. Each file is replaced atomically. The staging directory is always removed (after SIGKILL
by a delivery on a later day). Nothing else is deleted, and nothing is written outside of ``dst``,
not even through symbolic links. Paths are bytes, so every name that Linux allows arrives unchanged,
whatever the host's locale.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import signal
import stat
import struct
import sys
import tempfile
import time
from typing import BinaryIO, Dict, Iterator, List, NamedTuple, Optional, Set

MARK = b"BARYON-FILES "
ABORT = 0xFFFFFFFF
LENGTH = struct.Struct("!I")
MAX_CHUNK = 1 << 20
STAGING = ".baryon-incoming-"
_STALE_S = 24 * 3600  # younger directories may be in use by hosts that share the file system
_MTIME_UNITS_NS = (1, 1000, 10**9)  # file systems round down to these; Lustre and ext3 to seconds
_MOST_FAULTS = 20
_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space there or choose another directory",
    errno.EDQUOT: "your disk quota is used up; delete something or choose another directory",
    errno.EACCES: "you may not write there; choose another directory or change its permissions",
    errno.EPERM: "the host does not permit it; choose another directory",
    errno.ENOENT: "it cannot be made there; choose another directory",
    errno.EROFS: "the file system is read-only; choose another directory",
    errno.ENAMETOOLONG: "the path is too long for the host; choose a directory with a shorter one",
    errno.EXDEV: "another file system is mounted below the directory; choose one without",
    errno.ENOTDIR: "a file is where a directory must be; rename it or choose another directory",
    errno.EEXIST: "a file is where a directory must be; rename it or choose another directory",
}


class Refusal(Exception):
    """An error to report to the sender."""


class Wanted(NamedTuple):
    """The wanted state of a file, link or directory. ``path`` and ``target`` are relative."""

    path: bytes
    kind: str
    size: int
    mtime_ns: int
    mode: int
    target: bytes


def main() -> int:
    """Serve one delivery on standard input and output. Returns the exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _interrupted)
    outgoing = sys.stdout.buffer
    try:
        receive(sys.stdin.buffer, outgoing)
        return 0
    except EOFError:
        return 1  # the sender has gone, so there is no one to report to
    except Refusal as refusal:
        error = str(refusal)
    except (ValueError, TypeError, LookupError, AttributeError) as malformed:
        error = f"the list of files is malformed: {malformed!r}"
    try:
        answer(outgoing, error=error)
    except OSError:
        pass  # as above
    return 1


def receive(incoming: BinaryIO, outgoing: BinaryIO) -> None:
    """Serve one delivery. Raises Refusal with a message, or EOFError if the sender goes away."""
    line = incoming.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    request = json.loads(line.decode("ascii"))
    wanted = [
        Wanted(_bytes(f[0]), f[1], f[2], f[3], f[4] & 0o777, _bytes(f[5])) for f in request["files"]
    ]
    parents = check(wanted)
    dst = _absolute(_bytes(request["dst"]))
    with _about(dst):
        os.makedirs(dst, exist_ok=True)
        os.chdir(dst)
    need = compare(wanted, parents)
    answer(outgoing, need=need, dst=_text(dst))
    nbytes = _take(incoming, wanted, need, parents)
    answer(outgoing, done=len(need), nbytes=nbytes)


def answer(outgoing: BinaryIO, **fields: object) -> None:
    """Send one line. The newline before it ends an unfinished line of a login script."""
    outgoing.write(b"\n" + MARK + json.dumps(fields).encode("ascii") + b"\n")
    outgoing.flush()


def _absolute(dst: bytes) -> bytes:
    expanded = os.path.expanduser(dst)
    if expanded[:1] == b"~":
        raise Refusal(f"{_show(dst)}: there is no such user on the host")
    return os.path.abspath(os.path.join(os.path.expanduser(b"~"), expanded))


def check(wanted: List[Wanted]) -> Set[bytes]:
    """All directories above ``wanted``. Raises Refusal for paths that conflict or leave ``dst``."""
    kinds: Dict[bytes, str] = {}
    parents: Set[bytes] = set()
    for each in wanted:
        parts = each.path.split(b"/")
        if {b"", b".", b".."} & set(parts) or b"\0" in each.path or each.path in kinds:
            raise Refusal(f"the list of files has the impossible path {_show(each.path)}")
        if each.kind not in ("file", "link", "dir"):
            raise Refusal(f"{_show(each.path)} is of unknown kind {each.kind!r}")
        end = os.path.normpath(os.path.join(os.path.dirname(each.path), each.target))
        if each.kind == "link" and (end[:1] == b"/" or end == b".." or end[:3] == b"../"):
            raise Refusal(f"the link {_show(each.path)} leads out of the directory")
        kinds[each.path] = each.kind
        parents.update(b"/".join(parts[:depth]) for depth in range(1, len(parts)))
    for path in sorted(parents):
        if kinds.get(path, "dir") != "dir":
            raise Refusal(f"{_show(path)} is listed as a {kinds[path]} and as a directory")
    return parents


def compare(wanted: List[Wanted], parents: Set[bytes]) -> List[int]:
    """The indices of entries that differ on this host. Raises Refusal if one cannot be written."""
    faults = []
    for path in sorted(parents):
        found = _lstat(path)
        if found is not None and not stat.S_ISDIR(found.st_mode):
            faults.append(f"{_show(path)} is no directory on the host, but must be")
    need = []
    for index, each in enumerate(wanted):
        found = _lstat(each.path)
        is_dir = found is not None and stat.S_ISDIR(found.st_mode)
        if found is not None and is_dir != (each.kind == "dir"):
            what = "a directory" if is_dir else "no directory"
            faults.append(f"{_show(each.path)} is {what} on the host, and a {each.kind} here")
        elif found is None or not _is_same(each, found):
            need.append(index)
    folders = {_existing(os.path.dirname(wanted[index].path)) for index in need}
    for folder in sorted(folders):
        if not faults and not os.access(folder, os.W_OK | os.X_OK):
            is_read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
            number = errno.EROFS if is_read_only else errno.EACCES
            faults.append(_words(OSError(number, ""), os.path.abspath(folder)))
    if faults:
        more = len(faults) - _MOST_FAULTS
        rest = [f"and {more} more"] if more > 0 else []
        raise Refusal("\n".join(faults[:_MOST_FAULTS] + rest))
    return need


def _is_same(each: Wanted, found: os.stat_result) -> bool:
    mode = found.st_mode & 0o777
    if each.kind == "link":
        return stat.S_ISLNK(found.st_mode) and os.readlink(each.path) == each.target
    if each.kind == "dir":
        return True  # an existing directory keeps its permissions
    is_as_old = any(
        found.st_mtime_ns == each.mtime_ns - each.mtime_ns % unit for unit in _MTIME_UNITS_NS
    )
    is_file = stat.S_ISREG(found.st_mode)
    return is_file and is_as_old and found.st_size == each.size and mode == each.mode


def _take(incoming: BinaryIO, wanted: List[Wanted], need: List[int], parents: Set[bytes]) -> int:
    """Receive the needed entries and put them into place. Returns the bytes of their files."""
    _remove_stale()
    nbytes = 0
    with _staging([wanted[index] for index in need]) as staging:
        staged = []
        for index in need:
            each = wanted[index]
            with _about(os.path.abspath(each.path)):
                place = os.path.join(staging, str(index).encode("ascii"))
                if each.kind == "link":
                    os.symlink(each.target, place)
                elif each.kind == "file":
                    nbytes += _take_file(incoming, each, place)
            staged.append((place, each))
        _ignore_signals()  # the rest takes moments, and should not stop halfway
        folders = parents | {each.path for _, each in staged if each.kind == "dir"}
        for path in sorted(folders):  # a directory sorts before what lies in it
            with _about(os.path.abspath(path)):
                try:
                    os.mkdir(path)
                except FileExistsError:  # or another host, sharing the file system, was first
                    if not os.path.isdir(path):
                        raise
        for place, each in sorted(staged, key=lambda one: one[1].kind == "dir"):
            with _about(os.path.abspath(each.path)):
                if each.kind == "dir":
                    special = os.stat(each.path).st_mode & 0o7000  # a group's directory stays one
                    os.chmod(each.path, special | each.mode)
                else:
                    os.replace(place, each.path)
    return nbytes


def _take_file(incoming: BinaryIO, each: Wanted, place: bytes) -> int:
    digest = hashlib.sha256()
    size = 0
    with open(place, "xb") as file:
        while True:
            (length,) = LENGTH.unpack(_exactly(incoming, LENGTH.size))
            if length == ABORT:
                raise Refusal("the sender gave up")
            if length == 0:
                break
            if length > MAX_CHUNK:
                raise Refusal(f"{_show(each.path)} arrived damaged; try again")
            data = _exactly(incoming, length)
            digest.update(data)
            size += length
            file.write(data)
    if _exactly(incoming, digest.digest_size) != digest.digest() or size != each.size:
        raise Refusal(f"{_show(each.path)} arrived damaged; try again")
    os.chmod(place, each.mode)
    os.utime(place, ns=(each.mtime_ns, each.mtime_ns))
    return size


def _exactly(incoming: BinaryIO, size: int) -> bytes:
    data = incoming.read(size)
    if len(data) < size:
        raise EOFError
    return data


@contextlib.contextmanager
def _staging(wanted: List[Wanted]) -> Iterator[bytes]:
    """A directory for arriving files, if there are any. It is removed at the end."""
    if all(each.kind == "dir" for each in wanted):
        yield b""
        return
    with _about(os.getcwdb()):
        path = tempfile.mkdtemp(prefix=STAGING.encode("ascii"), dir=b".")
    try:
        yield path
    finally:
        _ignore_signals()
        shutil.rmtree(path, ignore_errors=True)


def _remove_stale() -> None:
    """Remove the directories of killed deliveries. A live delivery often changes its own."""
    for name in os.listdir(b"."):
        if name.startswith(STAGING.encode("ascii")):
            found = _lstat(name)
            if found is not None and time.time() - found.st_mtime > _STALE_S:
                shutil.rmtree(name, ignore_errors=True)


def _interrupted(number: int, _frame: object) -> None:
    _ignore_signals()
    raise SystemExit(128 + number)


def _ignore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def _about(path: bytes) -> Iterator[None]:
    """Turn the system's errors into messages about ``path``."""
    try:
        yield
    except OSError as error:
        raise Refusal(_words(error, path)) from None


def _words(error: OSError, path: bytes) -> str:
    return f"{_show(path)}: {_REMEDIES.get(error.errno or 0, error.strerror)}"


def _lstat(path: bytes) -> Optional[os.stat_result]:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Refusal(_words(error, os.path.abspath(path))) from None


def _existing(folder: bytes) -> bytes:
    """``folder``, or its closest parent that exists."""
    while folder and not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return folder or b"."


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _show(path: bytes) -> str:
    """The path for people, quoted to show blanks and newlines."""
    return repr(_text(path))


if __name__ == "__main__":
    sys.exit(main())
