"""The same thing with many hosts at once, so that Ctrl-C is heard at once, too.

Rejected: ThreadPoolExecutor, which waits for its threads to end before an interrupt gets anywhere;
they may be waiting for a host, which ends only when whoever is interrupted closes the connection.
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
    """Call ``what(item)`` for all items, each in a thread; returns whether all were done in time.

    What an item raises is raised here, when the others are done; if this thread is interrupted or
    the time is over, no more items are begun, and those under way are left to themselves.
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
