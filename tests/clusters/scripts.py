"""What jobs of all managers run, and what their workers say."""

from typing import List

from tests.cluster import REPOSITORY

__all__ = ["DIGITS", "SAVES", "WAITS", "said"]

DIGITS: List[object] = [
    *("-n", 2, "--workers-per-host", 1, REPOSITORY / "examples" / "train_digits.py"),
    *("--epochs", 1, "--batch-size", 64, "--export"),
]
"""Arguments of launch.py, but for where to export to."""

WAITS = "import time\nprint('here', flush=True)\ntime.sleep(1000)\n"

SAVES = (
    "import signal, sys\n"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('I am saved', flush=True)))\n"
) + WAITS
"""The same, with something to say when it is told to end."""


def said(out: str) -> List[str]:
    """What workers have said after ``I am``, sorted."""
    return sorted(line.split("I am ")[1] for line in out.splitlines() if "I am " in line)
