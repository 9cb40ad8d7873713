"""Brings results back from hosts (``--fetch``): the collector's side of the protocol that sender.py
documents.

Each host's files go into a directory of its own, so names of two hosts never meet, and nothing that
is here already is written over. What a host says of its files is not believed: a path that is
absolute or has ``..`` in it is refused, no link is made, and contents are checked by their SHA-256.

SFTP was rejected, as in delivery.py: it is not on every host, and knows no patterns.
"""

import hashlib
import json
import os
import re
import tempfile
import threading
from pathlib import Path
from typing import BinaryIO, Callable, Dict, List, NamedTuple, Protocol, Sequence, Set, Tuple

from baryon.ps import BaryonError, PeerError, ProtocolError

from ..parallel import side_by_side
from ..ssh import Connection, Interpreter, RemoteProcess
from . import sender
from .answers import read_answer

__all__ = ["FETCHED", "Collected", "Incoming", "Source", "collect", "collect_all"]

FETCHED = "fetched"
"""The directory, in a job's log directory, that has one for each host."""

_MAX_CHUNK = 1 << 20
_MAX_SENTENCES = 50  # about a host's files that did not arrive; honest hosts have fewer
_MAX_SENTENCE = 10_000
_MAX_TIME_NS = 10**9 << 62  # the limit of utime


class Incoming(Protocol):
    """The interface that `collect` needs."""

    def write(self, data: bytes) -> object: ...

    def flush(self) -> object: ...

    def readline(self) -> bytes:
        """The next line; empty at the end."""

    def read(self, size: int) -> bytes:
        """``size`` bytes; fewer at the end."""


class Source(NamedTuple):
    """A host to fetch from."""

    name: str
    connection: Connection
    interpreter: Interpreter


class Collected(NamedTuple):
    """The files from one host. ``problems`` has a sentence for each file that failed, ``left_out``
    one for each match that is not a file below the directory."""

    paths: Sequence[str]
    nbytes: int
    problems: Sequence[str] = ()
    left_out: Sequence[str] = ()


def collect_all(
    sources: Sequence[Source],
    dst: str,
    patterns: Sequence[str],
    into: str,
    say: Callable[[str], None],
) -> bool:
    """Fetch matching files in ``dst`` from all hosts in parallel. Returns whether all succeeded.

    ``say`` gets a line about the files that arrived, and one for each that did not.
    """
    came: Dict[str, Collected] = {}
    errors: List[str] = []
    lock = threading.Lock()

    def fetch(source: Source) -> None:
        try:
            collected = _fetch(source, dst, patterns, os.path.join(into, source.name))
        except BaryonError as error:
            with lock:
                errors.extend(f"{source.name}: {line}" for line in str(error).splitlines())
            return
        with lock:
            came[source.name] = collected
            problems = sender.few(collected.problems, _MAX_SENTENCES)
            errors.extend(f"{source.name}: {problem}" for problem in problems)

    side_by_side(fetch, sources)
    for name, each in sorted(came.items()):
        for sentence in sender.few(each.left_out, _MAX_SENTENCES):
            say(f"note: {name}: not fetched: {sentence}")
    for error in sorted(errors):
        say(f"error: --fetch: {error}")
    count = sum(len(each.paths) for each in came.values())
    nbytes = sum(each.nbytes for each in came.values())
    hosts = [source.name for source in sources if source.name in came and came[source.name].paths]
    if count:
        size = f"{nbytes / 1e6:.1f} MB" if nbytes >= 1e5 else f"{nbytes / 1e3:.1f} kB"
        say(
            f"note: fetched {count} file{'s' * (count > 1)}, {size}, from "
            f"{len(hosts)} host{'s' * (len(hosts) > 1)} into {os.path.relpath(into)}"
        )
    elif not errors:
        say(f"note: no host has anything in {dst} that matches --fetch {' '.join(patterns)}")
    return not errors


def _fetch(source: Source, dst: str, patterns: Sequence[str], into: str) -> Collected:
    text = Path(sender.__file__).read_text(encoding="utf-8")
    process = RemoteProcess.of_source(source.connection, source.interpreter, text)
    try:
        return collect(process, dst, patterns, into)
    finally:
        process.close()


def collect(stream: Incoming, dst: str, patterns: Sequence[str], into: str) -> Collected:
    """Fetch matching files in ``dst`` through ``stream`` from the host's sender.

    Raises PeerError if the stream ends or a file cannot be written here, ProtocolError for an
    impossible answer.
    """
    request = json.dumps({"dst": dst, "patterns": list(patterns)}).encode("ascii")
    try:
        stream.write(request + b"\n")
        stream.flush()
        answer = read_answer(stream.readline, sender.MARK, "results")
        if "error" in answer:
            raise PeerError(_plain(str(answer["error"])))
        files, left_out = _files(answer), _left_out(answer)
        paths: List[str] = []
        problems: List[str] = []
        nbytes = 0
        for path, mtime_ns, mode in files:
            problem, size = _take(stream, into, path, mtime_ns, mode)
            nbytes += size
            if problem:
                problems.append(f"{path!r} {problem}")
            else:
                paths.append(path)
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        text = f"results were not all fetched: {where}{error.strerror or error}"
        raise PeerError(text) from error
    return Collected(paths, nbytes, problems, left_out)


class _File(NamedTuple):
    path: str
    mtime_ns: int
    mode: int


def _files(answer: Dict[str, object]) -> List[_File]:
    """The announced files. Raises ProtocolError, also for paths that lead out of the directory."""
    listed, files = answer.get("files"), []
    seen: Set[str] = set()
    for entry in listed if isinstance(listed, list) else [None]:
        kinds = [str, int, int, int]
        if not isinstance(entry, list) or [type(value) for value in entry] != kinds:
            raise ProtocolError(f"impossible list of files: {repr(entry)[:200]}")
        path, _, mtime_ns, mode = entry
        if abs(mtime_ns) > _MAX_TIME_NS:
            raise ProtocolError(f"it sent the file {path!r} with an impossible time")
        is_name = "\0" not in path and not re.search("[\ud800-\udc7f\udd00-\udfff]", path)
        if path in seen or {"", ".", ".."} & set(path.split("/")) or not is_name:
            raise ProtocolError(f"it sent the path {path!r}, which is none below a directory")
        seen.add(path)
        files.append(_File(path, mtime_ns, mode & 0o777))
    return files


def _left_out(answer: Dict[str, object]) -> List[str]:
    left_out = answer.get("left_out")
    return [_plain(str(each)) for each in left_out] if isinstance(left_out, list) else []


def _take(stream: Incoming, into: str, path: str, mtime_ns: int, mode: int) -> Tuple[str, int]:
    """Receive one file and put it into place. Returns (problem or "", size)."""
    place = os.path.join(os.fsencode(into), path.encode("utf-8", "surrogateescape"))
    os.makedirs(os.path.dirname(place), exist_ok=True)
    descriptor, part = tempfile.mkstemp(dir=os.fsencode(into))
    try:
        with open(descriptor, "wb") as file:
            problem, size = _receive(stream, file)
        if problem:
            return problem, 0
        os.chmod(part, mode)
        os.utime(part, ns=(mtime_ns, mtime_ns))
        os.replace(part, place)
        part = b""
        return "", size
    finally:
        if part:
            os.unlink(part)


def _receive(stream: Incoming, file: BinaryIO) -> Tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while True:
        length = _length(stream)
        if length == sender.ABORT:
            reason = _exactly(stream, min(_length(stream), _MAX_CHUNK))
            return f"cannot be read: {_plain(reason.decode(errors='replace'))}", 0
        if length == 0:
            break
        if length > _MAX_CHUNK:
            raise ProtocolError(f"a piece of {length} bytes")
        data = _exactly(stream, length)
        digest.update(data)
        size += length
        file.write(data)
    if _exactly(stream, digest.digest_size) != digest.digest():
        return "arrived damaged", 0
    return "", size


def _length(stream: Incoming) -> int:
    return int(sender.LENGTH.unpack(_exactly(stream, sender.LENGTH.size))[0])


def _exactly(stream: Incoming, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise PeerError("its connection ended before all had come")
    return data


def _plain(text: str) -> str:
    """A host's text without control characters for the terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:_MAX_SENTENCE])
