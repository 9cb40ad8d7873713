"""What a worker says of an exception that ends its script: a line where a traceback is of no use.

Several workers say the same at once, so it is of no use to show the inside of some library that was
being imported when Ctrl-C came; nor where each of the others was when one worker had failed, of
which the user has been told.
"""

import sys
from types import FrameType, TracebackType
from typing import Any, Iterator, Optional

__all__ = ["expect", "install"]

_told = ""


def install() -> None:
    original = sys.excepthook

    def excepthook(kind: Any, error: Any, trace: Any) -> None:
        if _came_within_import(error):
            sys.stderr.write("KeyboardInterrupt\n")
        elif _told and _told in str(error):
            sys.stderr.write(f"stopped{_place(trace)}: {_told}\n")
        else:
            original(kind, error, trace)

    sys.excepthook = excepthook


def expect(told: str) -> None:
    """The user has been told why all are stopping; exceptions with this text come of it."""
    global _told
    _told = told


def _came_within_import(error: Optional[BaseException]) -> bool:
    """Whether Ctrl-C was, also if some library has made another exception of it."""
    while error is not None:
        frames = [trace.tb_frame for trace in _all(error.__traceback__)]
        if isinstance(error, KeyboardInterrupt) and any(map(_is_importing, frames)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_importing(frame: FrameType) -> bool:
    """Whether it is importlib's (Python leaves most of those out), or at the top of some module."""
    code = frame.f_code
    is_top = code.co_name == "<module>" and frame.f_globals.get("__name__") != "__main__"
    return is_top or code.co_filename.startswith("<frozen importlib")


def _place(trace: Optional[TracebackType]) -> str:
    """Where in the script itself that was."""
    place = ""
    for one in _all(trace):
        if one.tb_frame.f_globals.get("__name__") == "__main__":
            place = f" in {one.tb_frame.f_code.co_filename}, line {one.tb_lineno}"
    return place


def _all(trace: Optional[TracebackType]) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next
