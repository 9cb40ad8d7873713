"""Cuts what a task writes into whole lines. Pure."""

from typing import List, NamedTuple

__all__ = ["LineCutter", "Piece"]

MAX_LINE_NBYTES = 64 << 10  # a longer line is shown in parts


class Piece(NamedTuple):
    """Whole lines, each ended by a newline; or one that a carriage return ended, without it."""

    is_transient: bool
    data: bytes


class LineCutter:
    """Bytes as they come in, pieces out.

    A progress bar writes a line over and over, each time ended by a carriage return only. Such a
    line is passed on at once as transient; of a line with carriage returns in it only what is
    visible at its end is kept.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> List[Piece]:
        lines = (self._rest + data).split(b"\n")
        rest = lines.pop()
        pieces = []
        if lines:
            pieces.append(Piece(False, b"".join(_visible(line) + b"\n" for line in lines)))
        # Of the line that is not over, only what is visible matters, and whether a return at its
        # end waits for what overwrites it (or for a newline: Windows' end of line).
        text = _visible(rest)
        if text and b"\r" in rest:
            pieces.append(Piece(True, text))
        if len(text) > MAX_LINE_NBYTES:
            pieces.append(Piece(False, text + b"\n"))
            text = b""
        self._rest = text + b"\r" if rest.endswith(b"\r") else text
        return pieces

    def end(self) -> List[Piece]:
        """The stream is over: what is left is a line, too."""
        rest, self._rest = _visible(self._rest), b""
        return [Piece(False, rest + b"\n")] if rest else []


def _visible(line: bytes) -> bytes:
    """What a terminal shows of a line in the end: the text after the last carriage return."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]
