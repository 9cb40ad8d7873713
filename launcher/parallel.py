"""Calls a function for many hosts at once. Ctrl-C interrupts it immediately.

ThreadPoolExecutor was rejected: it joins its threads before an interrupt reaches the caller. The
threads may wait for a host, and the caller must close the connection to end that wait.
"""

import queue
import threading
from typing import Callable, List, Optional, Sequence, TypeVar

__all__ = ["side_by_side"]

_AT_ONCE = 64  # threads, nearly always waiting
_LOOK_S = 0.1  # how often the waiting thread lets a signal through

Item = TypeVar("Item")


def side_by_side(
    what: Callable[[Item], None], items: Sequence[Item], limit_s: Optional[float] = None
) -> bool:
    """Call ``what(item)`` for all items in threads. Returns whether all calls ended in time.

    An exception of a call is raised here once the others are done. When this thread is interrupted,
    or the time is over, no more calls begin, and nothing waits for those under way.
    """
    waiting: queue.SimpleQueue[Item] = queue.SimpleQueue()
    for item in items:
        waiting.put(item)
    errors: List[BaseException] = []
    done = threading.Semaphore(0)
    is_over = threading.Event()

    def work() -> None:
        while not is_over.is_set():
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                what(item)
            except BaseException as error:
                errors.append(error)
            done.release()

    for number in range(min(_AT_ONCE, len(items))):
        threading.Thread(target=work, name=f"hosts-{number}", daemon=True).start()
    looks = None if limit_s is None else max(1, int(limit_s / _LOOK_S))
    try:
        for _ in items:
            while not done.acquire(timeout=_LOOK_S):
                if looks is not None:
                    looks -= 1
                    if looks <= 0:
                        return False
    finally:
        is_over.set()
    if errors:
        raise errors[0]
    return True
