"""How every test waits: for a condition, with one limit, and with a name for what it waits for."""

import time
from typing import Callable, TypeVar

__all__ = ["LIMIT_S", "wait_until"]

LIMIT_S = 120.0
"""For any wait. A job takes three seconds on a quiet machine, and a minute on a busy one."""

_FIRST_POLL_S = 0.001
_POLL_S = 0.02

Value = TypeVar("Value")


def wait_until(
    condition: Callable[[], Value], what: str = "this condition", limit_s: float = LIMIT_S
) -> Value:
    """Wait for ``condition()`` to be true, and return it.

    Raises AssertionError that names ``what``.
    """
    deadline, poll_s = time.monotonic() + limit_s, _FIRST_POLL_S
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {limit_s:g} s for {what}"
        time.sleep(poll_s)
        poll_s = min(2 * poll_s, _POLL_S)
