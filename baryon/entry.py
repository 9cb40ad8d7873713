"""Where the commands `launch.py` and `baryon` begin, before anything that takes time is imported.

Until the commands themselves can answer it, Ctrl-C ends them by one line: an exception within an
import would show the inside of some library, or be turned into another one there.
"""

import os
import signal
from typing import Any

__all__ = ["baryon", "launch"]


def launch() -> int:
    """``launch.py``."""
    _begin("launch.py")
    from baryon.launcher import main

    _let_be_interrupted()
    return main()


def baryon() -> int:
    """``baryon``."""
    _begin("baryon")
    from baryon.launcher import baryon

    _let_be_interrupted()
    return baryon()


def _begin(program: str) -> None:
    def give_up(signum: int, frame: Any) -> None:
        try:
            os.write(2, f"{program}: interrupted; nothing was started\n".encode())
        finally:  # the reader of standard error may have gone
            os._exit(128 + signum)

    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:  # not ignored, as by nohup
        signal.signal(signal.SIGINT, give_up)


def _let_be_interrupted() -> None:
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
