"""Optimizer states of the servers in a file, and back: MXNet's own format.

A file holds what ``mx.optimizer.Updater.get_states`` would have written on one machine, whatever
the number of servers was: {key: state}, each state with arrays of the key's shape, or the pair of
that and the optimizer. So MXNet reads ours and we read MXNet's. Update counts travel in the
optimizer, as there; what an optimizer has changed in itself, which here it does for each slice, is
in its attribute `SCALARS`: {key: [{attribute: value} for each slice]}. In an asynchronous store it
has the counts of one worker's pushes, by which its schedule goes, while the servers have more,
those of all workers: these are in its attribute `COUNTS`: {key: count}.
"""

import copy
import pickle
from typing import Any, Dict, List, Optional, Tuple

import mxnet as mx
import numpy as np

from baryon.ps import (
    Client,
    GetState,
    Key,
    ProtocolError,
    PutState,
    Slice,
    SliceState,
    StateSpec,
    StoreClient,
    UsageError,
    piece_of,
    pieces,
)

from .arguments import KeyName
from .layouts import flatten, layout_of, unflatten

__all__ = ["States", "check_states", "parse_states", "read_states"]
SCALARS = "baryon_scalars"
COUNTS = "baryon_counts"


class States:
    """The states of one store's servers; ``client`` speaks to these."""

    def __init__(self, client: Client, store: StoreClient, is_async: bool) -> None:
        self._client = client
        self._store = store
        self._is_async = is_async

    def dump(self, optimizer: Any, with_optimizer: bool) -> bytes:
        """All states, as the bytes of a file."""
        found = self.collect(optimizer)
        return pickle.dumps(found if with_optimizer else found[0])

    def collect(self, optimizer: Any) -> Tuple[Dict[Any, Any], Any]:
        """All states, and a copy of the optimizer with counts and what it has itself changed."""
        states: Dict[Any, Any] = {}
        counts: Dict[Any, int] = {}
        scalars: Dict[Any, List[Dict[str, Any]]] = {}
        for key in self._store.keys:
            parts = [self._get(unit) for unit in self._units(key)]
            found = [part for part in parts if part is not None]
            if len(found) < len(parts):
                continue  # it has not been updated yet
            states[key.name] = _joined(key, found)
            counts[key.name] = found[0].spec.count
            if any(part.spec.scalars for part in found):
                scalars[key.name] = [part.spec.scalars for part in found]
        optimizer = copy.copy(optimizer)
        own = dict(optimizer._index_update_count) if self._is_async else counts
        optimizer._all_index_update_counts = {0: own}
        optimizer._index_update_count = own
        optimizer.num_update = max([optimizer.num_update, *own.values()])
        setattr(optimizer, SCALARS, scalars)
        setattr(optimizer, COUNTS, counts if self._is_async else {})
        return states, optimizer

    def load(self, states: Dict[Any, Any], optimizer: Any) -> None:
        """Have the servers, whose states are new, go on from these; see `check_states`."""
        for key in self._store.keys:
            if key.name not in states:
                continue
            counts = optimizer._index_update_count, getattr(optimizer, COUNTS, {})
            count = max(table.get(key.name, 0) for table in counts)
            given = getattr(optimizer, SCALARS, {}).get(key.name, [])
            layout, arrays = flatten(states[key.name])
            units = self._units(key)
            if len(given) != len(units):  # it was in other slices; they have gone the same way
                given = [given[0] if given else {}] * len(units)
            for unit, scalars in zip(units, given):
                parts = [self._part(key, unit, array) for array in arrays]
                specs = tuple((part.dtype.name, part.shape) for part in parts)
                self._put(unit, StateSpec(layout, specs, count, scalars), parts)

    # -- one slice ----------------------------------------------------------------------------

    def _units(self, key: Key) -> List[Slice]:
        """What the servers update at once, by its first slice."""
        return key.slices[:1] if self._store.has_whole_keys else list(key.slices)

    def _part(self, key: Key, unit: Slice, array: np.ndarray) -> np.ndarray:
        if self._store.has_whole_keys or array.size != key.size or len(key.slices) == 1:
            return np.ascontiguousarray(array)
        return np.ascontiguousarray(array.reshape(-1)[unit.start : unit.stop].reshape(unit.shape))

    def _get(self, unit: Slice) -> Optional[SliceState]:
        spec, first = self._ask_for(unit, 0, 0)
        if spec is None:
            return None
        arrays = [np.zeros(shape, dtype) for dtype, shape in spec.arrays]
        for array, start in pieces(arrays):
            payload = first if (array, start) == (0, 0) else self._ask_for(unit, array, start)[1]
            place = piece_of(arrays, array, start)
            if place.nbytes != payload.nbytes:  # NumPy would repeat a single one
                wrong = f"{payload.nbytes} of {place.nbytes} bytes"
                raise ProtocolError(f"{wrong} of a state of {unit}")
            place[:] = payload
        return SliceState(spec, arrays)

    def _ask_for(self, unit: Slice, array: int, start: int) -> Tuple[Any, np.ndarray]:
        bucket = unit.bucket
        answer, payload = self._client.ask(
            bucket.server,
            lambda serial: GetState(
                self._store.number, serial, bucket.index, unit.position, array, start
            ),
        )
        return answer.spec, payload

    def _put(self, unit: Slice, spec: StateSpec, arrays: List[np.ndarray]) -> None:
        for array, start in pieces(arrays):
            self._put_piece(unit, spec, array, start, piece_of(arrays, array, start))

    def _put_piece(
        self, unit: Slice, spec: StateSpec, array: int, start: int, payload: np.ndarray
    ) -> None:
        bucket = unit.bucket
        self._client.ask(
            bucket.server,
            lambda serial: PutState(
                self._store.number, serial, bucket.index, unit.position, array, start, spec
            ),
            payload,
        )


def _joined(key: Key, parts: List[SliceState]) -> Any:
    """The state of a key of those of its slices."""
    arrays = []
    for number, array in enumerate(parts[0].arrays):
        if len(parts) > 1 and array.size == key.slices[0].stop - key.slices[0].start:
            flat = np.concatenate([part.arrays[number].reshape(-1) for part in parts])
            array = flat.reshape(key.shape)
        arrays.append(array)
    return unflatten(parts[0].spec.layout, arrays)


def read_states(fname: str) -> Tuple[Dict[Any, Any], Any]:
    """The states in a file, and the optimizer or None.

    Raises OSError if it cannot be read, and UsageError if it is no such file.
    """
    with open(fname, "rb") as file:
        data = file.read()
    return parse_states(data, fname)


def parse_states(data: bytes, name: str) -> Tuple[Dict[Any, Any], Any]:
    """As `read_states`, of the file's bytes; the script's own file, so pickle may read it."""
    try:
        states = pickle.loads(data)
    except Exception as error:  # whatever a damaged pickle makes pickle raise
        raise UsageError(f"{name} has no optimizer states in it, or is cut off: {error}") from error
    optimizer = None
    if isinstance(states, tuple) and len(states) == 2:
        states, optimizer = states
    is_optimizer = optimizer is None or isinstance(optimizer, mx.optimizer.Optimizer)
    if not isinstance(states, dict) or not is_optimizer:
        raise UsageError(f"{name} has no optimizer states in it; save_optimizer_states writes them")
    return states, optimizer


def check_states(
    states: Dict[Any, Any], optimizer: Any, keys: Dict[KeyName, Tuple[Tuple[int, ...], str]]
) -> None:
    """Raises UsageError, with all that is wrong, unless these are states that ``optimizer`` may
    have of some of ``keys``, given by shape and dtype."""
    wrong = []
    for name, state in states.items():
        if name not in keys:
            wrong.append(f"key {name!r} does not exist here")
            continue
        shape, dtype = keys[name]
        new = optimizer.create_state_multi_precision(name, mx.nd.zeros(shape, dtype=dtype))
        if layout_of(state) != layout_of(new):
            wrong.append(f"key {name!r} has a state that is none of {type(optimizer).__name__}")
            continue
        for found, expected in zip(flatten(state)[1], flatten(new)[1]):
            if (found.shape, found.dtype) != (expected.shape, expected.dtype):
                wrong.append(
                    f"key {name!r} has {found.dtype}{found.shape} in its state, where "
                    f"{type(optimizer).__name__} has {expected.dtype}{expected.shape}"
                )
    if wrong:
        raise UsageError("\n".join(wrong))
