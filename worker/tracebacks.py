"""One line instead of a traceback, where the traceback of a worker's last exception helps nobody.

Several workers print at once. So they do not show which library was being imported when Ctrl-C
came, nor where each of them was when another worker had failed and the user has been told so.
"""

import sys
from types import FrameType, TracebackType
from typing import Any, Iterator, Optional

__all__ = ["expect", "install"]

_told = ""


def install() -> None:
    """Replace `sys.excepthook`."""
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
    """Shorten exceptions that contain ``told``, why all workers stop: the user has read that."""
    global _told
    _told = told


def _came_within_import(error: Optional[BaseException]) -> bool:
    """Whether Ctrl-C came during an import, even if a library turned it into another error."""
    while error is not None:
        frames = [trace.tb_frame for trace in _all(error.__traceback__)]
        if isinstance(error, KeyboardInterrupt) and any(map(_is_importing, frames)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_importing(frame: FrameType) -> bool:
    """Whether the frame is importlib's (Python hides most of those), or a module's top level."""
    code = frame.f_code
    is_top = code.co_name == "<module>" and frame.f_globals.get("__name__") != "__main__"
    return is_top or code.co_filename.startswith("<frozen importlib")


def _place(trace: Optional[TracebackType]) -> str:
    """The innermost place in the script itself."""
    place = ""
    for one in _all(trace):
        if one.tb_frame.f_globals.get("__name__") == "__main__":
            place = f" in {one.tb_frame.f_code.co_filename}, line {one.tb_lineno}"
    return place


def _all(trace: Optional[TracebackType]) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next
