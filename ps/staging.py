"""One store in a worker: its plan, its staging memory, and its operations under way. Pure.

The staging memory is where a worker's engine and its sockets meet: one buffer per bucket, in
which each key has its place. A key that spans buckets has them one after the other, so that one
engine operation can fill them all.
"""

from typing import Dict, List, Optional, Tuple, Union

import numpy as np

from . import wire
from .departures import Departures, Operation, Run, runs_of
from .errors import ProtocolError
from .plan import Key, Plan, Slice

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
        self._settings = 0

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

    def next_setting(self) -> int:
        """The serial number of the next SetOptimizer or SetHyper."""
        self._settings += 1
        return self._settings

    def sent(self, run: Run) -> None:
        """Take note that ``run`` is to be answered from now on."""
        for operation, slice_ in zip(run.operations, run.slices):
            self.outstanding[slice_.bucket.index, slice_.position] = operation

    def unanswered(self, server: int) -> List[Run]:
        """What was sent to ``server`` and has not been answered, as few runs as possible.

        The places of its slices still hold what was sent: they are not the engine's before the
        answer, and the places of what was answered are not touched.
        """
        buckets: Dict[int, List[Tuple[Operation, Slice]]] = {}
        for (index, position), operation in self.outstanding.items():
            bucket = self.plan.buckets[index]
            if bucket.server == server:
                buckets.setdefault(index, []).append((operation, bucket.slices[position]))
        return [run for waiting in buckets.values() for run in runs_of(waiting)]

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
        """Take an answer's values (bytes); returns the operations that it completes.

        A slice that nothing waits for is left alone: its place may be the engine's.
        """
        try:
            run = self.plan.run(message.bucket, message.first, message.count)
        except IndexError as error:
            raise ProtocolError(str(error)) from error
        taken = [s for s in run if (message.bucket, s.position) in self.outstanding]
        if payload is not None:
            start, end = run[0].offset, run[-1].end
            if payload.nbytes != end - start:
                raise ProtocolError(f"{payload.nbytes} bytes for {end - start} in {message}")
            memory = self._memory[message.bucket]
            if len(taken) == len(run):
                memory[start:end] = payload
            else:
                for s in taken:
                    memory[s.offset : s.end] = payload[s.offset - start : s.end - start]
        finished = []
        for slice_ in taken:
            operation = self.outstanding.pop((message.bucket, slice_.position))
            operation.remaining -= 1
            if not operation.remaining:
                finished.append(operation)
        return finished

    def forget_all(self) -> List[Operation]:
        operations = {id(op): op for op in self.outstanding.values()}
        operations.update((id(op), op) for op in self.departures.ready_but_waiting())
        self.outstanding.clear()
        return list(operations.values())
