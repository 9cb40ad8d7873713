"""The last way to tell the user something, where the console cannot."""

import os
import select

__all__ = ["complain"]


def complain(text: str) -> None:
    """Write to standard error now, if it takes that without waiting."""
    try:
        if select.select([], [2], [], 0)[1]:
            os.write(2, f"baryon: {text}\n".encode())
    except OSError:
        pass  # standard error is closed
