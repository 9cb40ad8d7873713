"""Codecs that send some of the values, exactly, and none of the others."""

import math
from typing import ClassVar, Mapping, Optional, Tuple

import numpy as np

from ..errors import ProtocolError
from .codec import GradientCodec, forget_non_finite, is_finite, narrowed, total_of
from .options import Option, a_seed, a_share

__all__ = ["RandomK", "TopK"]

_MAX_SIZE = 1 << 32  # what an index of 4 bytes can tell apart; slices are far smaller
_SAMPLE_STEP = 61  # no multiple of what tensors' extents are multiples of
_SAMPLE_MIN_SIZE = 1 << 12  # smaller slices are sorted out as a whole


class _Sparse(GradientCodec):
    """Sends ``ratio`` of the values, at least one."""

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio

    def _count(self, size: int) -> int:
        return min(size, max(1, math.ceil(self.ratio * size)))

    @staticmethod
    def _take(total: np.ndarray, chosen: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """The chosen values as ``dtype``; only what that cannot hold stays in ``total``."""
        values = total[chosen]
        sent = narrowed(values, dtype)
        total[chosen] = values - sent
        return sent


class TopK(_Sparse):
    """The values of the largest magnitude, and where they are.

    A. F. Aji and K. Heafield, "Sparse Communication for Distributed Gradient Descent", 2017
    (arXiv:1704.05021). The choice is exact; among equal magnitudes the first are chosen. That it is
    fast is due to a threshold taken from a sample, as in Y. Lin et al., "Deep Gradient
    Compression", 2018 (arXiv:1712.01887), below which only few values need to be looked at.

    The payload is the indices, ascending, as uint32, and then the values in the key's dtype. NaN
    and infinities are the largest values of all, and leave nothing in the residual.
    """

    name = "topk"
    OPTIONS: ClassVar[Mapping[str, Option]] = {"ratio": Option(0.01, a_share)}

    def __init__(self, ratio: float = 0.01) -> None:
        super().__init__(ratio)

    def nbytes(self, size: int, dtype: np.dtype) -> int:
        return self._count(size) * (4 + np.dtype(dtype).itemsize)

    def _encode(
        self,
        values: np.ndarray,
        residual: Optional[np.ndarray],
        round_: int,
        payload: np.ndarray,
    ) -> None:
        assert values.size <= _MAX_SIZE
        total = total_of(values, residual, slice(None))
        chosen = _largest(np.abs(total), self._count(total.size))
        indices, sent = self._parts(payload, total.size, values.dtype)
        indices[:] = chosen
        sent[:] = self._take(total, chosen, values.dtype)
        forget_non_finite(total)

    def _decode(self, payload: np.ndarray, out: np.ndarray) -> None:
        indices, sent = self._parts(payload, out.size, out.dtype)
        if indices[-1] >= out.size or not (indices[1:] > indices[:-1]).all():
            raise ProtocolError(
                f"indices of {self.name} that are not ascending or not below {out.size}"
            )
        out[:] = 0
        out[indices] = sent

    def _parts(
        self, payload: np.ndarray, size: int, dtype: np.dtype
    ) -> Tuple[np.ndarray, np.ndarray]:
        split = 4 * self._count(size)
        return payload[:split].view(np.uint32), payload[split:].view(dtype)


class RandomK(_Sparse):
    """Values at random places, which the receiver works out from 8 bytes.

    S. U. Stich et al., "Sparsified SGD with Memory", 2018 (arXiv:1809.07599), without scaling. The
    slice is cut into as many runs as values are sent, of equal length but for one element, and one
    value is taken from each: value number i of run i's elements is ``mix(nonce + i)`` modulo their
    number, with ``nonce = mix(mix(seed) + round)``. ``mix`` is the output function of SplitMix64
    (G. L. Steele et al., OOPSLA 2014, after a step of its constant) and not NumPy's generator,
    whose numbers may change from release to release. All workers and slices choose alike.

    The payload is the nonce (uint64) and then the values in the key's dtype. If any value of a
    slice is NaN or infinite, all that are sent are NaN, as it would else come to light rounds
    later; it leaves nothing in the residual.
    """

    name = "randomk"
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "ratio": Option(0.01, a_share),
        "seed": Option(0, a_seed),
    }

    def __init__(self, ratio: float = 0.01, seed: int = 0) -> None:
        super().__init__(ratio)
        self.seed = seed

    def nbytes(self, size: int, dtype: np.dtype) -> int:
        return 8 + self._count(size) * np.dtype(dtype).itemsize if size else 0

    def _encode(
        self,
        values: np.ndarray,
        residual: Optional[np.ndarray],
        round_: int,
        payload: np.ndarray,
    ) -> None:
        total = total_of(values, residual, slice(None))
        nonce = _mix(_mix(np.array([self.seed], np.uint64)) + np.uint64(round_))
        payload[:8].view(np.uint64)[:] = nonce
        sent = payload[8:].view(values.dtype)
        if is_finite(total) or np.isfinite(total).all():
            sent[:] = self._take(total, self._chosen(nonce, total.size), values.dtype)
        else:
            sent[:] = np.nan
            forget_non_finite(total)

    def _decode(self, payload: np.ndarray, out: np.ndarray) -> None:
        out[:] = 0
        out[self._chosen(payload[:8].view(np.uint64), out.size)] = payload[8:].view(out.dtype)

    def _chosen(self, nonce: np.ndarray, size: int) -> np.ndarray:
        """The indices, ascending, of one element in each of the runs."""
        count = self._count(size)
        ends = np.arange(count + 1, dtype=np.uint64) * np.uint64(size) // np.uint64(count)
        starts, lengths = ends[:-1], np.diff(ends)
        places = _mix(nonce + np.arange(count, dtype=np.uint64)) % lengths
        return (starts + places).astype(np.intp)


def _largest(magnitudes: np.ndarray, count: int) -> np.ndarray:
    """The indices, ascending, of the ``count`` largest; NaN is the largest of all."""
    among = _candidates(magnitudes, count)
    if among is None:
        among = np.arange(magnitudes.size)
    found = magnitudes[among]
    found[np.isnan(found)] = np.inf
    smallest = np.partition(found, found.size - count)[found.size - count]
    is_chosen = found > smallest
    ties = np.flatnonzero(found == smallest)[: count - np.count_nonzero(is_chosen)]
    is_chosen[ties] = True
    return among[is_chosen]


def _candidates(magnitudes: np.ndarray, count: int) -> Optional[np.ndarray]:
    """Indices that contain those of the ``count`` largest; None if a sample is no help."""
    if magnitudes.size < _SAMPLE_MIN_SIZE:
        return None
    sample = magnitudes[::_SAMPLE_STEP]
    # Half as many again as are wanted, and four standard deviations of how many a sample has.
    wanted = 1.5 * count * sample.size / magnitudes.size
    rank = sample.size - 1 - int(wanted + 4 * math.sqrt(wanted))
    if rank < 0:
        return None
    threshold = np.partition(sample, rank)[rank]
    is_candidate = magnitudes < threshold
    np.logical_not(is_candidate, out=is_candidate)  # so that NaN is one
    candidates = np.flatnonzero(is_candidate)
    return candidates if candidates.size >= count else None


def _mix(numbers: np.ndarray) -> np.ndarray:
    """A bijection of uint64 whose results look random; sums and products are modulo 2**64."""
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return mixed ^ mixed >> np.uint64(31)
