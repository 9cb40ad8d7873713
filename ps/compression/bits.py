"""Codecs that send a fixed number of bits for each value: 2 or 1."""

from typing import ClassVar, Mapping, Optional

import numpy as np

from .codec import (
    GradientCodec,
    expand,
    for_each_dtype,
    is_finite,
    pieces,
    total_of,
)
from .options import Option, a_threshold

__all__ = ["OneBit", "TwoBit"]


# Multiplies four bytes of 2 bits each, as a uint32, so that their bits meet in its highest byte.
_GATHER = np.uint32(1 << 30 | 1 << 20 | 1 << 10 | 1)
# What the bits of every byte stand for, the highest first: one that is set, for a negative value.
_SIGNS = 1 - 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)).reshape(256, 8)


class TwoBit(GradientCodec):
    """MXNet's 2-bit codec: each value is ``threshold``, ``-threshold`` or 0. A 16th of float32.

    The bytes and the residual are those of MXNet 1.9.1, bit for bit, for float32 and finite values
    (src/kvstore/gradient_compression-inl.h; after N. Strom, Interspeech 2015): the residual takes
    the gradient; at ``>= threshold`` it gives threshold away (code 11), at ``<= -threshold``
    -threshold (code 10), else nothing (00). A byte has 4 codes, the first in its highest bits; the
    bytes are filled up to words of 4 with zeros.

    MXNet never sends 01. Here it stands for a value that is NaN or infinite: it is decoded as NaN
    and leaves nothing in the residual, while MXNet's keeps it there for ever: a NaN would stop
    its element without a word, an infinity send the threshold in every later round.
    """

    name = "2bit"
    OPTIONS: ClassVar[Mapping[str, Option]] = {"threshold": Option(0.5, a_threshold)}

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = float(np.float32(threshold))  # MXNet's is a float32, for every dtype
        codes = np.arange(256)[:, None] >> np.array([6, 4, 2, 0]) & 3
        levels = np.array([0, np.nan, -self.threshold, self.threshold])
        with np.errstate(over="ignore"):  # a threshold that float16 cannot hold
            self._tables = for_each_dtype(levels[codes])

    def nbytes(self, size: int, dtype: np.dtype) -> int:
        return -(-size // 16) * 4

    def _encode(
        self,
        values: np.ndarray,
        residual: Optional[np.ndarray],
        round_: int,
        payload: np.ndarray,
    ) -> None:
        payload[-4:] = 0
        for piece in pieces(values.size):
            total = total_of(values, residual, piece)
            threshold = total.dtype.type(values.dtype.type(self.threshold))  # as it is decoded
            above = total >= threshold
            below = total <= -threshold
            total -= (above.view(np.int8) - below.view(np.int8)) * threshold
            codes = np.zeros(-(-total.size // 4) * 4, np.uint8)
            code = codes[: total.size]
            np.logical_or(above, below, out=code.view(bool))
            code += code
            code |= above.view(np.uint8)
            if not is_finite(total):
                bad = ~np.isfinite(total)
                code[bad], total[bad] = 1, 0
            packed = (codes.view(np.uint32) * _GATHER) >> 24
            at = piece.start // 4
            payload[at : at + packed.size] = packed

    def _decode(self, payload: np.ndarray, out: np.ndarray) -> None:
        expand(self._tables[out.dtype], payload, out)


class OneBit(GradientCodec):
    """One bit for each value, its sign, and one scale for all, the mean magnitude. A 32nd.

    F. Seide et al., "1-Bit Stochastic Gradient Descent", Interspeech 2014, with the scale of
    S. P. Karimireddy et al., "Error Feedback Fixes SignSGD", 2019 (arXiv:1901.09847, Algorithm 1),
    as BytePS's onebit compressor does it: sent is ``sign(x) * mean(|x|)`` over the slice.

    The payload is the scale (float32) and then a bit for each value, the highest first, set for
    negative ones. A slice with a NaN or an infinity, or with a sum of magnitudes that is infinite,
    has that as its scale and so is decoded to nothing else; its residual begins anew.
    """

    name = "1bit"

    def nbytes(self, size: int, dtype: np.dtype) -> int:
        return 4 + -(-size // 8) if size else 0

    def _encode(
        self,
        values: np.ndarray,
        residual: Optional[np.ndarray],
        round_: int,
        payload: np.ndarray,
    ) -> None:
        total = total_of(values, residual, slice(None))
        unsigned = np.dtype(f"u{total.dtype.itemsize}").type
        sign = unsigned(1 << (8 * total.dtype.itemsize - 1))
        magnitude = 0.0
        for piece in pieces(total.size):
            magnitude += float(np.add.reduce(np.abs(total[piece])))
        scale = np.float32(values.dtype.type(np.float32(magnitude / total.size)))  # as decoded
        payload[:4].view(np.float32)[0] = scale
        if not np.isfinite(scale):
            payload[4:] = np.packbits(np.signbit(total))
            total[:] = 0
            return
        scale_bits = total.dtype.type(scale).view(unsigned)
        for piece in pieces(total.size):
            signs = total[piece].view(unsigned) & sign
            part = np.packbits(signs != 0)
            at = 4 + piece.start // 8
            payload[at : at + part.size] = part
            signs |= scale_bits
            total[piece] -= signs.view(total.dtype)

    def _decode(self, payload: np.ndarray, out: np.ndarray) -> None:
        scale = payload[:4].view(np.float32)[0]
        expand((_SIGNS * scale).astype(out.dtype), payload[4:], out)
