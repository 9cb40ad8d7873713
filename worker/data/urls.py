"""Files by URL: on this machine, in S3, in HDFS, or wherever else fsspec reaches.

A path without ``scheme://`` is a local file. Options go to fsspec's file system as they are (for
S3: ``key``, ``secret``, ``anon``, ``endpoint_url``, ...). fsspec is imported when it is first
needed; it comes with the extra ``data``, and what it needs for S3 with ``s3``.
"""

import fcntl
import functools
import hashlib
import os
import posixpath
from typing import Any, Callable, Dict, Tuple

from baryon.ps import UsageError

from .recordio import RecordError

__all__ = ["ReadAhead", "RemoteFile", "local_copy", "open_url"]


@functools.lru_cache(maxsize=None)
def _fsspec() -> Any:
    try:
        import fsspec
        import fsspec.asyn
    except ImportError:
        raise UsageError(
            "files are opened by URL through fsspec, which is not installed; "
            "run: pip install fsspec (for S3: pip install s3fs)"
        ) from None
    # A forked process would wait for ever for fsspec's thread, which it does not have. Newer
    # versions do this themselves; those for Python 3.8 do not.
    os.register_at_fork(after_in_child=fsspec.asyn.reset_lock)
    return fsspec


def open_url(url: str, mode: str = "rb", **options: Any) -> Any:
    """A file object for ``url``, to be closed or used in ``with``.

    Raises UsageError without fsspec, and what fsspec's file system raises, such as
    FileNotFoundError, or ImportError where the library for that scheme is missing.
    """
    return _fsspec().open(url, mode, **options).open()


class RemoteFile:
    """Random access to the bytes of one file.

    It keeps no position, so threads may share it. It may be pickled, and it may be used in a
    process that was forked from one that has used it: connections, and the thread in which some of
    fsspec's file systems work, do not survive a fork, so each process opens its own.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        self._options = options
        self._opened: Tuple[int, Any, str] = (0, None, "")  # process, file system, path

    def __getstate__(self) -> Dict[str, Any]:
        return {**vars(self), "_opened": (0, None, "")}

    def _open(self) -> Tuple[Any, str]:
        pid, system, path = self._opened
        if pid != os.getpid():
            system, path = _fsspec().core.url_to_fs(self.url, **self._options)
            self._opened = os.getpid(), system, path
        return system, path

    def nbytes(self) -> int:
        """The file's size; raises FileNotFoundError if there is none."""
        system, path = self._open()
        size = system.size(path)
        if size is None:
            raise UsageError(f"{self.url}: its size is not known there, so no part can be read")
        return int(size)

    def read(self, start: int, end: int) -> bytes:
        """The bytes from ``start`` to before ``end``, in one request; raises RecordError if there
        are fewer."""
        system, path = self._open()
        data: bytes = system.cat_file(path, start=start, end=end)
        if len(data) != end - start:
            raise RecordError(
                f"{self.url}: {len(data)} bytes came for {end - start} at byte {start}; "
                "has the file been replaced since it was opened?"
            )
        return data


class ReadAhead:
    """Reads ranges of a file, and more than was asked for where reads follow one another.

    ``fetch(start, end)`` reads a file of ``nbytes``. A read that begins where the last one ended
    fetches ``readahead_nbytes`` at least; any other one exactly what it asks for, so that shuffled
    reads fetch nothing in vain. Threads may share it; they only fetch more than they had to.
    """

    def __init__(
        self, fetch: Callable[[int, int], bytes], nbytes: int, readahead_nbytes: int
    ) -> None:
        self._fetch = fetch
        self._nbytes = nbytes
        self._readahead_nbytes = readahead_nbytes
        self._window = (0, b"")  # start and bytes: replaced in one step
        self._end = 0  # of the last read

    def __getstate__(self) -> Dict[str, Any]:
        return {**vars(self), "_window": (0, b"")}

    def read(self, start: int, end: int) -> bytes:
        """The bytes from ``start`` to before ``end``, which must lie in the file."""
        first, window = self._window
        if not (first <= start and end <= first + len(window)):
            stop = end
            if start == self._end:
                stop = max(end, min(self._nbytes, start + self._readahead_nbytes))
            first, window = self._window = start, self._fetch(start, stop)
        self._end = end
        return window[start - first : end - first]


def local_copy(url: str, folder: str, **options: Any) -> str:
    """The path of a copy of ``url`` in ``folder`` (made if needed), fetched if it is not there yet.

    For what reads local paths only, as `mx.io.ImageRecordIter`. The workers of a host may ask for
    it at the same time: one fetches it, the others wait. A file that changes at its source gets
    another copy; old ones stay until you delete them. ``folder`` should be on a local disk.

    fsspec has caches of its own (``filecache::``, ``blockcache::``), which are for one process:
    they download to the final path, where another process finds half a file.
    """
    system, path = _fsspec().core.url_to_fs(url, **options)
    name = posixpath.basename(path)
    version = hashlib.sha256(f"{url} {system.ukey(path)}".encode()).hexdigest()[:16]
    folder = os.path.abspath(os.path.expanduser(folder))
    copy = os.path.join(folder, f"{version}-{name}")
    os.makedirs(folder, exist_ok=True)
    with open(f"{copy}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed
        if not os.path.exists(copy):
            system.get_file(path, f"{copy}.part")
            os.replace(f"{copy}.part", copy)
    return copy
