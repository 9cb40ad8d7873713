"""Some rows of an array: row-sparse gradients, and pulls of rows. Pure.

A row is selected by one index of the first dimension. A slice of a key holds whole rows (plan.py)
and is handled by itself; its rows are counted from its own first row.

Rows travel as raw little-endian memory: the ids (int64), followed by the rows' elements if there
are values.
"""

from typing import Dict, Iterator, NamedTuple, Sequence, Tuple, Union

import numpy as np

from .dtypes import add, narrowed, widened
from .errors import ProtocolError, UsageError
from .plan import Key, Slice

__all__ = [
    "Part", "Rows", "add_rows", "as_bytes", "encoded", "ids_in", "ids_of", "join", "put", "rows_in",
    "rows_of", "select", "summed", "union",
]  # fmt: skip

_ID_NBYTES = 8


class Rows(NamedTuple):
    """Row ``ids[i]`` is ``values[i]``, and all other rows are zero.

    ``ids`` are int64 and ascend without repeats; ``values`` has two dimensions.
    """

    ids: np.ndarray
    values: np.ndarray


Part = Union[np.ndarray, Rows]
"""A contribution to a slice: all of its elements (1-D), or some rows."""


# -- sums and selections --------------------------------------------------------------------------


def summed(ids: np.ndarray, values: np.ndarray) -> Rows:
    """`Rows` of rows in any order; rows with the same id are added up.

    ``ids`` are 1-D integers, ``values`` 2-D with a row for each.
    """
    ids = np.asarray(ids, np.int64)
    if (ids[1:] > ids[:-1]).all():
        return Rows(ids, values)
    unique, places = np.unique(ids, return_inverse=True)
    terms = widened(values)
    sums = np.zeros((unique.size, values.shape[1]), terms.dtype)
    np.add.at(sums, places, terms)
    return Rows(unique, narrowed(sums, values.dtype))


def union(one: Rows, other: Rows) -> Rows:
    """The sum of both; in each row's sum, ``one`` is the first term."""
    if not other.ids.size:
        return one
    if not one.ids.size:
        return other
    ids = np.union1d(one.ids, other.ids)
    values = np.zeros((ids.size, one.values.shape[1]), one.values.dtype)
    values[np.searchsorted(ids, one.ids)] = one.values
    places = np.searchsorted(ids, other.ids)
    values[places] = add(values[places], other.values)
    return Rows(ids, values)


def add_rows(target: np.ndarray, rows: Rows) -> None:
    """Add rows to ``target`` (1-D, of whole rows)."""
    if rows.values.size:
        table = target.reshape(-1, rows.values.shape[1])
        table[rows.ids] = add(table[rows.ids], rows.values)


def put(part: Part, target: np.ndarray) -> None:
    """Write a part's elements to ``target`` (1-D)."""
    if isinstance(part, Rows):
        target[:] = 0
        add_rows(target, part)
    else:
        target[:] = part


def select(value: np.ndarray, ids: np.ndarray, row_size: int) -> np.ndarray:
    """A copy (2-D) of rows of ``value`` (1-D), with ``row_size`` elements each."""
    if not row_size:
        return np.empty((ids.size, 0), value.dtype)
    return value.reshape(-1, row_size)[ids]


def join(parts: Sequence[Part], slices: Sequence[Slice]) -> Part:
    """The parts of all slices of a key as one part of the key: rows if all parts are rows."""
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, Rows) for part in parts):
        ids = [part.ids + s.first_row for part, s in zip(parts, slices) if isinstance(part, Rows)]
        values = [part.values for part in parts if isinstance(part, Rows)]
        return Rows(np.concatenate(ids), np.concatenate(values))
    whole = np.empty(slices[0].key.size, slices[0].key.dtype)
    for part, slice_ in zip(parts, slices):
        put(part, whole[slice_.start : slice_.stop])
    return whole


# -- encoding -------------------------------------------------------------------------------------


def rows_in(key: Key, rows: Rows) -> Dict[Slice, np.ndarray]:
    """The payload for each slice of a key, as uint8. Raises UsageError if its rows are cut."""
    return {
        slice_: encoded(Rows(ids, rows.values[first : first + ids.size]))
        for slice_, first, ids in _cut(key, rows.ids)
    }


def ids_in(key: Key, ids: np.ndarray) -> Dict[Slice, np.ndarray]:
    """The payload that asks for a key's rows, for each slice that has some; like `rows_in`.

    ``ids`` are int64 and ascend without repeats.
    """
    return {slice_: as_bytes(part) for slice_, _, part in _cut(key, ids) if part.size}


def encoded(rows: Rows) -> np.ndarray:
    """The payload for rows of one slice, as uint8."""
    return np.concatenate((as_bytes(rows.ids), as_bytes(rows.values)))


def as_bytes(array: np.ndarray) -> np.ndarray:
    """The elements in C order, as uint8."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def ids_of(slice_: Slice, payload: np.ndarray) -> np.ndarray:
    """The ids in ``payload`` (uint8); raises ProtocolError unless they are numbers of the slice's
    rows that ascend without repeats."""
    if not slice_.key.has_rows:
        raise ProtocolError(f"rows of {slice_.key}, which is cut through its rows")
    if payload.nbytes % _ID_NBYTES:
        raise ProtocolError(f"{payload.nbytes} bytes of ids for {slice_}")
    ids = np.array(payload.view(np.int64))
    if ids.size and not (ids[0] >= 0 and ids[-1] < slice_.num_rows):
        raise ProtocolError(f"ids from {ids[0]} to {ids[-1]} for {slice_.num_rows} rows, {slice_}")
    if not (ids[1:] > ids[:-1]).all():
        raise ProtocolError(f"ids for {slice_} that do not ascend")
    return ids


def rows_of(slice_: Slice, payload: np.ndarray) -> Rows:
    """The rows in ``payload`` (uint8); raises ProtocolError like `ids_of`."""
    key = slice_.key
    count, rest = divmod(payload.nbytes, _ID_NBYTES + slice_.row_nbytes)
    if rest:
        raise ProtocolError(f"{payload.nbytes} bytes of rows for {slice_}")
    ids = ids_of(slice_, payload[: count * _ID_NBYTES])
    values = payload[count * _ID_NBYTES :].view(key.dtype)
    return Rows(ids, values.reshape(count, key.row_size))


def _cut(key: Key, ids: np.ndarray) -> Iterator[Tuple[Slice, int, np.ndarray]]:
    """For each slice: (slice, index of its first id in ``ids``, its ids counted in the slice)."""
    if not key.has_rows:
        raise UsageError(
            f"key {key.name!r} of shape {key.shape} has no rows, or its rows are too big to be "
            "sent one by one; use dense gradients and pull (sparse_grad=False)"
        )
    bounds = np.searchsorted(ids, [slice_.first_row for slice_ in key.slices]).tolist()
    for slice_, first, end in zip(key.slices, bounds, [*bounds[1:], ids.size]):
        yield slice_, first, ids[first:end] - slice_.first_row
