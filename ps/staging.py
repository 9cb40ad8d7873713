"""One store in a worker: its plan, its staging memory, and its operations under way. Pure.

The staging memory is where a worker's engine and its sockets meet: one buffer per bucket, in
which each key has its place. A key that spans buckets has them one after the other, so that one
engine operation can fill them all.
"""

from typing import Dict, List, Optional, Tuple, Union

import numpy as np

from . import wire
from .departures import Departures, Operation, Run
from .errors import ProtocolError
from .plan import Key, Plan

__all__ = ["WorkerStore"]


class WorkerStore:
    """One store's plan, staging memory and operations under way."""

    def __init__(self, number: int, plan: Plan) -> None:
        self.number = number
        self.plan = plan
        self.departures = Departures()
        self.outstanding: Dict[Tuple[int, int], Operation] = {}  # (bucket, position)
        self.is_flush_posted = False
        self._memory: Dict[int, np.ndarray] = {}  # bucket -> bytes
        self._rounds: Dict[Key, int] = {}

    def add_key(self, name: Union[int, str], shape: Tuple[int, ...], dtype: str) -> np.ndarray:
        """Plan a key; returns its place in the staging memory, an array of its shape."""
        key = self.plan.add(name, shape, dtype)
        first = key.slices[0]
        if len(key.slices) == 1:
            bucket = first.bucket
            if bucket.index not in self._memory:
                self._memory[bucket.index] = np.zeros(bucket.capacity, np.uint8)
            place = self._memory[bucket.index][first.offset : first.end]
        else:
            place = np.zeros(key.nbytes, np.uint8)
            start = 0
            for slice_ in key.slices:
                self._memory[slice_.bucket.index] = place[start : start + slice_.nbytes]
                start += slice_.nbytes
        return place.view(key.dtype).reshape(shape)

    def next_round(self, key: Key) -> int:
        self._rounds[key] = self._rounds.get(key, 0) + 1
        return self._rounds[key]

    def message(self, run: Run) -> Tuple[wire.Message, Optional[np.ndarray]]:
        """The header and payload for a run of slices."""
        operation, first, last = run.operations[0], run.slices[0], run.slices[-1]
        where = (self.number, first.bucket.index, first.position, len(run.slices))
        if operation.kind == "pull":
            return wire.Pull(*where), None
        payload = self._memory[first.bucket.index][first.offset : last.end]
        if operation.kind == "init":
            return wire.Init(*where), payload
        assert operation.round is not None
        return wire.Push(*where, operation.round, operation.want_value), payload

    def answered(self, message: wire.Answer, payload: Optional[np.ndarray]) -> List[Operation]:
        """Take an answer's values (bytes); returns the operations that it completes."""
        try:
            run = self.plan.run(message.bucket, message.first, message.count)
        except IndexError as error:
            raise ProtocolError(str(error)) from error
        if payload is not None:
            place = self._memory[message.bucket][run[0].offset : run[-1].end]
            if payload.nbytes != place.nbytes:
                raise ProtocolError(f"{payload.nbytes} bytes for {place.nbytes} in {message}")
            place[:] = payload
        finished = []
        for slice_ in run:
            # A repeat of an answer finds nothing outstanding, which is fine.
            operation = self.outstanding.pop((message.bucket, slice_.position), None)
            if operation is not None:
                operation.remaining -= 1
                if not operation.remaining:
                    finished.append(operation)
        return finished

    def forget_all(self) -> List[Operation]:
        operations = {id(op): op for op in self.outstanding.values()}
        operations.update((id(op), op) for op in self.departures.ready_but_waiting())
        self.outstanding.clear()
        return list(operations.values())
