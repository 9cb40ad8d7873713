"""The RecordIO format and its index files, from bytes to records. The only I/O is a file's read().

dmlc-core defines the format (include/dmlc/recordio.h). A file is a sequence of parts, each of them
little-endian::

    uint32  0xced7230a
    uint32  kind << 29 | length
    length bytes, then zeros up to a multiple of 4

A part of kind 0 is a record. If the number above occurs in a record's data at a multiple of 4
bytes, the writer cuts the record there and leaves the number out. The parts then have kind 1 (the
first), 2 (any between) and 3 (the last), and the reader puts the number back between them. So
wherever that number occurs in a file at a multiple of 4 bytes, a part begins.

An index file has a line ``key<TAB>offset`` for each record: the offset of its first part, in bytes.
"""

import struct
from typing import Any, BinaryIO, Callable, Iterable, List, Optional, Tuple

import numpy as np

from baryon.ps import BaryonError

__all__ = ["RecordError", "extents", "parse_index", "read_record"]

_MAGIC = struct.pack("<I", 0xCED7230A)
_HEADER = struct.Struct("<4sI")
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_LENGTH_BITS = 29


class RecordError(BaryonError):
    """A record file or its index is damaged, cut short, or not in this format."""


def read_record(file: BinaryIO) -> Optional[bytes]:
    """The record that begins at ``file``'s position, or None at the file's end.

    Afterwards ``file`` is positioned behind the record. ``file.read(n)`` must return n bytes
    unless the file ends. Raises RecordError if there is no whole record.
    """
    parts: List[bytes] = []
    while True:
        header = file.read(_HEADER.size)
        if not header and not parts:
            return None
        if len(header) < _HEADER.size:
            raise RecordError("it is cut short inside a record; fetch or write the file again")
        magic, word = _HEADER.unpack(header)
        kind, length = word >> _LENGTH_BITS, word & ((1 << _LENGTH_BITS) - 1)
        if magic != _MAGIC or kind not in ((_MIDDLE, _LAST) if parts else (_WHOLE, _FIRST)):
            raise RecordError(
                f"no record {'goes on' if parts else 'begins'} here, but {header.hex()}; "
                "the file is damaged, or is not a RecordIO file, or the index is another file's"
            )
        padded = length + -length % 4
        data = file.read(padded)
        if len(data) < padded:
            raise RecordError("it is cut short inside a record; fetch or write the file again")
        parts.append(data[:length])
        if kind in (_WHOLE, _LAST):
            return _MAGIC.join(parts)


def parse_index(
    lines: Iterable[str], key_type: Callable[[str], Any] = int
) -> Tuple[List[Any], np.ndarray]:
    """Keys, and the offsets of their records (int64, bytes), in the order of an index file's lines.

    Raises RecordError, with the line's number, for a line that is no key and offset.
    """
    keys: List[Any] = []
    offsets: List[int] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        fields = line.rstrip("\r\n").split("\t")
        try:
            key, offset = key_type(fields[0]), int(fields[1])
            if offset < 0:
                raise ValueError
        except (IndexError, ValueError):
            raise RecordError(
                f"line {number} is no key, tab and offset, but {line.strip()[:80]!r}; "
                "make the index again (MXNet's tools/rec2idx.py)"
            ) from None
        keys.append(key)
        offsets.append(offset)
    return keys, np.array(offsets, dtype=np.int64)


def extents(offsets: np.ndarray, nbytes: int) -> np.ndarray:
    """Where the records at ``offsets`` end, in bytes, in a file of ``nbytes``.

    The result has the shape and dtype of ``offsets``. A record ends where the next record of the
    index begins, or with the file; the index may be in any order. Raises RecordError if a record
    would begin at or after the file's end.
    """
    if offsets.size and offsets.max() >= nbytes:
        raise RecordError(
            f"the index has a record at byte {offsets.max()}, and the file has {nbytes} bytes; "
            "it is cut short, or the index is another file's"
        )
    edges = np.append(np.unique(offsets), nbytes)
    return edges[np.searchsorted(edges, offsets, side="right")]
