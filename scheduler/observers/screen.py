"""The bytes for the terminal, or for a file in its place. Pure: events in, bytes out.

A terminal shows lines, and below them a row for each *bar*: a line that a task rewrites again and
again. The screen draws the rows downward from the cursor, and then moves the cursor back to the
first row. So it can wipe away all that is below, however the terminal wrapped long rows when it was
resized. Rejected: the cursor after the last row. The screen would have to know how often each row
was wrapped, and terminals differ in that.
"""

import re
import unicodedata
from typing import Dict, Iterable, List, NamedTuple, Optional, Tuple

from ..control import LABEL_BORDER, label_width
from .events import Event, Notice, TaskOutput

__all__ = ["Chunk", "Screen", "Size"]

_COLOURS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)  # of terminals, none of them red
_RED = 31
_MAX_ROWS = 8  # of bars
_WIPE = b"\r\x1b[J"
# A bar may contain, besides text: colours (ECMA-48: SGR), other sequences, control characters.
_SEQUENCE = re.compile(r"(\x1b\[[0-9;:]*m)|\x1b\[[0-?]*[ -/]*[@-~]|\x1b.?|[\x00-\x1f\x7f-\x9f]")


class Size(NamedTuple):
    columns: int
    rows: int


class Chunk(NamedTuple):
    """Bytes for standard output or standard error."""

    is_error: bool
    data: bytes


class Screen:
    """``names``: the name of each task by its slug, in the order in which bars are shown.

    ``has_colours``: of standard output and standard error; all pairs here have this order.
    """

    def __init__(self, names: Dict[str, str], has_colours: Tuple[bool, bool]) -> None:
        self._has_colours = has_colours
        width = label_width(names.values()) - len(LABEL_BORDER)
        self._labels = {
            slug: (name.rjust(width) + LABEL_BORDER, _COLOURS[index % len(_COLOURS)])
            for index, (slug, name) in enumerate(names.items())
        }
        self._order = {slug: index for index, slug in enumerate(names)}
        self._bars: Dict[Tuple[str, bool], bytes] = {}
        self._drawn: Optional[Chunk] = None

    def write(
        self,
        events: Iterable[Event],
        sizes: Tuple[Optional[Size], Optional[Size]],
    ) -> List[Chunk]:
        """The bytes for these events; ``sizes`` are those of streams that now can show bars."""
        chunks: List[Chunk] = []
        for event in events:
            if isinstance(event, Notice):  # may have several lines; the label is before the first
                data = self._label("baryon: ", _RED, True) + event.text.encode(errors="replace")
                self._line(chunks, Chunk(True, data + b"\n"))
            elif isinstance(event, TaskOutput):
                self._take(chunks, event)
        self._draw(chunks, sizes)
        return _joined(chunks)

    def _take(self, chunks: List[Chunk], output: TaskOutput) -> None:
        key = output.task, output.is_error
        if output.is_transient and output.data.strip():
            self._bars[key] = output.data
            return
        self._bars.pop(key, None)  # the bar has become a line, or was wiped away
        if not output.is_transient:
            label = self._label(*self._labels[output.task], output.is_error)
            lines = output.data.split(b"\n")[:-1]
            data = b"".join(label + line + b"\n" for line in lines)
            self._line(chunks, Chunk(output.is_error, data))

    def clear(self) -> List[Chunk]:
        """Wipe the bars away; the next `write` draws them again."""
        drawn, self._drawn = self._drawn, None
        return [] if drawn is None else [Chunk(drawn.is_error, _WIPE)]

    def _line(self, chunks: List[Chunk], chunk: Chunk) -> None:
        chunks += self.clear()
        chunks.append(chunk)

    def _draw(self, chunks: List[Chunk], sizes: Tuple[Optional[Size], Optional[Size]]) -> None:
        is_error = sizes[True] is not None
        size = sizes[is_error]
        rows = [] if size is None else self._rows(size, sizes, is_error)
        if size is None or not rows:
            chunks += self.clear()
            return
        up = b"\x1b[%dA" % (len(rows) - 1) if len(rows) > 1 else b""
        data = b"\r" + b"\x1b[K\r\n".join(rows) + b"\x1b[J" + up + b"\r"
        if self._drawn != (is_error, data):
            if self._drawn is not None and self._drawn.is_error != is_error:
                chunks += self.clear()
            self._drawn = Chunk(is_error, data)
            chunks.append(self._drawn)

    def _rows(
        self, size: Size, sizes: Tuple[Optional[Size], Optional[Size]], is_error: bool
    ) -> List[bytes]:
        # The last column stays free: terminals wrap late after they have filled it.
        columns = max(1, size.columns - 1)
        rows = []
        for key in sorted(self._bars, key=lambda key: (self._order[key[0]], key[1])):
            slug, is_bar_error = key
            if sizes[is_bar_error] is None:
                continue  # this stream is not on the terminal
            label, colour = self._labels[slug]
            paint = self._label(label[:columns], colour, is_error)
            for line in self._bars[key].split(b"\n"):
                rows.append(paint + _cut(line, columns - len(label)))
        limit = max(1, min(_MAX_ROWS, size.rows // 2))
        if len(rows) <= limit:
            return rows
        if limit == 1:
            return rows[:1]
        more = f"... and {len(rows) - limit + 1} more"
        return [*rows[: limit - 1], more[:columns].encode()]

    def _label(self, label: str, colour: int, is_error: bool) -> bytes:
        painted = f"\x1b[{colour}m{label}\x1b[0m" if self._has_colours[is_error] else label
        return painted.encode()


def _cut(line: bytes, columns: int) -> bytes:
    """The part of a line that fits, with its colours, without other sequences and controls."""
    shown, used, begin, is_coloured = "", 0, 0, False
    text = line.decode(errors="replace")
    for match in [*_SEQUENCE.finditer(text), None]:
        for character in text[begin : match.start() if match else None]:
            used += _width(character)
            if used > columns:
                return (shown + "\x1b[0m" * is_coloured).encode()
            shown += character
        if match and match[1]:
            shown, is_coloured = shown + match[1], True
        begin = match.end() if match else 0
    return (shown + "\x1b[0m" * is_coloured).encode()


def _width(character: str) -> int:
    """The number of columns of a character."""
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0  # it combines with the character before it
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _joined(chunks: List[Chunk]) -> List[Chunk]:
    """The same bytes in as few chunks as possible."""
    joined: List[Chunk] = []
    for chunk in chunks:
        if joined and joined[-1].is_error == chunk.is_error:
            joined[-1] = Chunk(chunk.is_error, joined[-1].data + chunk.data)
        else:
            joined.append(chunk)
    return joined
