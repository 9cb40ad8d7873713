"""When a worker's slices leave: a bucket's small ones together, and none later than it must. Pure.

Operations are *announced* in program order, by the main thread when the script calls the store.
They become *ready* in any order, when the engine has computed the gradient. Within a bucket they
leave in the order of announcement. So a ready operation waits for those announced before it, and
never for those announced after it.

That rule makes fusing safe. The backward pass finishes the last layer first. So most of a bucket is
ready when its first key is, and it leaves as one message. Nor can it dead-lock: an operation
depends on earlier ones only. The next step's operations, which are announced long before this
step's are done, depend on this step's answers.
"""

from collections import defaultdict, deque
from typing import (
    DefaultDict,
    Deque,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

import numpy as np

from ..plan import Bucket, Key, Slice

__all__ = ["Departures", "Operation", "Run", "runs_of"]


class Operation:
    """One `init`, `push`, `pull` or `pushpull` of a key.

    A subclass overrides `done`.

    ``source`` is the array to send: all bytes of the key, as uint8. None means the key's place in
    the staging memory. ``targets`` are the arrays for the values, in the same form, or None for
    that place. Both belong to the store from the time the operation is ready until it is done.

    ``round`` is None until it is known, and for an operation that contributes to none. ``version``
    is that of a Push. ``slices`` are some or all of the key's.
    """

    is_framed = False  # each slice travels by itself, in a frame even over a shared link

    __slots__ = (
        "answer_has_value", "is_ready", "key", "kind", "priority", "remaining", "round", "slices",
        "source", "targets", "version", "want_value",
    )  # fmt: skip

    def __init__(
        self,
        kind: str,
        key: Key,
        want_value: bool,
        priority: int = 0,
        slices: Sequence[Slice] = (),
    ) -> None:
        self.kind = kind  # "init", "push", "pull", "push_rows" or "pull_rows"
        self.key = key
        self.want_value = want_value
        # Of its Answer; None if that is an AnswerRows.
        self.answer_has_value: Optional[bool] = (
            None if kind == "pull_rows" else kind == "pull" or (kind == "push" and want_value)
        )
        self.priority = priority
        self.source: Optional[np.ndarray] = None
        self.targets: Optional[Sequence[np.ndarray]] = None
        self.is_ready = False
        self.round: Optional[int] = None
        self.version: Optional[int] = None
        self.slices = slices or key.slices
        self.remaining = len(self.slices)  # not yet answered

    def done(self, error: Optional[str]) -> None:
        """The operation is answered, or has failed and never will be."""

    def arrived_compressed(self, payload: np.ndarray, is_change: bool) -> None:
        """A slice's value has arrived compressed (see wire.Answer). A relay passes it on as is."""

    def nbytes_in(self, slice_: Slice) -> int:
        """How many bytes of a slice travel."""
        return slice_.nbytes

    def slice_in(self, bucket: Bucket) -> Slice:
        """The operation's slice in a bucket. A key in several buckets has them for itself."""
        return self.slices[0] if len(self.slices) == 1 else bucket.slices[0]

    def __repr__(self) -> str:
        return f"Operation({self.kind} {self.key.name!r}, {self.remaining} slices to go)"


class Run(NamedTuple):
    """Neighbouring slices of a bucket that leave as one message."""

    operations: Tuple[Operation, ...]  # one per slice
    slices: Tuple[Slice, ...]

    @property
    def nbytes(self) -> int:
        """Without padding."""
        return sum(op.nbytes_in(slice_) for op, slice_ in zip(self.operations, self.slices))

    @property
    def is_framed(self) -> bool:
        return self.operations[0].is_framed

    @property
    def priority(self) -> int:
        return max(operation.priority for operation in self.operations)


class Departures:
    """The operations of one store that have been announced and have not left."""

    def __init__(self) -> None:
        # bucket -> the operations that wait in it, oldest first
        self._waiting: DefaultDict[Bucket, Deque[Operation]] = defaultdict(deque)
        self._touched: Dict[Bucket, None] = {}  # buckets of the operations that became ready

    def announce(self, operation: Operation) -> None:
        for slice_ in operation.slices:
            self._waiting[slice_.bucket].append(operation)

    def ready(self, operation: Operation) -> None:
        operation.is_ready = True
        for slice_ in operation.slices:
            self._touched[slice_.bucket] = None

    def take(self) -> Iterator[Run]:
        """The slices that can leave now, in as few runs as possible."""
        touched, self._touched = self._touched, {}
        for bucket in touched:
            waiting = self._waiting[bucket]
            leaving = []
            while waiting and waiting[0].is_ready:
                operation = waiting.popleft()
                leaving.append((operation, operation.slice_in(bucket)))
            yield from runs_of(leaving)

    def ready_but_waiting(self) -> List[Operation]:
        """The ready operations among those that wait. Forgets all that wait."""
        ready = [op for waiting in self._waiting.values() for op in waiting if op.is_ready]
        self._waiting.clear()
        self._touched.clear()
        return ready


def runs_of(leaving: List[Tuple[Operation, Slice]]) -> Iterator[Run]:
    """Group slices of one bucket into as few runs as possible."""
    leaving.sort(key=lambda pair: pair[1].position)  # stable: a slice's own order is kept
    start = 0
    for end in range(1, len(leaving) + 1):
        if end < len(leaving) and _adjoins(leaving[end - 1], leaving[end]):
            continue
        operations, slices = zip(*leaving[start:end])
        yield Run(operations, slices)
        start = end


def _adjoins(left: Tuple[Operation, Slice], right: Tuple[Operation, Slice]) -> bool:
    a, b = left[0], right[0]
    if a.is_framed:
        return False
    return right[1].position == left[1].position + 1 and (
        (a.kind, a.round, a.want_value, a.version) == (b.kind, b.round, b.want_value, b.version)
    )
