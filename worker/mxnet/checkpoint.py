"""Whole-job checkpoints: weights, optimizer states, random numbers, and where the data was.

    checkpoint.save("run.ckpt", trainer, position={"epoch": 3, "batch": 120})
    ...
    found = checkpoint.restore("run.ckpt", trainer)
    epoch = found.position["epoch"]

All workers call both. One file, written by rank 0 and replaced as a whole, has it all; a job of
another number of workers or servers can go on from it. `restore` reads it on every worker, so it
lies where all hosts see it, or is copied to each.

File: `_MAGIC`, the length of a MessagePack header (8 bytes, little-endian), the header, what it
lists one after the other, and a BLAKE2b digest of all before it.
"""

import hashlib
import os
import random
import struct
from typing import Any, Dict, List, Optional, Tuple

import msgspec
import mxnet as mx
import numpy as np

from baryon.ps import UsageError

from ..session import session
from ..values import decode, encode
from .states import check_states, parse_states, write_atomically

__all__ = ["Checkpoint", "restore", "save"]

_MAGIC = b"baryon checkpoint 1\n"
_LENGTH = struct.Struct("<Q")
_DIGEST_NBYTES = 32


class Checkpoint(msgspec.Struct, frozen=True):
    """What a checkpoint says of the run: ``step`` as given to `save`; ``positions`` of the workers
    that saved it, by rank; ``position`` is this rank's, or None if there was no such worker;
    ``extra`` is rank 0's."""

    step: int
    position: Any
    positions: List[Any]
    extra: Any


class _Header(msgspec.Struct, frozen=True):
    step: int
    num_workers: int
    weights: List[Tuple[str, str, Tuple[int, ...]]]  # name, dtype, shape
    states_nbytes: int
    plain_nbytes: int


def save(path: str, trainer: Any, position: Any = None, step: int = 0, extra: Any = None) -> None:
    """Write a checkpoint; all workers call it at the same point of the script.

    ``trainer`` is a gluon.Trainer on a dist kvstore. ``position`` is this worker's place in its
    data, ``extra`` anything else that rank 0 wants to keep: plain values and arrays, as
    `KVStore.allgather` takes them. Random numbers are drawn anew from here on (MXNet's generator
    can be seeded and not read), and equally after a `restore`.
    """
    _check_is_distributed(trainer)
    store = _store_of(trainer)
    seed = int(np.random.randint(1 << 31))
    _seed(seed)
    if store._is_async:
        store._client.drain()  # so that what the servers have stands still once all have met
    gathered = store.allgather({"position": position, "seed": seed})
    if store.rank == 0:
        write_atomically(path, _encode(trainer, store, gathered, step, extra))
    store.barrier("checkpoint is written")


def restore(path: str, trainer: Any) -> Checkpoint:
    """Go on from a checkpoint; all workers call it, at the same point of the script.

    A net that has not been run yet gets its shapes from there; a trainer that has begun goes on
    with a new store. Raises OSError if the file cannot be read, and UsageError, having changed
    nothing, if it is damaged or of another network.
    """
    _check_is_distributed(trainer)
    header, weights, pickled, plain = _decode(path)
    parameters = {parameter.name: parameter for parameter in trainer._params}
    _check(path, parameters, weights)
    states, optimizer = parse_states(pickled, path)
    found = [(number, weights[parameter.name]) for number, parameter in enumerate(trainer._params)]
    check_states(states, optimizer, {key: (w.shape, w.dtype.name) for key, w in found})
    if trainer._kv_initialized:
        trainer._reset_kvstore()
    trainer._left_kvstore = None  # the states are those of the file
    for name, array in weights.items():
        # As MXNet's load_parameters does, which also ends a deferred initialisation.
        parameters[name]._load_init(mx.nd.array(array, dtype=array.dtype), None)
    store = _store_of(trainer)
    if not trainer._update_on_kvstore:
        optimizer = _load_updaters(trainer, pickled)
    trainer._optimizer = optimizer
    optimizer.param_dict = dict(enumerate(trainer._params))
    if trainer._update_on_kvstore:
        store._go_on_from(states, optimizer)
    positions = [entry["position"] for entry in plain["workers"]]
    seeds = [entry["seed"] for entry in plain["workers"]]
    rank = store.rank
    is_known = rank < header.num_workers
    _seed(seeds[rank] if is_known else (seeds[0] + rank) % (1 << 31))
    position = positions[rank] if is_known and store.num_workers == len(positions) else None
    return Checkpoint(header.step, position, positions, plain["extra"])


def _check_is_distributed(trainer: Any) -> None:
    """Raise UsageError unless a trainer has a dist store, or will have one."""
    given = trainer._kvstore_params["kvstore"]
    if isinstance(given, str):
        given = session().credentials.kvstore or given  # see startup.py
    if "dist" not in getattr(given, "type", given or ""):
        raise UsageError("checkpoints are of a Trainer on a dist kvstore: kvstore='dist_sync'")


def _store_of(trainer: Any) -> Any:
    if not trainer._kv_initialized:
        trainer._init_kvstore()
    if trainer._params_to_init:
        trainer._init_params()
    return trainer._kvstore


def _load_updaters(trainer: Any, pickled: bytes) -> Any:
    """Have the workers' own updaters, one for each device, go on; returns their optimizer."""
    for updater in trainer._updaters:
        updater.set_states(pickled)  # by unpickling, so that each has arrays of its own
    optimizer = trainer._updaters[0].optimizer
    counts = optimizer._index_update_count  # the devices that saved it had the same
    optimizer._all_index_update_counts = {
        device.device_id: dict(counts) for device in trainer._contexts
    }
    for updater in trainer._updaters:
        updater.optimizer = optimizer
    return optimizer


def _seed(seed: int) -> None:
    mx.random.seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def _encode(trainer: Any, store: Any, gathered: List[Any], step: int, extra: Any) -> bytes:
    if store._is_async:  # others have pushed after this worker's last pull
        for number, parameter in enumerate(trainer._params):
            if parameter.grad_req != "null":
                store.pull(number, out=parameter._data)
    if trainer._update_on_kvstore:
        states = store._states().dump(store._optimizer, True)
    else:  # of any worker and any of its devices: they update by the same sums
        states = trainer._updaters[0].get_states(dump_optimizer=True)
    arrays = [(parameter.name, _value_of(parameter)) for parameter in trainer._params]
    plain = encode({"workers": gathered, "extra": extra})
    listed = [(name, array.dtype.name, array.shape) for name, array in arrays]
    header = msgspec.msgpack.encode(_Header(step, len(gathered), listed, len(states), len(plain)))
    parts = [_MAGIC, _LENGTH.pack(len(header)), header]
    parts += [array.tobytes() for _, array in arrays]
    data = b"".join([*parts, states, plain])
    return data + hashlib.blake2b(data, digest_size=_DIGEST_NBYTES).digest()


def _value_of(parameter: Any) -> np.ndarray:
    if parameter._stype == "default":
        return np.ascontiguousarray(parameter.list_data()[0].asnumpy())
    return parameter._reduce().asnumpy()  # whose rows are on the servers


def _decode(path: str) -> Tuple[_Header, Dict[str, np.ndarray], bytes, Any]:
    with open(path, "rb") as file:
        data = file.read()
    if not data.startswith(_MAGIC):
        raise UsageError(f"{path} is no checkpoint of this version; checkpoint.save writes them")
    body = memoryview(data)[:-_DIGEST_NBYTES]
    if hashlib.blake2b(body, digest_size=_DIGEST_NBYTES).digest() != data[-_DIGEST_NBYTES:]:
        raise UsageError(f"{path} is damaged or cut off; go on from an older checkpoint")
    at = len(_MAGIC) + _LENGTH.size
    (nbytes,) = _LENGTH.unpack(body[len(_MAGIC) : at])
    header = msgspec.msgpack.decode(body[at : at + nbytes], type=_Header)
    at += nbytes
    weights = {}
    for name, dtype, shape in header.weights:
        count = int(np.prod(shape, dtype=np.int64))
        weights[name] = np.frombuffer(body, dtype, count, at).reshape(shape)
        at += weights[name].nbytes
    states = bytes(body[at : at + header.states_nbytes])
    plain = decode(bytes(body[at + header.states_nbytes :][: header.plain_nbytes]))
    return header, weights, states, plain


def _check(path: str, parameters: Dict[str, Any], weights: Dict[str, np.ndarray]) -> None:
    wrong = [f"it lacks {name}" for name in parameters if name not in weights]
    for name, array in weights.items():
        parameter: Optional[Any] = parameters.get(name)
        if parameter is None:
            wrong.append(f"it has {name}, which the network lacks")
        elif not _fits(parameter, array):
            here = f"{np.dtype(parameter.dtype).name}{tuple(parameter.shape)}"
            wrong.append(f"{name} is {array.dtype.name}{array.shape} there and {here} here")
    if wrong:
        raise UsageError(f"{os.path.basename(path)} is of another network: " + "; ".join(wrong))


def _fits(parameter: Any, array: np.ndarray) -> bool:
    """Whether an array can be a parameter's value, whose shape may not be known yet."""
    shape = array.shape if parameter.shape is None else parameter.shape
    return (
        np.dtype(parameter.dtype) == array.dtype
        and len(shape) == array.ndim
        and all(here in (0, -1, there) for here, there in zip(shape, array.shape))
    )
