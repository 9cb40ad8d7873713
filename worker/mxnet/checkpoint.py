"""Whole-job checkpoints: weights, optimizer states, random numbers, and positions in the data.

    checkpoint.save("run.ckpt", trainer, position={"epoch": 3, "batch": 120})
    ...
    found = checkpoint.restore("run.ckpt", trainer)
    epoch = found.position["epoch"]

All workers call both. Rank 0 writes one file with everything in it (checkpoint_file.py), so a job
with another number of workers or servers can go on from it. `restore` reads the file on every
worker: put it where all hosts see it, or copy it to each.
"""

import os
import random
from typing import Any, Dict, List, Optional

import msgspec
import mxnet as mx
import numpy as np

from baryon.ps import UsageError

from ..checkpoint_file import Contents, read, write
from .states import check_states, parse_states
from .trainer import Training

__all__ = ["Checkpoint", "restore", "save"]


class Checkpoint(msgspec.Struct, frozen=True):
    """What `restore` returns.

    ``step`` is what `save` was given. ``positions`` are those of the workers that saved, by rank.
    ``position`` is this rank's, or None if the number of workers has changed. ``extra`` is rank
    0's.
    """

    step: int
    position: Any
    positions: List[Any]
    extra: Any


def save(path: str, trainer: Any, position: Any = None, step: int = 0, extra: Any = None) -> None:
    """Write a checkpoint; all workers call it at the same point of the script.

    ``trainer`` is a gluon.Trainer on a dist kvstore. ``position`` is this worker's place in its
    data, and ``extra`` anything else that rank 0 wants to keep: plain values and arrays, as
    `KVStore.allgather` takes them. All random generators get a new seed here, which `restore` sets
    again, because MXNet's generator can be seeded but not read.
    """
    training = Training(trainer)
    store = training.store()
    seed = int(np.random.randint(1 << 31))
    _seed(seed)
    if store.is_async:
        store.drain()  # so that the servers' values stand still once all workers have met
    workers = store.allgather({"position": position, "seed": seed})
    if store.rank == 0:
        training.take_present_values()
        weights = {parameter.name: _value_of(parameter) for parameter in training.parameters}
        values = {"workers": workers, "extra": extra}
        write(path, Contents(step, len(workers), weights, training.dump_states(), values))
    store.barrier("checkpoint is written")


def restore(path: str, trainer: Any) -> Checkpoint:
    """Go on from a checkpoint; all workers call it at the same point of the script.

    A net that has not been run yet gets its shapes from the checkpoint. A trainer that has begun
    goes on with a new store. Raises OSError if the file cannot be read. Raises UsageError, having
    changed nothing, if the file is damaged or belongs to another network.
    """
    training = Training(trainer)
    found = read(path)
    parameters = {parameter.name: parameter for parameter in training.parameters}
    _check(path, parameters, found.weights)
    states, optimizer = parse_states(found.states, path)
    weights = [found.weights[parameter.name] for parameter in training.parameters]
    check_states(states, optimizer, {n: (w.shape, w.dtype.name) for n, w in enumerate(weights)})
    training.leave_store()
    for name, array in found.weights.items():
        # As MXNet's load_parameters does, which also ends a deferred initialisation.
        parameters[name]._load_init(mx.nd.array(array, dtype=array.dtype), None)
    store = training.store()
    training.load_states(found.states, states, optimizer)
    positions = [worker["position"] for worker in found.values["workers"]]
    seeds = [worker["seed"] for worker in found.values["workers"]]
    rank = store.rank
    is_known = rank < found.num_workers
    _seed(seeds[rank] if is_known else (seeds[0] + rank) % (1 << 31))
    position = positions[rank] if is_known and store.num_workers == len(positions) else None
    return Checkpoint(found.step, position, positions, found.values["extra"])


def _seed(seed: int) -> None:
    mx.random.seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def _value_of(parameter: Any) -> np.ndarray:
    if parameter._stype == "default":
        return np.ascontiguousarray(parameter.list_data()[0].asnumpy())
    return parameter._reduce().asnumpy()  # its rows are on the servers


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
        name = os.path.basename(path)
        raise UsageError(f"{name} belongs to another network: {'; '.join(wrong)}")


def _fits(parameter: Any, array: np.ndarray) -> bool:
    """Whether an array can be a parameter's value; the parameter's shape may not be known yet."""
    shape = array.shape if parameter.shape is None else parameter.shape
    return (
        np.dtype(parameter.dtype) == array.dtype
        and len(shape) == array.ndim
        and all(here in (0, -1, there) for here, there in zip(shape, array.shape))
    )
