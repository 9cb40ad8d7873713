"""The directory for the output of a job's tasks. Only one job at a time writes there.

The job holds a lock (flock) on the directory itself, which the kernel releases when the process
ends. The files of an earlier job are moved to ``earlier-N`` in the directory, not overwritten.
"""

import fcntl
import os
import re
from typing import Callable, Optional

from baryon.ps import UsageError

__all__ = ["LogDirectory"]

_LOGS = re.compile(r"(worker|server)-\d+\.log|launch\.log|fetched")


class LogDirectory:
    """Makes, locks and clears the directory. `close` it when the job is over.

    Raises UsageError if it cannot be made, or if another job writes there.
    """

    def __init__(self, path: str, say: Callable[[str], None]) -> None:
        self._descriptor: Optional[int] = None
        try:
            os.makedirs(path, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            self._lock(path)
            self._clear(path, say)
        except OSError as error:
            self.close()
            raise UsageError(
                f"the log directory {path} cannot be made ({error.strerror}); choose another "
                "--log-dir"
            ) from error
        except UsageError:
            self.close()
            raise

    def __enter__(self) -> "LogDirectory":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        # Not unlocked: a process that was forked meanwhile may go on with the job.
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _lock(self, path: str) -> None:
        assert self._descriptor is not None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another job writes to {path}; choose another --log-dir") from None
        except OSError:
            pass  # a file system without locks on directories, such as NFS

    @staticmethod
    def _clear(path: str, say: Callable[[str], None]) -> None:
        names = [name for name in os.listdir(path) if _LOGS.fullmatch(name)]
        if not names:
            return
        number = 1
        while os.path.exists(os.path.join(path, f"earlier-{number}")):
            number += 1
        earlier = os.path.join(path, f"earlier-{number}")
        os.mkdir(earlier)
        for name in names:
            os.rename(os.path.join(path, name), os.path.join(earlier, name))
        say(f"note: logs of an earlier job are in {os.path.relpath(earlier)} now")
