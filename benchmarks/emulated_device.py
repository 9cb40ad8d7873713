"""A GPU of which only the clock is there: operations that take their time, and nothing else.

An operation is one of MXNet's dependency engine: it waits for its arrays and holds them, as a
kernel does, but a timer completes it. So a store meets the order and the time of a real step, and
has the processor for itself. Arrays that a kernel would only read are held in the same way: among
operations of one stream, that makes no difference.

A timer is late now and then, on a busy machine by milliseconds, which a GPU is not. So the clock
is reckoned, not read: an operation begins when the one before it ended, or when its arrays came, if
that was later; it ends so many seconds after. The timer's lateness thus never adds up.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from typing import Any, Callable, List, Optional, Sequence, Tuple

import mxnet as mx

from baryon.worker.mxnet.engine import as_handles, complete, push_async


class EmulatedDevice:
    """Runs operations one after the other, as one stream of a GPU does."""

    def __init__(self) -> None:
        self._timer = _Timer()
        self._stream = mx.nd.zeros(1)  # each operation writes it: hence their order
        self._free_at_s = 0.0
        mx.nd.waitall()

    def run(
        self,
        seconds: float,
        arrays: Sequence[Any],
        on_end: Optional[Callable[[float], None]] = None,
    ) -> None:
        """Queue an operation; ``on_end(when)`` gets the time at which it ends, a little before."""
        came_at_s: List[float] = []

        def note_arrival(completion: bytes) -> None:
            came_at_s.append(time.monotonic())
            complete(completion)

        def start(completion: bytes) -> None:
            begin_s = came_at_s[0] if came_at_s else time.monotonic()
            self._free_at_s = max(self._free_at_s, begin_s) + seconds
            if on_end is not None:
                on_end(self._free_at_s)
            self._timer.call_at(self._free_at_s, completion)

        push_async(_Step(note_arrival), as_handles(arrays))
        push_async(_Step(start), as_handles([*arrays, self._stream]))

    def close(self) -> None:
        """Call it when all operations have ended."""
        self._timer.close()


class _Step:
    def __init__(self, start: Callable[[bytes], None]) -> None:
        self.start = start

    def skipped(self) -> None:
        """Nobody waits for it: what it depends on is emulated, too, and does not fail."""


class _Timer:
    """Completes operations at given times, in a thread of its own."""

    def __init__(self) -> None:
        self._due: List[Tuple[float, int, bytes]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._is_open = True
        self._thread = threading.Thread(target=self._run, name="emulated-device", daemon=True)
        self._thread.start()

    def call_at(self, when_s: float, completion: bytes) -> None:
        with self._changed:
            heapq.heappush(self._due, (when_s, next(self._order), completion))
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._is_open = False
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                left_s = self._due[0][0] - time.monotonic() if self._due else None
                if left_s is None or left_s > 0:
                    if not self._is_open:
                        return
                    self._changed.wait(left_s)
                    continue
                _, _, completion = heapq.heappop(self._due)
            complete(completion)
