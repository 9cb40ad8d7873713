"""Ctrl-C while a script still imports: a word from each worker, not the inside of some library."""

import sys
from typing import Any, Optional

__all__ = ["install"]


def install() -> None:
    original = sys.excepthook

    def excepthook(kind: Any, error: Any, trace: Any) -> None:
        if _came_within_import(error):
            sys.stderr.write("KeyboardInterrupt\n")
        else:
            original(kind, error, trace)

    sys.excepthook = excepthook


def _came_within_import(error: Optional[BaseException]) -> bool:
    """Whether Ctrl-C was, also if some library has made another exception of it."""
    while error is not None:
        trace = error.__traceback__
        while isinstance(error, KeyboardInterrupt) and trace is not None:
            if trace.tb_frame.f_code.co_filename.startswith("<frozen importlib"):
                return True
            trace = trace.tb_next
        error = error.__cause__ or error.__context__
    return False
