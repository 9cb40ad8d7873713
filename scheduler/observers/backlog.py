"""What waits for an observer's slow work, and the thread that does that work.

The scheduler's thread puts items and never waits. Before it does, the observer looks at how much
waits already, and leaves out what would be too much. If the work raises, the thread ends, and the
exception is raised again in the scheduler's thread, where the stream drops the observer.
"""

import queue
import threading
import time
from typing import Any, Callable, Generic, List, Optional, Tuple, TypeVar

__all__ = ["Backlog"]

_T = TypeVar("_T")


class Backlog(Generic[_T]):
    """Its thread calls ``work(items)`` with up to ``at_once`` items, and at last ``at_end()``."""

    def __init__(
        self,
        name: str,
        work: Callable[[List[_T]], object],
        at_once: int = 1,
        at_end: Callable[[], object] = lambda: None,
    ) -> None:
        self._work = work
        self._at_end = at_end
        self._at_once = at_once
        self._items: Any = queue.SimpleQueue()  # of (item, its size); None at the end
        self._put_nbytes = 0
        # Written by the thread alone.
        self._done_nbytes = 0
        self._busy_since: Optional[float] = None
        self._error: Optional[Exception] = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def nbytes(self) -> int:
        """What is put and not done."""
        return self._put_nbytes - self._done_nbytes

    @property
    def busy_s(self) -> float:
        """For how long the present call of ``work`` has taken; 0 if there is none."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def put(self, item: _T, nbytes: int) -> None:
        """Have the thread work on an item, soon. Raises what ``work`` has raised."""
        if self._error is not None:
            raise self._error
        self._put_nbytes += nbytes
        self._items.put((item, nbytes))

    def close(self, limit_s: float) -> bool:
        """Wait until all is done, or nothing is done for ``limit_s``; returns whether all is.

        Raises what ``work`` has raised.
        """
        self._items.put(None)
        before = -1
        while self._thread.is_alive() and self._done_nbytes != before:
            before = self._done_nbytes
            self._thread.join(limit_s)
        if self._error is not None:
            raise self._error
        return not self._thread.is_alive()

    # -- in its thread ------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            is_over = False
            while not is_over:
                taken = [self._items.get()]
                while len(taken) < self._at_once and not self._items.empty():
                    taken.append(self._items.get())
                is_over = taken[-1] is None
                self._do([one for one in taken if one is not None])
            self._at_end()
        except Exception as error:
            self._error = error

    def _do(self, taken: List[Tuple[_T, int]]) -> None:
        if taken:
            self._busy_since = time.monotonic()
            try:
                self._work([item for item, _ in taken])
            finally:
                self._busy_since = None
            self._done_nbytes += sum(nbytes for _, nbytes in taken)
