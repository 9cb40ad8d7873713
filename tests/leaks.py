"""Names what a test has left behind, whatever else runs on this machine.

Threads, descriptors (files and sockets) and child processes of this process are the test's own. In
places that all programs share, a new file counts as the test's unless another user owns it or a
living process uses it. A job elsewhere removes its files when it ends, and the processes of this
test are found themselves. A file may be found just before its owner removes it, so ``check`` looks
again.
"""

import glob
import os
import threading
import time
from typing import Dict, Iterator, List, Protocol, Sequence, Set

import psutil

SHARED = ("/dev/shm/*", "/tmp/baryon-*")


class Kind(Protocol):
    def found(self) -> List[str]:
        """Name what is left."""


class Files:
    """The files in shared places that are newer than this object."""

    def __init__(self, patterns: Sequence[str] = SHARED) -> None:
        self._patterns = patterns
        self._before = self._now()

    def _now(self) -> Set[str]:
        return {path for pattern in self._patterns for path in glob.glob(pattern)}

    def found(self) -> List[str]:
        new = {path for path in self._now() - self._before if _is_mine(path)}
        others = set(_held()) if new else set()
        return [f"file {path}" for path in sorted(new) if not _is_among(path, others)]


class Leaks:
    """What this process has gained since this object was made."""

    def __init__(self) -> None:
        self._threads = set(threading.enumerate())
        self._descriptors = _descriptors()
        self._children = _children()

    def found(self) -> List[str]:
        threads = set(threading.enumerate()) - self._threads
        descriptors = set(_descriptors().items()) - set(self._descriptors.items())
        children = _children() - self._children
        return [
            *(f"thread {thread.name}" for thread in threads),
            *(f"descriptor {number} of {what}" for number, what in descriptors),
            *map(described, sorted(children)),
        ]


def described(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        return f"process {pid} ({' '.join(process.cmdline()) or process.name()})"
    except psutil.NoSuchProcess:
        return f"process {pid} (which ended just now)"


def check(*kinds: Kind, limit_s: float = 0.0) -> None:
    """Raise AssertionError that names what is still left after ``limit_s``."""
    deadline = time.monotonic() + limit_s
    while True:
        left = [name for kind in kinds for name in kind.found()]
        if not left:
            return
        assert time.monotonic() < deadline, f"left behind: {', '.join(left)}"
        time.sleep(0.02)


def _is_mine(path: str) -> bool:
    try:
        return os.lstat(path).st_uid == os.geteuid()
    except FileNotFoundError:
        return False


def _is_among(path: str, held: Set[str]) -> bool:
    return path in held or any(other.startswith(f"{path}/") for other in held)


def _held() -> Iterator[str]:
    """The paths that living processes have open or mapped, and their working directories."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            yield os.readlink(f"/proc/{pid}/cwd")
            for number in os.listdir(f"/proc/{pid}/fd"):
                yield os.readlink(f"/proc/{pid}/fd/{number}")
            with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as maps:
                yield from (line.rstrip("\n").split(maxsplit=5)[-1] for line in maps)
        except OSError:
            pass  # it has ended, or is another user's


def _children() -> Set[int]:
    """The living ones: if this process is PID 1, dead orphans are its children as well."""
    found = ""
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/children", encoding="ascii") as file:
                found += file.read()
        except OSError:
            pass  # the thread has ended
    return {pid for pid in map(int, found.split()) if _lives(pid)}


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _descriptors() -> Dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            pass  # the listing's own
    return found
