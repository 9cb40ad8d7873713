"""Optimizer states on their way between servers and workers. Pure.

A state is nested tuples and lists of arrays and numbers. It travels as a *layout*, which says how
the arrays are nested (wire.StateSpec), and the arrays themselves, in pieces.
"""

import math
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

import numpy as np

from .dtypes import DTYPES, dtype_of, name_of
from .errors import ProtocolError
from .plan import MAX_KEY_NBYTES, Slice
from .wire import STATE_NBYTES, StateSpec

__all__ = ["Arrivals", "SliceState", "check_layout", "piece_of", "pieces"]


class SliceState(NamedTuple):
    """The state of a slice, or of a whole key, with the arrays that ``spec`` describes."""

    spec: StateSpec
    arrays: List[np.ndarray]


_MAX_NESTING = 32


def check_layout(layout: Any, num_arrays: int) -> None:
    """Raise ProtocolError unless this is a layout that has each of the arrays once."""
    arrays: List[int] = []

    def visit(node: Any, nesting: int = 0) -> bool:
        if node is None:
            return True
        if isinstance(node, dict):
            return list(node) == ["value"] and isinstance(node["value"], (bool, int, float, str))
        if isinstance(node, list) and nesting < _MAX_NESTING and node[:1] in (["tuple"], ["list"]):
            return all(visit(one, nesting + 1) for one in node[1:])
        arrays.append(node)
        return type(node) is int

    if not visit(layout) or sorted(arrays) != list(range(num_arrays)):
        raise ProtocolError(f"a state of {num_arrays} arrays has no such layout")


class Arrivals:
    """Joins the pieces in which states arrive; a piece may come twice."""

    def __init__(self) -> None:
        self._arrays: Dict[Slice, List[np.ndarray]] = {}
        self._missing: Dict[Slice, Set[Tuple[int, int]]] = {}  # (array, start)

    def put(
        self, slice_: Slice, spec: StateSpec, array: int, start: int, payload: np.ndarray
    ) -> Optional[SliceState]:
        """Take a piece; returns the state when it is complete.

        Raises ProtocolError for a piece that does not belong to such a state.
        """
        check_layout(spec.layout, len(spec.arrays))
        if spec.count < 0:
            raise ProtocolError(f"a state of {slice_} after {spec.count} updates")
        if slice_ not in self._missing:
            self._arrays[slice_] = _empty(spec.arrays)
            self._missing[slice_] = set(pieces(self._arrays[slice_]))
        arrays, missing = self._arrays[slice_], self._missing[slice_]
        if [(name_of(one.dtype), one.shape) for one in arrays] != [
            (d, tuple(s)) for d, s in spec.arrays
        ]:
            raise ProtocolError(f"a state of {slice_} came in pieces that do not fit together")
        if arrays:
            place = piece_of(arrays, array, start)
            if place.nbytes != payload.nbytes:
                raise ProtocolError(f"{payload.nbytes} bytes of a state of {slice_} at {start}")
            place[:] = payload
        missing.discard((array, start))
        if missing:
            return None
        del self._arrays[slice_], self._missing[slice_]
        return SliceState(spec, arrays)


def piece_of(arrays: List[np.ndarray], array: int, start: int) -> np.ndarray:
    """A view of a state's array: at most `STATE_NBYTES` bytes from ``start`` on.

    Empty for a state without arrays. Raises ProtocolError if there is no such array or byte.
    """
    if not arrays:
        return np.empty(0, np.uint8)
    if not 0 <= array < len(arrays) or not 0 <= start <= arrays[array].nbytes:
        raise ProtocolError(
            f"a state of {len(arrays)} arrays has no byte {start} of number {array}"
        )
    return arrays[array].reshape(-1).view(np.uint8)[start : start + STATE_NBYTES]


def pieces(arrays: List[np.ndarray]) -> Iterator[Tuple[int, int]]:
    """(array, start) of each piece of a state; a state without arrays is one empty piece."""
    if not arrays:
        yield 0, 0
    for number, array in enumerate(arrays):
        for start in range(0, max(array.nbytes, 1), STATE_NBYTES):
            yield number, start


def _empty(specs: Sequence[Tuple[str, Tuple[int, ...]]]) -> List[np.ndarray]:
    """Arrays to receive a state; raises ProtocolError if no state can have such arrays."""
    nbytes = 0
    for dtype, shape in specs:
        if dtype not in DTYPES or any(extent < 0 for extent in shape):
            raise ProtocolError(f"a state has an array of {dtype}{tuple(shape)}")
        nbytes += math.prod(extent or 1 for extent in shape) * dtype_of(dtype).itemsize
    if nbytes > MAX_KEY_NBYTES:
        raise ProtocolError(f"a state of {len(specs)} arrays has more than {MAX_KEY_NBYTES} bytes")
    try:
        return [np.zeros(shape, dtype_of(dtype)) for dtype, shape in specs]
    except (MemoryError, ValueError) as error:
        raise ProtocolError(f"a state of {nbytes} bytes: {error}") from error
