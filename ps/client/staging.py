"""One store in a worker: its plan, its staging memory, and its operations under way. Pure.

The staging memory has a place for every key, laid out as the plan says, a key that spans buckets in
one piece. What is sent lies in ``outgoing``, what has arrived in ``incoming``; the two are one and
the same where the host shares no memory, since a place is not filled again before its answer has
come. An operation that names its own source and targets goes without: only what must lie together,
the fused slices of small keys, is put there.

Over a shared link no bytes travel: the server reads ``outgoing``, and ``incoming`` is what the
host's servers write.
"""

from typing import Dict, Iterator, List, Optional, Tuple, Union

import numpy as np

from .. import wire
from ..answers import Compressed, Received
from ..compression import Compression, Encoder
from ..errors import ProtocolError
from ..memory import Memory
from ..plan import Key, Plan, Slice
from .departures import Departures, Operation, Run, runs_of
from .row_operation import RowOperation

__all__ = ["WorkerStore"]


class WorkerStore:
    """One store's plan, staging memory and operations under way."""

    def __init__(self, number: int, plan: Plan, outgoing: Memory, incoming: Memory) -> None:
        self.number = number
        self.plan = plan
        self.outgoing = outgoing
        self.incoming = incoming
        self.departures = Departures()
        self.outstanding: Dict[Slice, Operation] = {}
        self._rounds: Dict[Key, int] = {}
        self._versions: Dict[int, int] = {}  # how many operations under way name each
        self._settings = 0
        self._epochs = 0
        self._encoder: Optional[Encoder] = None  # if pushes are compressed
        self._received: Optional[Received] = None  # if answers are

    def compress(self, compression: Compression) -> None:
        """Compress what is pushed from now on, where bytes travel."""
        self._encoder = Encoder(compression)
        self._received = Received(compression) if compression.answers else None

    def add(self, name: Union[int, str], shape: Tuple[int, ...], dtype: str) -> Key:
        """Add a key and its memory: in its user's thread, who is told if there is none left."""
        key = self.plan.add(name, shape, dtype)
        for slice_ in key.slices:
            self.outgoing.bucket(slice_.bucket)
            self.incoming.bucket(slice_.bucket)
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
        """The oldest that what is under way names, or may name if ``newest`` is the last one."""
        return min(self._versions, default=newest)

    def depart(self, ready: List[Operation]) -> Iterator[Run]:
        """What can leave now that these are ready."""
        for operation in ready:
            if operation.kind in ("push", "push_rows") and operation.round is None:
                operation.round = self.next_round(operation.key)
            self.departures.ready(operation)
        return self.departures.take()

    def sent(self, run: Run) -> None:
        """Take note that ``run`` is to be answered from now on."""
        self.outstanding.update(zip(run.slices, run.operations))

    def unanswered(self, server: Optional[int] = None) -> List[Run]:
        """What was sent, to ``server`` or to any, and is not answered, slice by slice.

        It still lies where it was sent from: that is not the engine's before the answer.
        """
        return [
            Run((operation,), (slice_,))
            for slice_, operation in self.outstanding.items()
            if server is None or slice_.bucket.server == server
        ]

    def unanswered_nbytes(self, answer: wire.Answer) -> int:
        """How many bytes of slices that wait for it an answer is for."""
        try:
            run = self.plan.run(answer.bucket, answer.first, answer.count)
        except IndexError:
            return 0  # `answered` says what is wrong
        waiting = self.outstanding
        return sum(waiting[slice_].nbytes_in(slice_) for slice_ in run if slice_ in waiting)

    def apart(self, run: Run) -> Iterator[Run]:
        """A run as the runs that it travels in: each slice that is compressed is one of its own."""
        if self._encoder is None or run.operations[0].kind != "push":
            yield run
            return
        together: List[Tuple[Operation, Slice]] = []
        for operation, slice_ in zip(run.operations, run.slices):
            if not self._encoder.takes(slice_):
                together.append((operation, slice_))
                continue
            yield from runs_of(together)
            together = []
            yield Run((operation,), (slice_,))
        yield from runs_of(together)

    def message(
        self, run: Run, is_shared: bool = False
    ) -> Tuple[wire.Message, Optional[np.ndarray]]:
        """Header and payload of a run. Over a link that is not shared, of a run of `apart`."""
        if run.is_framed:
            return self.framed(run)
        if is_shared:
            self.fill(run)
            return self.header(run), None
        payload, encoder = self.payload(run), self._encoder
        if encoder is None or run.operations[0].kind != "push" or not encoder.takes(run.slices[0]):
            return self.header(run), payload
        assert payload is not None and len(run.slices) == 1
        return self.header(run, is_compressed=True), encoder.payload(run.slices[0], payload)

    def header(self, run: Run, is_compressed: bool = False) -> wire.Run:
        operation, first = run.operations[0], run.slices[0]
        where = (self.number, first.bucket.index, first.position, len(run.slices))
        if operation.kind == "pull":
            return wire.Pull(*where)
        if operation.kind == "init":
            return wire.Init(*where)
        assert operation.round is not None
        return wire.Push(
            *where, operation.round, operation.want_value, is_compressed, operation.version
        )

    def payload(self, run: Run) -> Optional[np.ndarray]:
        """The bytes of a run, as uint8, in one piece; None if it has none."""
        operation, first = run.operations[0], run.slices[0]
        if operation.kind == "pull":
            return None
        if len(run.slices) == 1 and operation.source is not None:
            return operation.source[first.at : first.at + first.nbytes]
        self.fill(run)
        return self.outgoing.run(run.slices)

    def framed(self, run: Run) -> Tuple[Union[wire.PushRows, wire.PullRows], np.ndarray]:
        """Header and payload of a run of rows."""
        operation, slice_ = run.operations[0], run.slices[0]
        assert isinstance(operation, RowOperation)
        where = (self.number, slice_.bucket.index, slice_.position)
        payload = operation.payloads[slice_]
        if operation.kind == "pull_rows":
            return wire.PullRows(*where), payload
        assert operation.round is not None
        return wire.PushRows(*where, operation.round, operation.version), payload

    def fill(self, run: Run) -> None:
        """Put the bytes of a run where they are sent from, if they are not there."""
        for operation, slice_ in zip(run.operations, run.slices):
            source, at = operation.source, slice_.at
            if source is not None:
                place = self.outgoing.bucket(slice_.bucket)[slice_.offset : slice_.end]
                place[:] = source[at : at + slice_.nbytes]

    def answered(self, message: wire.Answer, payload: Optional[np.ndarray]) -> List[Operation]:
        """Take an answer's values (bytes); returns the operations that it completes.

        Without a payload the values lie in ``incoming`` already. A slice that nothing waits for is
        left alone: where it would go may be the engine's.
        """
        try:
            run = self.plan.run(message.bucket, message.first, message.count)
        except IndexError as error:
            raise ProtocolError(str(error)) from error
        start, end = run[0].offset, run[-1].end
        compressed = None
        if message.is_compressed:
            compressed, payload = self._decompressed(message, run[0], payload)
        if payload is not None and payload.nbytes != end - start:
            raise ProtocolError(f"{payload.nbytes} bytes for {end - start} in {message}")
        waiting = [(slice_, self.outstanding.get(slice_)) for slice_ in run]
        for _, operation in waiting:  # all of it is refused, or none
            if operation is not None and message.has_value != _wants_value(operation):
                raise ProtocolError(f"{message} for who has asked for a {operation.kind}")
        finished = []
        for slice_, operation in waiting:
            values = None
            if message.has_value and payload is not None:
                values = payload[slice_.offset - start : slice_.end - start]
                if compressed is None and self._received is not None:
                    self._received.take(slice_, values)
            if operation is None:
                continue
            del self.outstanding[slice_]
            if self._encoder is not None and operation.kind == "push":
                self._encoder.answered(slice_)
            if compressed is not None:
                operation.arrived_compressed(*compressed)
            if message.has_value:
                self._take_value(operation, slice_, values)
            operation.remaining -= 1
            if not operation.remaining:
                self._forget_version(operation.version)
                finished.append(operation)
        return finished

    def _forget_version(self, version: Optional[int]) -> None:
        """One operation that names it is done."""
        if version is None:
            return
        self._versions[version] -= 1
        if not self._versions[version]:
            del self._versions[version]

    def _decompressed(
        self, message: wire.Answer, slice_: Slice, payload: Optional[np.ndarray]
    ) -> Tuple[Compressed, np.ndarray]:
        if payload is None or message.count != 1 or self._received is None:
            raise ProtocolError(f"{message} is compressed, and should not be")
        compressed = Compressed(payload, message.is_change)
        return compressed, self._received.decode(slice_, compressed)

    def answered_rows(self, message: wire.AnswerRows, payload: np.ndarray) -> List[Operation]:
        """Take the rows of a slice; returns the operation, if that completes it."""
        try:
            (slice_,) = self.plan.run(message.bucket, message.position, 1)
        except IndexError as error:
            raise ProtocolError(str(error)) from error
        operation = self.outstanding.get(slice_)
        if not isinstance(operation, RowOperation) or operation.kind != "pull_rows":
            return []
        if payload.nbytes != operation.num_rows(slice_) * slice_.row_nbytes:
            raise ProtocolError(f"{payload.nbytes} bytes of rows in {message}")
        del self.outstanding[slice_]
        operation.values[slice_] = payload
        operation.remaining -= 1
        return [] if operation.remaining else [operation]

    def _take_value(
        self, operation: Operation, slice_: Slice, values: Optional[np.ndarray]
    ) -> None:
        if operation.targets is None:
            if values is not None:
                self.incoming.bucket(slice_.bucket)[slice_.offset : slice_.end] = values
            return
        if values is None:
            values = self.incoming.run((slice_,))
        for target in operation.targets:
            target[slice_.at : slice_.at + slice_.nbytes] = values

    def forget_all(self) -> List[Operation]:
        operations = {id(op): op for op in self.outstanding.values()}
        operations.update((id(op), op) for op in self.departures.ready_but_waiting())
        self.outstanding.clear()
        return list(operations.values())


def _wants_value(operation: Operation) -> Optional[bool]:
    """Whether an Answer to it comes with a value; None if an Answer is none to it."""
    if operation.kind == "pull_rows":
        return None
    return operation.kind == "pull" or (operation.kind == "push" and operation.want_value)
