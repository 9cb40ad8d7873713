"""One store in a worker: its plan, and its operations under way. Pure.

Operations leave by `depart` and end by `answered`; their bytes are staging.py's. At most one
operation is under way for each slice, because MXNet's engine lets no second one begin before.
"""

from typing import Dict, Iterator, List, Optional, Tuple, Union

import numpy as np

from .. import wire
from ..errors import ProtocolError
from ..plan import Key, Plan, Slice
from .departures import Departures, Operation, Run
from .row_operation import RowOperation
from .staging import Staging

__all__ = ["WorkerStore"]


class WorkerStore:
    """The plan of store ``number``, the operations under way, and what is counted in it."""

    def __init__(self, number: int, plan: Plan, staging: Staging) -> None:
        self.number = number
        self.plan = plan
        self.staging = staging
        self.departures = Departures()
        self.outstanding: Dict[Slice, Operation] = {}
        self._rounds: Dict[Key, int] = {}
        self._versions: Dict[int, int] = {}  # how many operations under way name each
        self._settings = 0
        self._epochs = 0

    def add(self, name: Union[int, str], shape: Tuple[int, ...], dtype: str) -> Key:
        """Add a key and its memory. Runs in the caller's thread, so that an error reaches it."""
        key = self.plan.add(name, shape, dtype)
        for slice_ in key.slices:
            self.staging.outgoing.bucket(slice_.bucket)
            self.staging.incoming.bucket(slice_.bucket)
        return key

    def next_round(self, key: Key) -> int:
        self._rounds[key] = self._rounds.get(key, 0) + 1
        return self._rounds[key]

    def forget_rounds(self) -> None:
        """Begin with round 1 again."""
        self._rounds.clear()

    def next_epoch(self) -> int:
        """The number of the epoch that ends."""
        self._epochs += 1
        return self._epochs

    def next_setting(self) -> int:
        """The serial number of the next SetUpdater or SetHyper."""
        self._settings += 1
        return self._settings

    def announce(self, operation: Operation) -> None:
        """Take note of an operation that will become ready, in program order."""
        if operation.version is not None:
            self._versions[operation.version] = self._versions.get(operation.version, 0) + 1
        self.departures.announce(operation)

    def oldest_version(self, newest: int) -> int:
        """The oldest version that an operation under way names; ``newest`` if none names any."""
        return min(self._versions, default=newest)

    def depart(self, ready: List[Operation]) -> Iterator[Run]:
        """The runs that can leave now that these operations are ready."""
        for operation in ready:
            if operation.kind in ("push", "push_rows") and operation.round is None:
                operation.round = self.next_round(operation.key)
            self.departures.ready(operation)
        return self.departures.take()

    def sent(self, run: Run) -> None:
        """Take note that ``run`` is under way."""
        self.outstanding.update(zip(run.slices, run.operations))

    def unanswered(self, server: Optional[int] = None) -> List[Run]:
        """The slices sent to ``server``, or to any, that are not answered, each as a run.

        Their bytes still lie where they were sent from: the engine waits for the answer.
        """
        return [
            Run((operation,), (slice_,))
            for slice_, operation in self.outstanding.items()
            if server is None or slice_.bucket.server == server
        ]

    def unanswered_nbytes(self, answer: wire.Answer) -> int:
        """How many bytes under way an answer ends."""
        try:
            run = self.plan.run(answer.bucket, answer.first, answer.count)
        except IndexError:
            return 0  # `answered` says what is wrong
        waiting = self.outstanding
        return sum(waiting[slice_].nbytes_in(slice_) for slice_ in run if slice_ in waiting)

    def answered(self, message: wire.Answer, payload: Optional[np.ndarray]) -> List[Operation]:
        """Take an answer's values (bytes). Returns the operations that it completes.

        Without a payload the values lie in ``incoming`` already. A slice without an operation is
        left alone: the engine may be using its place.
        """
        run, staging = self._run(message.bucket, message.first, message.count), self.staging
        start, end = run[0].offset, run[-1].end
        compressed = None
        if message.is_compressed:
            compressed, payload = staging.decompressed(message, run[0], payload)
        if payload is not None and payload.nbytes != end - start:
            raise ProtocolError(f"{payload.nbytes} bytes for {end - start} in {message}")
        waiting = [(slice_, self.outstanding.get(slice_)) for slice_ in run]
        for _, operation in waiting:  # before any of it is taken
            if operation is not None and message.has_value != operation.answer_has_value:
                raise ProtocolError(f"{message} does not answer a {operation.kind}")
        finished = []
        for slice_, operation in waiting:
            values = None
            if message.has_value and payload is not None:
                values = payload[slice_.offset - start : slice_.end - start]
                if compressed is None and staging.received is not None:
                    staging.received.take(slice_, values)
            if operation is None:
                continue
            del self.outstanding[slice_]
            if staging.encoder is not None and operation.kind == "push":
                staging.encoder.answered(slice_)
            if compressed is not None:
                operation.arrived_compressed(*compressed)
            if message.has_value:
                staging.put(operation, slice_, values)
            operation.remaining -= 1
            if not operation.remaining:
                self._forget_version(operation.version)
                finished.append(operation)
        return finished

    def answered_rows(self, message: wire.AnswerRows, payload: np.ndarray) -> List[Operation]:
        """Take the rows of a slice. Returns the operation if they complete it."""
        (slice_,) = self._run(message.bucket, message.position, 1)
        operation = self.outstanding.get(slice_)
        if not isinstance(operation, RowOperation) or operation.kind != "pull_rows":
            return []
        if payload.nbytes != operation.num_rows(slice_) * slice_.row_nbytes:
            raise ProtocolError(f"{payload.nbytes} bytes of rows in {message}")
        del self.outstanding[slice_]
        operation.values[slice_] = payload
        operation.remaining -= 1
        return [] if operation.remaining else [operation]

    def forget_all(self) -> List[Operation]:
        """Give up all operations. Returns those that were sent or ready."""
        operations = {id(op): op for op in self.outstanding.values()}
        operations.update((id(op), op) for op in self.departures.ready_but_waiting())
        self.outstanding.clear()
        return list(operations.values())

    def _run(self, bucket: int, first: int, count: int) -> List[Slice]:
        """The slices that an answer names; raises ProtocolError if there are no such slices."""
        try:
            return self.plan.run(bucket, first, count)
        except IndexError as error:
            raise ProtocolError(str(error)) from error

    def _forget_version(self, version: Optional[int]) -> None:
        """An operation that names the version is done."""
        if version is None:
            return
        self._versions[version] -= 1
        if not self._versions[version]:
            del self._versions[version]
