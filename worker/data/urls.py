"""Files by URL: on this machine, in S3, in HDFS, or wherever else fsspec reaches.

A path without ``scheme://`` is a local file. Options are passed to fsspec's file system (for S3:
``key``, ``secret``, ``anon``, ``endpoint_url``, ...). fsspec is imported on first use. The extra
``data`` installs fsspec, and the extra ``s3`` also what fsspec needs for S3.
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
    # A forked process does not have fsspec's thread and would wait for it for ever. Newer versions
    # of fsspec reset the lock themselves; those for Python 3.8 do not.
    os.register_at_fork(after_in_child=fsspec.asyn.reset_lock)
    return fsspec


def open_url(url: str, mode: str = "rb", **options: Any) -> Any:
    """A file object for ``url``; close it, or use it in ``with``.

    Raises UsageError without fsspec, and whatever fsspec's file system raises, such as
    FileNotFoundError, or ImportError if the library for that scheme is missing.
    """
    return _fsspec().open(url, mode, **options).open()


class RemoteFile:
    """Random access to the bytes of one file.

    It keeps no position, so threads may share it. It may be pickled, and used after a fork: each
    process opens the file for itself, because connections and fsspec's thread do not survive a
    fork.
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
        """The file's size; raises FileNotFoundError if there is no such file."""
        system, path = self._open()
        size = system.size(path)
        if size is None:
            raise UsageError(f"{self.url}: its server does not tell its size, which is needed")
        return int(size)

    def read(self, start: int, end: int) -> bytes:
        """The bytes from ``start`` up to ``end``, in one request; raises RecordError if there are
        fewer."""
        system, path = self._open()
        data: bytes = system.cat_file(path, start=start, end=end)
        if len(data) != end - start:
            raise RecordError(
                f"{self.url}: {len(data)} bytes came instead of {end - start} at byte {start}; "
                "has the file been replaced since it was opened?"
            )
        return data


class ReadAhead:
    """Reads ranges of a file, and reads ahead while the ranges follow one another.

    ``fetch(start, end)`` reads a file of ``nbytes``. A read that begins where the last one ended
    fetches at least ``readahead_nbytes``. Any other read fetches exactly its range, so shuffled
    reads fetch nothing in vain. Threads may share it, though they may then fetch more than needed.
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
        """The bytes from ``start`` up to ``end``, which must lie in the file."""
        first, window = self._window
        if not (first <= start and end <= first + len(window)):
            stop = end
            if start == self._end:
                stop = max(end, min(self._nbytes, start + self._readahead_nbytes))
            first, window = self._window = start, self._fetch(start, stop)
        self._end = end
        return window[start - first : end - first]


def local_copy(url: str, folder: str, **options: Any) -> str:
    """The path of a copy of ``url`` in ``folder``; the first call creates both.

    It is for code that reads local paths only, such as `mx.io.ImageRecordIter`. If the workers of a
    host call it at the same time, one fetches the file and the others wait. A file that has changed
    at its source gets a new copy; old copies stay until you delete them. Keep ``folder`` on a local
    disk.

    fsspec's own caches (``filecache::``, ``blockcache::``) serve one process only: they download to
    the final path, where another process finds half a file.
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
