"""A picture for tests, made without a library that makes pictures."""

import struct
import zlib

__all__ = ["PNG", "SIDE"]

SIDE = 4  # pixels


def _chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


# 8 bits a channel, RGB; each row begins with its filter, 0 for none (W3C, PNG specification).
PNG = (
    b"\x89PNG\r\n\x1a\n"
    + _chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0))
    + _chunk(b"IDAT", zlib.compress((b"\0" + bytes((200, 100, 50)) * SIDE) * SIDE))
    + _chunk(b"IEND", b"")
)
