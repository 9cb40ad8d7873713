"""Cuts a task's output into whole lines, as a terminal would show them in the end. Pure.

A progress bar writes its line again and again, and ends it each time by a carriage return only.
Several bars below each other (nested loops with tqdm) move down by a newline, and up again by an
escape sequence. Bars are *transient*: each text is passed on at once, to be shown in place. A bar
becomes a line of its own when the task writes below it, or when the stream ends.
"""

import re
from typing import List, NamedTuple

__all__ = ["LineCutter", "Piece"]

MAX_LINE_NBYTES = 64 << 10  # a longer line comes in parts
CONTINUES = b" [the line goes on]"  # ends each part but the last
_MAX_ROWS = 32  # that can be rewritten; no script shows so many bars
_UP = re.compile(rb"\x1b\[([0-9]{0,3})[AF]")  # the cursor (ECMA-48: CUU, CPL)
_BORDER = re.compile(rb"\n|" + _UP.pattern)
_CUT_SEQUENCE = re.compile(rb"\x1b(\[[0-9]{0,3})?\Z")


class Piece(NamedTuple):
    """Whole lines, each with its newline; or the current text of bars, without the last newline.

    The text of bars is empty once they are wiped away.
    """

    is_transient: bool
    data: bytes


class _Row(NamedTuple):
    text: bytes
    is_kept: bool = False  # already passed on as a line, with this text


class LineCutter:
    """Bytes as they come in, pieces out."""

    def __init__(self) -> None:
        self._rest = b""  # written since the cursor came to its row
        self._row = _Row(b"")  # the row's text before that
        self._above: List[_Row] = []  # rows that may be rewritten
        self._below: List[_Row] = []
        self._last = _Row(b"", True)  # the last line that was kept
        self._shown = b""

    def feed(self, data: bytes) -> List[Piece]:
        data = self._rest + data
        if not self._is_revisited and not (b"\x1b[" in data and _UP.search(data)):
            return self._feed_plain(data)
        kept: List[bytes] = []
        begin = 0
        for border in _BORDER.finditer(data):
            self._rest = data[begin : border.start()]
            begin = border.end()
            if border[0] == b"\n":
                self._down(kept)
            else:
                self._up(int(border[1] or 1))
        self._rest = self._shorten(data[begin:], kept)
        return self._pieces(kept)

    def _feed_plain(self, data: bytes) -> List[Piece]:
        """The same, many times faster, for output without bars below each other."""
        kept: List[bytes] = []
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines:
            if b"\r" in data:
                lines = [_visible(line) for line in lines]
            if max(map(len, lines)) > MAX_LINE_NBYTES:
                lines = [part for line in lines for part in _parts(line)]
            kept = [line + b"\n" for line in lines]
            self._last = _Row(lines[-1], True)
        self._rest = self._shorten(rest, kept)
        return self._pieces(kept)

    def end(self) -> List[Piece]:
        """The stream has ended: what is left becomes lines."""
        kept: List[bytes] = []
        is_bar = b"\r" in self._rest or self._is_revisited
        rows = [*self._above, self._written(), *self._below]
        self._keep([row for row in rows if (row.text.strip() if is_bar else row.text)], kept)
        self.__init__()  # type: ignore[misc]
        return [Piece(False, b"".join(kept))] if kept else []

    @property
    def _is_revisited(self) -> bool:
        return bool(self._above or self._below)

    def _written(self) -> _Row:
        """The row under the cursor as it is now."""
        text = _visible(self._rest)
        return _Row(text) if text and text != self._row.text else self._row

    def _down(self, kept: List[bytes]) -> None:
        row, self._rest = self._written(), b""
        if self._below:
            self._above.append(row)
            self._row = self._below.pop(0)
            return
        if self._above:
            self._keep([row for row in self._above if row.text.strip()], kept)
            self._above = []
        if not row.is_kept:
            kept += [part + b"\n" for part in _parts(row.text)]
        self._last = _Row(row.text, True)
        self._row = _Row(b"")

    def _up(self, count: int) -> None:
        for _ in range(count):
            if not self._above and len(self._below) + 1 >= _MAX_ROWS:
                return
            self._below.insert(0, self._written())
            self._rest = b""
            self._row = self._above.pop() if self._above else self._last
            self._last = _Row(b"", True)  # the lines above it are unknown

    @staticmethod
    def _keep(rows: List[_Row], kept: List[bytes]) -> None:
        kept += [part + b"\n" for row in rows if not row.is_kept for part in _parts(row.text)]

    def _shorten(self, rest: bytes, kept: List[bytes]) -> bytes:
        """The part that matters of a row that may still change."""
        text = _visible(rest)
        *parts, text = _parts(text)
        kept += [part + b"\n" for part in parts]
        # A return at its end waits for text that overwrites the row, or for a newline (Windows).
        is_bar, is_returned = b"\r" in rest, rest.endswith(b"\r")
        return b"\r" * is_bar + text + b"\r" * (is_returned and bool(text))

    def _pieces(self, kept: List[bytes]) -> List[Piece]:
        pieces = []
        if kept:
            pieces.append(Piece(False, b"".join(kept)))
            self._shown = b""
        is_bar = b"\r" in self._rest or self._is_revisited
        rows = [*self._above, self._written(), *self._below] if is_bar else []
        bars = b"\n".join(_CUT_SEQUENCE.sub(b"", row.text) for row in rows if row.text.strip())
        if bars != self._shown:
            pieces.append(Piece(True, bars))
            self._shown = bars
        return pieces


def _parts(line: bytes) -> List[bytes]:
    """The parts of a line: cut where it is too long, with a mark at each cut."""
    last = max(0, len(line) - 1) // MAX_LINE_NBYTES * MAX_LINE_NBYTES
    begins = range(0, last, MAX_LINE_NBYTES)
    return [*(line[at : at + MAX_LINE_NBYTES] + CONTINUES for at in begins), line[last:]]


def _visible(line: bytes) -> bytes:
    """The text that a terminal shows in the end: what follows the last carriage return."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]
