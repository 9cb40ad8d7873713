"""Ctrl-C while a script still imports: a word from each worker, not the inside of some library."""

import sys
from types import FrameType
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
        if isinstance(error, KeyboardInterrupt):
            trace = error.__traceback__
            while trace is not None:
                if _is_importing(trace.tb_frame):
                    return True
                trace = trace.tb_next
        error = error.__cause__ or error.__context__
    return False


def _is_importing(frame: FrameType) -> bool:
    """Whether it is importlib's (Python leaves most of those out), or at the top of some module."""
    code = frame.f_code
    is_top = code.co_name == "<module>" and frame.f_globals.get("__name__") != "__main__"
    return is_top or code.co_filename.startswith("<frozen importlib")
