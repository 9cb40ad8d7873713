"""The synchronous store on a server: merges one contribution of each worker per round.

Pure: messages in, answers out; no sockets, no clock, no threads. One instance per store number,
holding the slices that this server owns.

A slice's round ends when every active worker has contributed. Contributions are added in rank
order whatever order they arrive in (one that comes early is held), so that a sum is the same bits
in every run. The merged value is handed to ``update`` if there is one (the optimizer), and
replaces the stored value otherwise, as MXNet's own store does. A worker that has left counts as
having contributed nothing to the rounds to come.

Guarantees: a contribution counts once, however often it is sent (its round names it); every
worker that takes part in a round gets that round's value; a pull sees the sender's last push,
because a worker sends it only after that push was answered. What a worker has asked for on a
connection is answered once on that connection: when it connects again, `forget_requests` drops
what it had asked for, keeps what it has contributed, and the worker asks again.
"""

from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple

import numpy as np

from .errors import ProtocolError, UsageError
from .plan import Key, Plan, Slice
from .wire import KeySpec

__all__ = ["Reply", "SyncStore", "Wait"]

Updater = Callable[[Slice, np.ndarray, np.ndarray], None]
"""``update(slice, merged, value)`` changes ``value`` in place; both are 1-D."""


class Reply(NamedTuple):
    """An answer to worker ``rank`` for a run of slices; ``payload`` is uint8 bytes or None."""

    rank: int
    bucket: int
    first: int
    num_slices: int
    payload: Optional[np.ndarray]


class Wait(NamedTuple):
    """Worker ``rank`` waits in ``round`` of key ``key`` for the workers ``missing``."""

    rank: int
    key: str
    round: int
    missing: Tuple[int, ...]


class _Slot:
    """A slice at its owner."""

    __slots__ = (
        "accumulator", "askers", "held", "initialised", "pullers", "round", "slice", "sum", "turn",
        "value",
    )  # fmt: skip

    def __init__(self, slice_: Slice, value: np.ndarray, turn: Optional[int]) -> None:
        self.slice = slice_
        self.value = value  # 1-D view of the bucket's memory
        self.initialised = False
        self.round = 0  # rounds completed
        self.turn = turn  # the rank to be added next; None: all are
        self.sum: Optional[np.ndarray] = None  # of the ranks before ``turn``
        self.accumulator: Optional[np.ndarray] = None  # memory for ``sum``, kept between rounds
        self.held: Dict[int, np.ndarray] = {}  # contributions that wait for their turn
        # rank that has contributed -> wants the value when the round is complete; None: it has
        # connected again since, and will ask again
        self.askers: Dict[int, Optional[bool]] = {}
        self.pullers: List[int] = []  # wait for the first value

    def has(self, rank: int) -> bool:
        """Whether ``rank`` has contributed to the current round."""
        return rank in self.askers

    def add(self, part: np.ndarray, out: Optional[np.ndarray]) -> None:
        """Add to the sum, into ``out`` if given; the first part is taken as it is, uncopied."""
        if self.sum is None:
            self.sum = part
            return
        if out is None:
            if self.accumulator is None:
                self.accumulator = np.empty_like(self.value)
            out = self.accumulator
        self.sum = np.add(self.sum, part, out=out)


class SyncStore:
    """Slices of one store that server number ``server`` owns, for ``num_workers`` workers."""

    def __init__(self, server: int, plan: Plan, num_workers: int) -> None:
        self.plan = plan
        self.update: Optional[Updater] = None
        self._settings = 0  # the serial number of the last one
        self._server = server
        self._active = list(range(num_workers))
        self._after = _successors(self._active)
        self._declared: Dict[int, int] = dict.fromkeys(self._active, 0)  # rank -> number of keys
        self._author: Dict[int, int] = {}  # key number -> the rank that declared it first
        self._memory: Dict[int, np.ndarray] = {}  # bucket -> its bytes
        self._slots: Dict[int, List[_Slot]] = {}  # bucket -> its slots, by position

    def __repr__(self) -> str:
        nbytes = self.plan.server_nbytes[self._server]
        return f"SyncStore(server {self._server}, {len(self._slots)} buckets, {nbytes} bytes)"

    # -- events -------------------------------------------------------------------------------

    def declare(self, rank: int, first: int, keys: Iterable[KeySpec]) -> None:
        """Take note of a worker's keys ``first ...``; raises UsageError if another's differ.

        Keys that it has declared before, and declares again alike, are passed over.
        """
        if not 0 <= first <= self._declared[rank]:
            raise ProtocolError(
                f"worker {rank} declared its key number {first} after number {self._declared[rank]}"
            )
        for number, spec in enumerate(keys, first):
            if number == len(self.plan.keys):
                key = self.plan.add(spec.name, spec.shape, spec.dtype)
                self._author[number] = rank
                for slice_ in key.slices:
                    if slice_.bucket.server == self._server:
                        self._own(slice_)
            elif number >= self._declared[rank]:
                self._compare(rank, number, spec)
            elif not _is_same(self.plan.keys[number], spec):
                raise ProtocolError(
                    f"worker {rank} declared its key number {number} after number "
                    f"{self._declared[rank]}, and not as it had before"
                )
            self._declared[rank] = max(self._declared[rank], number + 1)

    def is_new_setting(self, serial: int) -> bool:
        """Count a SetOptimizer or SetHyper; False if it is a repeat, which must do nothing."""
        if not 0 < serial <= self._settings + 1:
            raise ProtocolError(f"setting number {serial} came after number {self._settings}")
        is_new = serial > self._settings
        self._settings = max(self._settings, serial)
        return is_new

    def init(
        self, rank: int, bucket: int, first: int, count: int, payload: np.ndarray
    ) -> List[Reply]:
        """Take rank 0's value; answers it and the pulls that waited for a first value."""
        if rank != 0:
            raise ProtocolError(f"worker {rank} sent an initial value; only rank 0's counts")
        slots = self._run(bucket, first, count)
        replies = [Reply(rank, bucket, first, count, None)]
        for slot, part in zip(slots, self._parts(slots, payload)):
            if slot.initialised:
                continue  # a repeat
            slot.value[:] = part
            slot.initialised = True
            replies += self._answer_pullers(slot)
        return replies

    def push(
        self, rank: int, bucket: int, first: int, count: int,
        round_: int, want_value: bool, payload: np.ndarray,
    ) -> List[Reply]:  # fmt: skip
        """Take a contribution; answers everyone for the slices whose round it completes.

        ``payload`` may be kept until its round is complete and must not change.
        """
        slots = self._run(bucket, first, count)
        parts = self._parts(slots, payload)
        for slot in slots:  # all of it is refused, or none
            is_new = round_ > slot.round
            if not 0 < round_ <= slot.round + 1 or (is_new and rank not in self._active):
                raise ProtocolError(
                    f"worker {rank} pushed round {round_} of {slot.slice.key} "
                    f"in round {slot.round + 1}"
                )
        replies: List[Reply] = []
        completed: List[_Slot] = []
        for slot, part in zip(slots, parts):
            if round_ <= slot.round:  # a repeat of something that is counted and done
                position = slot.slice.position
                replies.append(self._reply(rank, bucket, position, 1, want_value))
                continue
            is_repeat = slot.has(rank)
            slot.askers[rank] = want_value
            if not is_repeat:
                slot.held[rank] = part
                if self._merge(slot):
                    completed.append(slot)
        return replies + self._complete(completed)

    def pull(self, rank: int, bucket: int, first: int, count: int) -> List[Reply]:
        """Answer with the values, now or once rank 0 has initialised them."""
        slots = self._run(bucket, first, count)
        if all(slot.initialised for slot in slots):
            return [self._value(rank, bucket, first, count)]
        if 0 not in self._active:
            name = next(slot.slice.key.name for slot in slots if not slot.initialised)
            raise UsageError(f"worker 0 has ended without initialising key {name!r}")
        replies = []
        for slot in slots:
            if slot.initialised:
                replies.append(self._value(rank, bucket, slot.slice.position, 1))
            else:
                slot.pullers.append(rank)
        return replies

    def forget_requests(self, rank: int) -> None:
        """The worker has a new connection, on which it will ask again for what it waits for.

        Without this, a round that ends before it has asked again would be answered twice, and the
        second answer could be taken for that of the next round.
        """
        for slots in self._slots.values():
            for slot in slots:
                if rank in slot.askers:
                    slot.askers[rank] = None
                slot.pullers = [other for other in slot.pullers if other != rank]

    def leave(self, rank: int) -> List[Reply]:
        """The worker will push no more; rounds that waited only for it are complete."""
        if rank not in self._active:
            return []
        if rank == 0 and any(s.pullers for slots in self._slots.values() for s in slots):
            raise UsageError("worker 0 has ended without initialising a key that others pull")
        successor = self._after[rank]
        self._active.remove(rank)
        self._after = _successors(self._active)
        completed = []
        for slots in self._slots.values():
            for slot in slots:
                if slot.turn == rank:
                    slot.turn = successor
                if slot.askers and self._merge(slot):
                    completed.append(slot)
        return self._complete(completed)

    # -- what it knows ------------------------------------------------------------------------

    def waits(self) -> List[Wait]:
        """Who waits for whom, one entry per waiting worker: for messages, not for decisions."""
        found: Dict[int, Wait] = {}
        for slots in self._slots.values():
            for slot in slots:
                name = str(slot.slice.key.name)
                missing = tuple(r for r in self._active if not slot.has(r))
                for rank in slot.askers:
                    found.setdefault(rank, Wait(rank, name, slot.round + 1, missing))
                for rank in slot.pullers:
                    found.setdefault(rank, Wait(rank, name, 0, (0,)))
        return list(found.values())

    # -- inside -------------------------------------------------------------------------------

    def _own(self, slice_: Slice) -> None:
        bucket = slice_.bucket
        if bucket.index not in self._memory:
            self._memory[bucket.index] = np.zeros(bucket.capacity, np.uint8)
            self._slots[bucket.index] = []
        memory = self._memory[bucket.index]
        value = memory[slice_.offset : slice_.end].view(bucket.dtype)
        self._slots[bucket.index].append(_Slot(slice_, value, self._after[_START]))

    def _compare(self, rank: int, number: int, spec: KeySpec) -> None:
        key = self.plan.keys[number]
        if _is_same(key, spec):
            return
        author = self._author[number]
        if key.name == spec.name:
            raise UsageError(
                f"key {key.name!r} is {key.dtype.name}{key.shape} on worker {author} and "
                f"{spec.dtype}{tuple(spec.shape)} on worker {rank}; "
                "all workers must build the same network"
            )
        raise UsageError(
            f"key number {number} is {key.name!r} {key.dtype.name}{key.shape} on worker {author} "
            f"and {spec.name!r} {spec.dtype}{tuple(spec.shape)} on worker {rank}; "
            "initialise the same keys in the same order on all workers"
        )

    def _run(self, bucket: int, first: int, count: int) -> List[_Slot]:
        try:
            run = self.plan.run(bucket, first, count)
        except IndexError as error:
            raise ProtocolError(str(error)) from error
        if run[0].bucket.server != self._server:
            raise ProtocolError(f"{run[0].bucket} is not on server {self._server}")
        return self._slots[bucket][first : first + count]

    def _parts(self, slots: List[_Slot], payload: np.ndarray) -> List[np.ndarray]:
        """The payload of a run, slot by slot."""
        start, end = slots[0].slice.offset, slots[-1].slice.end
        if payload.nbytes != end - start:
            raise ProtocolError(
                f"{payload.nbytes} bytes for {len(slots)} slices of {slots[0].slice.bucket}, "
                f"which take {end - start}"
            )
        return [
            payload[slot.slice.offset - start : slot.slice.end - start].view(
                slot.slice.bucket.dtype
            )
            for slot in slots
        ]

    def _merge(self, slot: _Slot) -> bool:
        """Add the held contributions whose turn it is; True if the round is complete."""
        while slot.turn in slot.held:
            rank = slot.turn
            slot.turn = self._after[rank]
            is_last = slot.turn is None and len(slot.held) == 1
            # Without an optimizer the last addition can write the new value itself. No earlier
            # one may: until the round is complete, a pull gets the value of the round before.
            slot.add(slot.held.pop(rank), slot.value if is_last and self.update is None else None)
        if slot.turn is not None:
            return False
        for rank in sorted(slot.held):  # workers that left after they had pushed
            slot.add(slot.held.pop(rank), None)
        return True

    def _complete(self, slots: List[_Slot]) -> List[Reply]:
        replies: List[Reply] = []
        for slot in slots:
            assert slot.sum is not None
            if self.update is not None:
                self.update(slot.slice, slot.sum, slot.value)
            elif slot.sum is not slot.value:
                slot.value[:] = slot.sum
            slot.initialised = True
            slot.sum = None
            slot.turn = self._after[_START]
            slot.round += 1
        for bucket, first, count, askers in _alike(slots):
            for rank, want_value in askers.items():
                if want_value is not None:
                    replies.append(self._reply(rank, bucket, first, count, want_value))
        for slot in slots:
            slot.askers = {}
            replies += self._answer_pullers(slot)
        return replies

    def _answer_pullers(self, slot: _Slot) -> List[Reply]:
        """There is a first value: answer those who waited for one."""
        where = slot.slice.bucket.index, slot.slice.position
        replies = [self._value(rank, *where, 1) for rank in slot.pullers]
        slot.pullers.clear()
        return replies

    def _reply(self, rank: int, bucket: int, first: int, count: int, want_value: bool) -> Reply:
        if want_value:
            return self._value(rank, bucket, first, count)
        return Reply(rank, bucket, first, count, None)

    def _value(self, rank: int, bucket: int, first: int, count: int) -> Reply:
        slots = self._slots[bucket]
        start, end = slots[first].slice.offset, slots[first + count - 1].slice.end
        return Reply(rank, bucket, first, count, self._memory[bucket][start:end])


def _is_same(key: Key, spec: KeySpec) -> bool:
    return (key.name, key.shape, key.dtype.name) == (spec.name, tuple(spec.shape), spec.dtype)


_START = -1


def _successors(active: List[int]) -> Dict[int, Optional[int]]:
    """Who comes after whom in rank order, from `_START` to None."""
    return dict(zip([_START, *active], [*active, None]))


def _alike(slots: List[_Slot]) -> Iterable[Tuple[int, int, int, Dict[int, Optional[bool]]]]:
    """Runs ``(bucket, first, count, askers)`` of neighbouring slots with the same askers."""
    start = 0
    for end in range(1, len(slots) + 1):
        head = slots[start]
        if end < len(slots):
            slice_ = slots[end].slice
            if (
                slice_.bucket is head.slice.bucket
                and slice_.position == head.slice.position + end - start
                and slots[end].askers == head.askers
            ):
                continue
        yield head.slice.bucket.index, head.slice.position, end - start, head.askers
        start = end
