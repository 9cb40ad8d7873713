"""Delivers files to a host: the sender's side of the protocol that receiver.py documents.

A host gets only files that it lacks. A file is *unchanged* if its size, modification time and
permissions are the same there as here; a link, if its target is. Contents are not compared, but
each file that travels is checked by its SHA-256, computed while the file is read.

Rejected:

- SFTP. Checksums, and replacing all files at the end, need a process on the host anyway. It takes
  several round trips for each file, and login scripts that print break it.
- tarfile with ``filter="data"``. Old Pythons on hosts lack the filter (it came with 3.8.17). It
  changes permissions (0664 arrives as 0644), and tarfile rounds modification times, so files would
  not count as unchanged the next time. It has no checksums, and no word for a sender that gives up.
  It would replace only the chunks, 25 lines here and in receiver.py.

One thread runs a delivery. Several may run in parallel, also of the same manifest.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Protocol

from baryon.ps import PeerError, ProtocolError, UsageError

from . import receiver
from .answers import read_answer
from .manifest import Entry, Manifest

__all__ = ["ByteStream", "Delivered", "Progress", "deliver", "receiver_source"]

_CHUNK = 256 << 10


class ByteStream(Protocol):
    """The interface that `deliver` needs. Implementations may buffer writes."""

    def write(self, data: bytes) -> object: ...

    def flush(self) -> object: ...

    def readline(self) -> bytes:
        """The next line; empty at the end."""


class Progress(NamedTuple):
    """How far a delivery is. Files that the host had already do not count."""

    num_sent: int
    num_files: int
    nbytes_sent: int
    nbytes: int


class Delivered(NamedTuple):
    """``dst`` is the absolute path on the host. ``num_sent`` counts the entries that were sent."""

    dst: str
    num_sent: int
    nbytes: int


def receiver_source() -> str:
    """The program to run on the host. Its standard input and output are the stream."""
    return Path(receiver.__file__).read_text(encoding="utf-8")


def deliver(
    stream: ByteStream,
    host: str,
    dst: str,
    manifest: Manifest,
    on_progress: Callable[[Progress], object] = lambda progress: None,
) -> Delivered:
    """Put the files of ``manifest`` into ``dst`` on ``host``, through ``stream`` to its receiver.

    ``dst`` may begin with ~, and may be relative to the home directory there. When this returns,
    all files are in place. When it raises, none is, unless the message says otherwise.

    Raises PeerError with the host's own words if it cannot write the files or the stream ends,
    UsageError if a file here changes or cannot be read, ProtocolError for an impossible answer.
    """
    files = [entry[:6] for entry in manifest.entries]
    request = json.dumps({"dst": dst, "files": files}, separators=(",", ":"))
    try:
        stream.write(request.encode("ascii") + b"\n")
        stream.flush()
    except OSError as error:
        raise _broken(stream, host, error) from error
    answer = _answer(stream, host)
    needed = _needed(answer, manifest, host)
    _send(stream, host, [entry for entry in needed if entry.kind == "file"], on_progress)
    done = _answer(stream, host)
    if done.get("done") != len(needed):
        raise ProtocolError(
            f"{host}: {len(needed)} files were sent, but it says {done.get('done')!r}"
        )
    nbytes = sum(entry.size for entry in needed)
    return Delivered(str(answer["dst"]), len(needed), nbytes)


def _needed(answer: Dict[str, object], manifest: Manifest, host: str) -> List[Entry]:
    need, entries = answer.get("need"), manifest.entries
    if (
        not isinstance(need, list)
        or not all(type(index) is int and 0 <= index < len(entries) for index in need)
        or not isinstance(answer.get("dst"), str)
    ):
        raise ProtocolError(f"{host}: impossible answer to a list of files: {str(answer)[:200]}")
    return [entries[index] for index in need]


def _send(
    stream: ByteStream,
    host: str,
    entries: List[Entry],
    on_progress: Callable[[Progress], object],
) -> None:
    nbytes = sum(entry.size for entry in entries)
    sent = 0
    for index, entry in enumerate(entries):
        on_progress(Progress(index, len(entries), sent, nbytes))
        fault = None
        digest = hashlib.sha256()
        size = 0
        try:
            with open(entry.source, "rb") as file:
                while True:
                    data = file.read(min(_CHUNK, entry.size - size + 1))
                    size += len(data)
                    if not data or size > entry.size:
                        break
                    digest.update(data)
                    _write(stream, host, receiver.LENGTH.pack(len(data)), data)
                    on_progress(Progress(index, len(entries), sent + size, nbytes))
                if size != entry.size or os.fstat(file.fileno()).st_mtime_ns != entry.mtime_ns:
                    fault = (
                        "changed while it was copied; leave it alone during the copy, or exclude "
                        "it in .baryonignore"
                    )
        except OSError as error:
            fault = f"cannot be read: {error.strerror}"
        if fault:
            _abort(stream)
            raise UsageError(f"{entry.source!r} {fault} (on the way to {host})")
        _write(stream, host, receiver.LENGTH.pack(0), digest.digest())
        sent += size
    try:
        stream.flush()
    except OSError as error:
        raise _broken(stream, host, error) from error
    on_progress(Progress(len(entries), len(entries), sent, nbytes))


def _write(stream: ByteStream, host: str, *parts: bytes) -> None:
    try:
        for part in parts:
            stream.write(part)
    except OSError as error:
        raise _broken(stream, host, error) from error


def _abort(stream: ByteStream) -> None:
    """Tell the receiver to give up, and wait until it has cleaned up."""
    try:
        stream.write(receiver.LENGTH.pack(receiver.ABORT))
        stream.flush()
        while stream.readline():
            pass
    except OSError:
        pass  # the receiver has ended already


def _broken(stream: ByteStream, host: str, error: OSError) -> PeerError:
    """Why ``stream`` broke: the receiver's last message, if there is one."""
    try:
        _answer(stream, host)
    except PeerError as last_words:
        return last_words
    return PeerError(f"{host}: the connection broke while files were sent: {error}")


def _answer(stream: ByteStream, host: str) -> Dict[str, object]:
    """The receiver's next answer. All errors name ``host``."""
    try:
        answer = read_answer(stream.readline, receiver.MARK, "the files")
    except (PeerError, ProtocolError) as error:
        raise type(error)(f"{host}: {error}") from error
    if "error" in answer:
        raise PeerError("\n".join(f"{host}: {part}" for part in str(answer["error"]).splitlines()))
    return answer
