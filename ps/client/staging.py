"""The bytes of one store in a worker: where they leave from, where they arrive. Pure.

The staging memory has a place for each key, laid out as the plan says. A key that spans buckets
lies in one piece. Gradients leave from ``outgoing`` and values arrive in ``incoming``. The two are
the same memory where tasks share none, because a place is not filled again before its answer has
come. An operation that names its own source and targets does not use its place, unless its slice
travels in one piece with its neighbours.

Over a shared link no bytes travel: the server reads ``outgoing``, and the servers of the host write
``incoming``.
"""

from typing import Iterator, List, Optional, Tuple, Union

import numpy as np

from .. import wire
from ..answers import Compressed, Received
from ..compression import Compression, Encoder
from ..errors import ProtocolError
from ..memory import Memory
from ..plan import Slice
from .departures import Operation, Run, runs_of
from .row_operation import RowOperation

__all__ = ["Staging"]


class Staging:
    """The memory of store ``number``, the headers that name it, and what compression keeps."""

    def __init__(self, number: int, outgoing: Memory, incoming: Memory) -> None:
        self.outgoing = outgoing
        self.incoming = incoming
        self.encoder: Optional[Encoder] = None  # if pushes are compressed
        self.received: Optional[Received] = None  # if answers are
        self._number = number

    def compress(self, compression: Compression) -> None:
        """Compress pushes from now on, on links that are not shared."""
        self.encoder = Encoder(compression)
        self.received = Received(compression) if compression.answers else None

    def apart(self, run: Run) -> Iterator[Run]:
        """Cut a run so that each compressed slice travels by itself."""
        if self.encoder is None or run.operations[0].kind != "push":
            yield run
            return
        together: List[Tuple[Operation, Slice]] = []
        for operation, slice_ in zip(run.operations, run.slices):
            if not self.encoder.takes(slice_):
                together.append((operation, slice_))
                continue
            yield from runs_of(together)
            together = []
            yield Run((operation,), (slice_,))
        yield from runs_of(together)

    def message(
        self, run: Run, is_shared: bool = False
    ) -> Tuple[wire.Message, Optional[np.ndarray]]:
        """Header and payload of a run.

        Over a shared link the bytes travel by `fill`, and the header alone is sent. Otherwise it
        is a run from `apart`.
        """
        if run.is_framed:
            return self.framed(run)
        if is_shared:
            return self.header(run), None
        payload, encoder = self.payload(run), self.encoder
        if encoder is None or run.operations[0].kind != "push" or not encoder.takes(run.slices[0]):
            return self.header(run), payload
        assert payload is not None and len(run.slices) == 1
        return self.header(run, is_compressed=True), encoder.payload(run.slices[0], payload)

    def header(self, run: Run, is_compressed: bool = False) -> wire.Run:
        operation, first = run.operations[0], run.slices[0]
        where = (self._number, first.bucket.index, first.position, len(run.slices))
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
        where = (self._number, slice_.bucket.index, slice_.position)
        payload = operation.payloads[slice_]
        if operation.kind == "pull_rows":
            return wire.PullRows(*where), payload
        assert operation.round is not None
        return wire.PushRows(*where, operation.round, operation.version), payload

    def fill(self, run: Run) -> None:
        """Copy the bytes of a run to ``outgoing``, unless they are there, or it has none there."""
        if run.is_framed:
            return
        for operation, slice_ in zip(run.operations, run.slices):
            source, at = operation.source, slice_.at
            if source is not None:
                place = self.outgoing.bucket(slice_.bucket)[slice_.offset : slice_.end]
                place[:] = source[at : at + slice_.nbytes]

    def decompressed(
        self, message: wire.Answer, slice_: Slice, payload: Optional[np.ndarray]
    ) -> Tuple[Compressed, np.ndarray]:
        """The payload of an answer as it came, and the value that it stands for."""
        if payload is None or message.count != 1 or self.received is None:
            raise ProtocolError(f"{message} is compressed, but its store or run cannot be")
        compressed = Compressed(payload, message.is_change)
        return compressed, self.received.decode(slice_, compressed)

    def put(self, operation: Operation, slice_: Slice, values: Optional[np.ndarray]) -> None:
        """Put a slice's value where the operation wants it. None: it lies in ``incoming``."""
        if operation.targets is None:
            if values is not None:
                self.incoming.bucket(slice_.bucket)[slice_.offset : slice_.end] = values
            return
        if values is None:
            values = self.incoming.run((slice_,))
        for target in operation.targets:
            target[slice_.at : slice_.at + slice_.nbytes] = values
