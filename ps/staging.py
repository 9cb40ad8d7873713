"""One store in a worker: its plan, its staging memory, and its operations under way. Pure.

The staging memory is where a worker's engine and its sockets meet. It is laid out as the plan
says, a key that spans buckets in one piece, so that one engine operation can fill them all. What
leaves lies in ``outgoing``, what has arrived in ``incoming``; the two are one and the same where
the host shares no memory, since a place is not filled again before its answer has come.

Over a shared link no bytes travel: the server reads ``outgoing``, and ``incoming`` is what the
host's servers write.
"""

from collections import deque
from typing import Deque, Dict, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from . import wire
from .departures import Departures, Operation, Run, runs_of
from .errors import ProtocolError
from .memory import Memory
from .plan import Key, Plan, Slice

__all__ = ["Places", "WorkerStore"]


class Places(NamedTuple):
    """Where a key leaves from and arrives, arrays of its shape and dtype; perhaps the same."""

    outgoing: np.ndarray
    incoming: np.ndarray


class WorkerStore:
    """One store's plan, staging memory and operations under way."""

    def __init__(self, number: int, plan: Plan, outgoing: Memory, incoming: Memory) -> None:
        self.number = number
        self.plan = plan
        self.outgoing = outgoing
        self.incoming = incoming
        self.departures = Departures()
        self.outstanding: Dict[Slice, Operation] = {}
        # What other threads have announced and made ready, until the store's own looks.
        self.announced: Deque[Operation] = deque()
        self.made_ready: Deque[Operation] = deque()
        self.is_flush_posted = False
        self._rounds: Dict[Key, int] = {}
        self._settings = 0

    def places(self, key: Key) -> Places:
        outgoing = self.outgoing.key(key)
        is_one = self.incoming is self.outgoing
        return Places(outgoing, outgoing if is_one else self.incoming.key(key))

    def next_round(self, key: Key) -> int:
        self._rounds[key] = self._rounds.get(key, 0) + 1
        return self._rounds[key]

    def next_setting(self) -> int:
        """The serial number of the next SetOptimizer or SetHyper."""
        self._settings += 1
        return self._settings

    def take_announced(self) -> int:
        """Take note of what has been announced; returns how many operations that is."""
        count = len(self.announced)
        for _ in range(count):
            self.departures.announce(self.announced.popleft())
        return count

    def take_ready(self) -> List[Operation]:
        """What has become ready. It has been announced before: look at that afterwards."""
        return [self.made_ready.popleft() for _ in range(len(self.made_ready))]

    def depart(self, ready: List[Operation]) -> Iterator[Run]:
        """What can leave now that these are ready; it is to be answered from now on."""
        for operation in ready:
            if operation.kind == "push" and operation.round is None:
                operation.round = self.next_round(operation.key)
            self.departures.ready(operation)
        for run in self.departures.take():
            self.sent(run)
            yield run

    def sent(self, run: Run) -> None:
        """Take note that ``run`` is to be answered from now on."""
        self.outstanding.update(zip(run.slices, run.operations))

    def unanswered(self, server: Optional[int] = None) -> List[Run]:
        """What was sent, to ``server`` or to any, and is not answered, as few runs as possible.

        The places of its slices still hold what was sent: they are not the engine's before the
        answer, and the places of what was answered are not touched.
        """
        buckets: Dict[int, List[Tuple[Operation, Slice]]] = {}
        for slice_, operation in self.outstanding.items():
            bucket = slice_.bucket
            if server is None or bucket.server == server:
                buckets.setdefault(bucket.index, []).append((operation, slice_))
        return [run for waiting in buckets.values() for run in runs_of(waiting)]

    def message(self, run: Run) -> Tuple[wire.Run, Optional[np.ndarray]]:
        """The header and payload for a run of slices."""
        operation, first = run.operations[0], run.slices[0]
        where = (self.number, first.bucket.index, first.position, len(run.slices))
        if operation.kind == "pull":
            return wire.Pull(*where), None
        payload = self.outgoing.run(run.slices)
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
        taken = [s for s in run if s in self.outstanding]
        if payload is not None:
            start, end = run[0].offset, run[-1].end
            if payload.nbytes != end - start:
                raise ProtocolError(f"{payload.nbytes} bytes for {end - start} in {message}")
            memory = self.incoming.bucket(run[0].bucket)
            if len(taken) == len(run):
                memory[start:end] = payload
            else:
                for s in taken:
                    memory[s.offset : s.end] = payload[s.offset - start : s.end - start]
        finished = []
        for slice_ in taken:
            operation = self.outstanding.pop(slice_)
            operation.remaining -= 1
            if not operation.remaining:
                finished.append(operation)
        return finished

    def forget_all(self) -> List[Operation]:
        operations = {id(op): op for op in self.outstanding.values()}
        operations.update((id(op), op) for op in self.departures.ready_but_waiting())
        self.outstanding.clear()
        return list(operations.values())
