"""Codecs that send each value as a float of 16 bits. Half of float32."""

from typing import Optional

import numpy as np

from .codec import GradientCodec, forget_non_finite, is_finite, narrowed, pieces, total_of

__all__ = ["BFloat16", "Float16"]

_FLOAT16_LIMIT = 65520  # from here on, values are rounded to infinity
_SIGN, _EXPONENT = 0x80000000, 0x7F800000  # of a float32


class _Cast(GradientCodec):
    def nbytes(self, size: int, dtype: np.dtype) -> int:
        return 2 * size


class Float16(_Cast):
    """IEEE 754 binary16: 11 bits of precision, from 6e-8 to 65504; rounded to nearest even.

    Finite values beyond 65504 are sent as that, and the rest of them in later rounds. NaN and
    infinities are sent as they are and leave nothing in the residual.
    """

    name = "fp16"

    def _encode(
        self,
        values: np.ndarray,
        residual: Optional[np.ndarray],
        round_: int,
        payload: np.ndarray,
    ) -> None:
        halves = payload.view(np.uint16)
        for piece in pieces(values.size):
            total = total_of(values, residual, piece)
            single = total.astype(np.float32, copy=False)
            magnitude = np.abs(single)
            if np.maximum.reduce(magnitude) < _FLOAT16_LIMIT:
                signs = single.view(np.uint32) & _SIGN
                total -= _round_to_half(magnitude, signs, halves[piece])
            else:
                sent = narrowed(total, np.dtype(np.float16))
                halves[piece] = sent.view(np.uint16)
                total -= sent
                forget_non_finite(total)

    def _decode(self, payload: np.ndarray, out: np.ndarray) -> None:
        out[:] = payload.view(np.float16)


def _round_to_half(magnitude: np.ndarray, signs: np.ndarray, halves: np.ndarray) -> np.ndarray:
    """Write float32 values as float16 to ``halves`` (uint16); returns these as float32.

    The same bits as NumPy's cast, which takes one value at a time, several times as long. A float16
    of exponent e (at least -14) is a multiple of 2**(e-10). So is every float32 around ``step`` =
    2**(e+13): adding that rounds, and the sum's last bits count the multiples. The values are given
    as their magnitudes (float32) and sign bits (uint32), which are both overwritten.
    """
    step = magnitude.view(np.uint32) & _EXPONENT
    np.maximum(step, (127 - 14) << 23, out=step)
    step += 13 << 23
    magnitude += step.view(np.float32)
    bits = magnitude.view(np.uint32) - step  # the multiples: 1024 to 2048, fewer if subnormal
    magnitude -= step.view(np.float32)
    rounded = magnitude.view(np.uint32)
    rounded |= signs
    step >>= 13
    step -= (127 - 14 + 13) << 10  # now e + 14 where float16 has its exponent
    bits += step  # the multiples' 1024 makes that e + 15
    signs >>= 16
    bits |= signs
    halves[:] = bits
    return magnitude


class BFloat16(_Cast):
    """The upper half of a float32: 8 bits of precision and all of its range.

    Rounded to nearest even, as IEEE 754 rounds: what is beyond the largest bfloat16 (3.39e38)
    becomes infinite. NaN and infinities are sent as such and leave nothing in the residual.
    float64 is rounded to float32 first.
    """

    name = "bf16"

    def _encode(
        self,
        values: np.ndarray,
        residual: Optional[np.ndarray],
        round_: int,
        payload: np.ndarray,
    ) -> None:
        halves = payload.view(np.uint16)
        for piece in pieces(values.size):
            total = total_of(values, residual, piece)
            rounded = _rounded(total.astype(np.float32, copy=False))
            total -= rounded.view(np.float32)
            if not is_finite(total):
                bad = ~np.isfinite(total)
                # A NaN with many bits may have been rounded up to anything.
                rounded[bad & ~np.isinf(rounded.view(np.float32))] = 0x7FC00000
                total[bad] = 0
            halves[piece] = rounded.view(np.uint16)[1::2]

    def _decode(self, payload: np.ndarray, out: np.ndarray) -> None:
        for piece in pieces(out.size):
            bits = payload.view(np.uint16)[piece].astype(np.uint32)
            bits <<= 16
            out[piece] = bits.view(np.float32)


def _rounded(values: np.ndarray) -> np.ndarray:
    """The bits (uint32) of float32 values that are rounded to nearest even bfloat16."""
    bits = values.view(np.uint32)
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    rounded &= 0xFFFF0000
    return rounded
