"""The end of an observer's thread."""

import threading
from typing import Callable

__all__ = ["join_unless_stuck"]


def join_unless_stuck(
    thread: threading.Thread, progress: Callable[[], int], limit_s: float
) -> bool:
    """Wait for a thread to end for as long as its ``progress()`` changes every ``limit_s``.

    Returns whether it has ended.
    """
    before = -1
    while thread.is_alive() and progress() != before:
        before = progress()
        thread.join(limit_s)
    return not thread.is_alive()
