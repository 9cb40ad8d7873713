"""What every gradient codec is, and what they share."""

import abc
from typing import ClassVar, Dict, Iterator, Mapping, Optional

import numpy as np

from ..errors import ProtocolError
from .options import Option

__all__ = ["COMPRESSIBLE", "GradientCodec"]

COMPRESSIBLE = ("float16", "float32", "float64")
"""The dtypes of gradients that can be compressed; whether it pays is for `nbytes` to say."""

# Elements that are encoded at a time, so that what one operation of NumPy writes is still in the
# processor's cache when the next one reads it. A multiple of 16, a word of the 2-bit code.
PIECE = 1 << 16


class GradientCodec(abc.ABC):
    """Turns one slice of a gradient into fewer bytes and back.

    A codec has no state but its options: any number of threads may use one at once, and equal
    arguments give equal bytes. What a slice carries from round to round is its residual, which the
    caller keeps.
    """

    name: ClassVar[str]
    OPTIONS: ClassVar[Mapping[str, Option]] = {}

    def encode(
        self, values: np.ndarray, residual: Optional[np.ndarray] = None, round_: int = 0
    ) -> np.ndarray:
        """The bytes (1-D, uint8) of ``values + residual``; what they lack stays in ``residual``.

        ``values`` is 1-D, contiguous, of a dtype in `COMPRESSIBLE`, and is not changed.
        ``residual`` comes from `new_residual` and is changed in place (error feedback); without one
        the loss is lost. ``round_`` counts the encodings of this slice: RandomK's choice depends
        on it.
        """
        payload = np.empty(self.nbytes(values.size, values.dtype), np.uint8)
        if values.size:
            with np.errstate(all="ignore"):
                self._encode(values, residual, round_, payload)
        return payload

    def decode(self, payload: np.ndarray, out: np.ndarray) -> None:
        """Write what ``payload`` (1-D, contiguous, uint8) says to all of ``out`` (1-D, contiguous).

        ``out`` has the size and the dtype of what was encoded. Raises ProtocolError if no codec
        with these options can have made the payload; ``out`` is then as it was.
        """
        expected = self.nbytes(out.size, out.dtype)
        if payload.nbytes != expected:
            raise ProtocolError(
                f"{payload.nbytes} bytes of {self.name} for {out.size} elements of {out.dtype}, "
                f"which take {expected}; do all tasks have the same compression_params?"
            )
        if out.size:
            with np.errstate(all="ignore"):
                self._decode(payload, out)

    @abc.abstractmethod
    def nbytes(self, size: int, dtype: np.dtype) -> int:
        """How many bytes ``size`` elements are encoded to; it may be more than they have."""

    @abc.abstractmethod
    def _encode(
        self,
        values: np.ndarray,
        residual: Optional[np.ndarray],
        round_: int,
        payload: np.ndarray,
    ) -> None:
        """Write to ``payload``, which has the right size; there are values."""

    @abc.abstractmethod
    def _decode(self, payload: np.ndarray, out: np.ndarray) -> None:
        """Write to ``out``; ``payload`` has the right size."""

    @staticmethod
    def new_residual(size: int, dtype: np.dtype) -> np.ndarray:
        """Zeros for a slice of that dtype: float64 for float64, float32 for all others.

        A float16 residual would lose the small gradients that it is there to collect.
        """
        return np.zeros(size, _exact(dtype))

    def __repr__(self) -> str:
        options = "".join(f", {name}={getattr(self, name)!r}" for name in self.OPTIONS)
        return f"{type(self).__name__}({options[2:]})"


def pieces(size: int) -> Iterator[slice]:
    """The runs of at most PIECE elements that ``size`` elements consist of."""
    for start in range(0, size, PIECE):
        yield slice(start, min(start + PIECE, size))


def total_of(values: np.ndarray, residual: Optional[np.ndarray], piece: slice) -> np.ndarray:
    """What is to be encoded: a part of the residual with the values added in place, or a copy."""
    if residual is None:
        return values[piece].astype(_exact(values.dtype))
    total = residual[piece]
    np.add(total, values[piece], out=total)
    return total


def is_finite(values: np.ndarray) -> bool:
    """Whether all values are finite, in one pass; False also if finite ones have too big a sum."""
    return bool(np.isfinite(np.add.reduce(values)))


def forget_non_finite(residual: np.ndarray) -> None:
    """Let a NaN or an infinity, which has been sent, not come back in every round to come."""
    if not is_finite(residual):
        residual[~np.isfinite(residual)] = 0


def narrowed(total: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """``total`` as ``dtype``; finite values beyond that dtype's range become its largest ones."""
    narrow = total.astype(dtype)
    if narrow.dtype.itemsize < total.dtype.itemsize:
        overflow = np.isinf(narrow) & np.isfinite(total)
        narrow[overflow] = np.copysign(np.finfo(dtype).max, total[overflow])
    return narrow


def expand(table: np.ndarray, codes: np.ndarray, out: np.ndarray) -> None:
    """Write ``table[code]``, a row of values, for each of ``codes``; the last row may be cut."""
    width = table.shape[1]
    whole, rest = divmod(out.size, width)
    # mode="clip" lets `take` write to ``out`` at once; a uint8 is no index beyond 256 rows.
    np.take(
        table, codes[:whole], axis=0, out=out[: whole * width].reshape(whole, width), mode="clip"
    )
    if rest:
        out[-rest:] = table[codes[whole], :rest]


def for_each_dtype(table: np.ndarray) -> Dict[np.dtype, np.ndarray]:
    return {np.dtype(name): table.astype(name) for name in COMPRESSIBLE}


def _exact(dtype: np.dtype) -> np.dtype:
    """The dtype in which sums with gradients of ``dtype`` are kept."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)
