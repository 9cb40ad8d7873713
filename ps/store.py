"""The synchronous store on a server: merges one contribution of each child per round.

Pure: messages in, answers out; no sockets, no clock, no threads. One instance per store number,
holding the slices that pass through this server. Its children are counted from 0; they are workers
or, on a server further up, the servers below it, each of which speaks for some workers.

A slice's round ends when every active child has contributed. Contributions are added in the
children's order whatever order they arrive in (one that comes early is held), so that a sum is the
same bits in every run. The merged value is handed to ``update`` if there is one (the optimizer),
and replaces the stored value otherwise, as MXNet's own store does. A child that has left counts as
having contributed nothing to the rounds to come.

A server that has servers above it owns nothing: what it has merged *rises* to them (`rising`), and
the round ends when their answer has come (`answered_above`).

Guarantees: a contribution counts once, however often it is sent (its round names it); every
worker that takes part in a round gets that round's value; a pull sees the sender's last push,
because a worker sends it only after that push was answered. What a worker has asked for on a
connection is answered once on that connection: when it connects again, `forget_requests` drops
what it had asked for, keeps what it has contributed, and the worker asks again.
"""

from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from .errors import ProtocolError, UsageError
from .memory import Memory
from .plan import Key, Plan, Slice
from .wire import KeySpec

__all__ = ["Reply", "Rise", "SyncStore", "Wait"]

Updater = Callable[[Slice, np.ndarray, np.ndarray], None]
"""``update(slice, merged, value)`` changes ``value`` in place; both are 1-D."""
Payload = Union[np.ndarray, Memory]
"""The bytes of a run, as uint8, or the memory in which its slices lie."""


class Reply(NamedTuple):
    """An answer to child ``child`` for a run of slices, with their values (`SyncStore.values`)."""

    child: int
    bucket: int
    first: int
    num_slices: int
    has_value: bool


class Wait(NamedTuple):
    """Child ``child`` waits in ``round`` of key ``key`` for the children ``missing``."""

    child: int
    key: str
    round: int
    missing: Tuple[int, ...]


class Rise(NamedTuple):
    """What goes up to the servers above, ``kind`` as an Operation's; ``round`` of a push."""

    kind: str
    slice: Slice
    round: int


class _Slot:
    """A slice at a server that merges it."""

    __slots__ = (
        "above", "accumulator", "asked_init", "askers", "held", "initialised", "pullers", "round",
        "slice", "sum", "turn", "value",
    )  # fmt: skip

    def __init__(
        self,
        slice_: Slice,
        value: np.ndarray,
        accumulator: Optional[np.ndarray],
        turn: Optional[int],
    ) -> None:
        self.slice = slice_
        self.value = value  # 1-D view of the bucket's memory
        self.initialised = False
        self.round = 0  # rounds completed
        self.turn = turn  # the child to be added next; None: all are
        self.sum: Optional[np.ndarray] = None  # of the ranks before ``turn``
        self.accumulator = accumulator  # memory for ``sum``, kept between rounds
        self.held: Dict[int, np.ndarray] = {}  # contributions that wait for their turn
        # child that has contributed -> wants the value when the round is complete; None: it has
        # connected again since, and will ask again
        self.askers: Dict[int, Optional[bool]] = {}
        self.pullers: List[int] = []  # wait for the first value
        self.asked_init = False  # child 0 waits for its first value to be taken
        self.above = ""  # what has risen and is not answered yet: "init", "push", "pull"

    def has(self, child: int) -> bool:
        """Whether ``child`` has contributed to the current round."""
        return child in self.askers

    def add(self, part: np.ndarray, out: Optional[np.ndarray]) -> None:
        """Add to the sum, into ``out`` if given; the first part is taken as it is, uncopied.

        A part that can be written to is itself where the sum grows.
        """
        if self.sum is None:
            self.sum = part
            return
        if out is None and self.accumulator is None and self.sum.flags.writeable:
            out = self.sum
        elif out is None:
            if self.accumulator is None:
                self.accumulator = np.empty_like(self.value)
            out = self.accumulator
        self.sum = np.add(self.sum, part, out=out)


class SyncStore:
    """Slices of one store that server number ``server`` owns, for ``num_children`` children.

    ``names`` are the children's, for messages; ``memory`` is where values lie. With ``outgoing``
    it is the store of a server with servers above it: it takes all slices, and what rises lies
    there. ``has_first`` says whether worker 0, whose first values count, is below it.
    """

    def __init__(
        self,
        server: int,
        plan: Plan,
        num_children: int,
        memory: Optional[Memory] = None,
        outgoing: Optional[Memory] = None,
        names: Sequence[str] = (),
        has_first: bool = True,
    ) -> None:
        self.plan = plan
        self.rising: List[Rise] = []  # to be taken by whoever sends them
        self._outgoing = outgoing
        self.has_first = has_first
        self._names = names or [f"worker {child}" for child in range(num_children)]
        self.update: Optional[Updater] = None
        self._first_has_left = False
        self._settings = 0  # the serial number of the last one
        self._server = server
        self._active = list(range(num_children))
        self._after = _successors(self._active)
        self._declared: Dict[int, int] = dict.fromkeys(self._active, 0)  # child -> number of keys
        self._author: Dict[int, int] = {}  # key number -> the child that declared it first
        self._memory = memory or Memory()  # of the values
        self._slots: Dict[int, List[_Slot]] = {}  # bucket -> its slots, by position

    def __repr__(self) -> str:
        nbytes = self.plan.server_nbytes[self._server]
        return f"SyncStore(server {self._server}, {len(self._slots)} buckets, {nbytes} bytes)"

    # -- events -------------------------------------------------------------------------------

    def declare(self, child: int, first: int, keys: Iterable[KeySpec]) -> None:
        """Take note of a worker's keys ``first ...``; raises UsageError if another's differ.

        Keys that it has declared before, and declares again alike, are passed over.
        """
        if not 0 <= first <= self._declared[child]:
            raise ProtocolError(
                f"{self._names[child]} declared its key number {first} after number "
                f"{self._declared[child]}"
            )
        for number, spec in enumerate(keys, first):
            if number == len(self.plan.keys):
                key = self.plan.add(spec.name, spec.shape, spec.dtype)
                self._author[number] = child
                for slice_ in key.slices:
                    if self._outgoing is not None or slice_.bucket.server == self._server:
                        self._own(slice_)
            elif number >= self._declared[child]:
                self._compare(child, number, spec)
            elif not _is_same(self.plan.keys[number], spec):
                raise ProtocolError(
                    f"{self._names[child]} declared its key number {number} after number "
                    f"{self._declared[child]}, and not as it had before"
                )
            self._declared[child] = max(self._declared[child], number + 1)

    def is_new_setting(self, serial: int) -> bool:
        """Count a SetOptimizer or SetHyper; False if it is a repeat, which must do nothing."""
        if not 0 < serial <= self._settings + 1:
            raise ProtocolError(f"setting number {serial} came after number {self._settings}")
        is_new = serial > self._settings
        self._settings = max(self._settings, serial)
        return is_new

    def init(
        self, child: int, bucket: int, first: int, count: int, payload: Payload
    ) -> List[Reply]:
        """Take child 0's value; answers it and the pulls that waited for a first value."""
        if child != 0:
            raise ProtocolError(f"{self._names[child]} sent an initial value; only rank 0's counts")
        slots = self._run(bucket, first, count)
        replies = []
        for slot, part in zip(slots, self._parts(slots, payload)):
            if self._outgoing is not None and not slot.initialised:
                slot.asked_init = True
                if not slot.above:
                    assert slot.accumulator is not None
                    slot.value[:] = slot.accumulator[:] = part
                    self._rise("init", slot)
                continue
            replies.append(Reply(child, bucket, slot.slice.position, 1, False))
            if not slot.initialised:  # or it is a repeat
                slot.value[:] = part
                slot.initialised = True
                replies += self._answer_pullers(slot)
        return replies

    def push(
        self, child: int, bucket: int, first: int, count: int,
        round_: int, want_value: bool, payload: Payload,
    ) -> List[Reply]:  # fmt: skip
        """Take a contribution; answers everyone for the slices whose round it completes.

        ``payload`` may be kept until its round is complete and must not change meanwhile; if it
        can be written to, it is the store's to do so.
        """
        slots = self._run(bucket, first, count)
        parts = self._parts(slots, payload)
        for slot in slots:  # all of it is refused, or none
            is_new = round_ > slot.round
            if not 0 < round_ <= slot.round + 1 or (is_new and child not in self._active):
                raise ProtocolError(
                    f"{self._names[child]} pushed round {round_} of {slot.slice.key} "
                    f"in round {slot.round + 1}"
                )
        replies: List[Reply] = []
        completed: List[_Slot] = []
        for slot, part in zip(slots, parts):
            if round_ <= slot.round:  # a repeat of something that is counted and done
                replies.append(Reply(child, bucket, slot.slice.position, 1, want_value))
                continue
            is_repeat = slot.has(child)
            slot.askers[child] = want_value
            if not is_repeat:
                slot.held[child] = part
                if self._merge(slot):
                    completed.append(slot)
        return replies + self._complete(completed)

    def pull(self, child: int, bucket: int, first: int, count: int) -> List[Reply]:
        """Answer with the values, now or once child 0 has initialised them."""
        slots = self._run(bucket, first, count)
        if all(slot.initialised for slot in slots):
            return [Reply(child, bucket, first, count, True)]
        if self.has_first and self._first_has_left:
            name = next(slot.slice.key.name for slot in slots if not slot.initialised)
            raise UsageError(f"worker 0 has ended without initialising key {name!r}")
        replies = []
        for slot in slots:
            if slot.initialised:
                replies.append(Reply(child, bucket, slot.slice.position, 1, True))
            else:
                slot.pullers.append(child)
                if not self.has_first and not slot.above:
                    self._rise("pull", slot)
        return replies

    def answered_above(self, slice_: Slice) -> List[Reply]:
        """The servers above have answered what has risen of a slice; its value is there."""
        slot = self._slots[slice_.bucket.index][slice_.position]
        kind, slot.above = slot.above, ""
        if kind == "push":
            return self._end_round([slot])
        slot.initialised = True
        replies = []
        if slot.asked_init:
            slot.asked_init = False
            replies.append(Reply(0, slice_.bucket.index, slice_.position, 1, False))
        return replies + self._answer_pullers(slot)

    def forget_requests(self, child: int) -> None:
        """The worker has a new connection, on which it will ask again for what it waits for.

        Without this, a round that ends before it has asked again would be answered twice, and the
        second answer could be taken for that of the next round.
        """
        for slots in self._slots.values():
            for slot in slots:
                if child in slot.askers:
                    slot.askers[child] = None
                if child == 0:
                    slot.asked_init = False
                slot.pullers = [other for other in slot.pullers if other != child]

    def leave(self, child: int) -> List[Reply]:
        """The child will push no more; rounds that waited only for it are complete."""
        if child not in self._active:
            return []
        successor = self._after[child]
        self._active.remove(child)
        self._after = _successors(self._active)
        completed = []
        for slots in self._slots.values():
            for slot in slots:
                if slot.turn == child:
                    slot.turn = successor
                if slot.askers and not slot.above and self._merge(slot):
                    completed.append(slot)
        return self._complete(completed)

    def lose_first(self) -> None:
        """Worker 0 has ended: what it has not initialised never will be. Raises UsageError."""
        self._first_has_left = True
        if any(s.pullers and not s.above for slots in self._slots.values() for s in slots):
            raise UsageError("worker 0 has ended without initialising a key that others pull")

    def values(self, reply: Reply) -> np.ndarray:
        """What is to be sent with an answer that has a value, as uint8; changes with the value."""
        return self._memory.run(self.plan.run(reply.bucket, reply.first, reply.num_slices))

    # -- what it knows ------------------------------------------------------------------------

    def waits(self) -> List[Wait]:
        """Who waits for whom, one entry per waiting worker: for messages, not for decisions."""
        found: Dict[int, Wait] = {}
        for slots in self._slots.values():
            for slot in slots:
                if slot.above:
                    continue  # whoever is waited for is known there
                name = str(slot.slice.key.name)
                missing = tuple(r for r in self._active if not slot.has(r))
                for child in slot.askers:
                    found.setdefault(child, Wait(child, name, slot.round + 1, missing))
                for child in slot.pullers:
                    found.setdefault(child, Wait(child, name, 0, (0,)))
        return list(found.values())

    # -- inside -------------------------------------------------------------------------------

    def _own(self, slice_: Slice) -> None:
        bucket = slice_.bucket
        value = self._memory.slice(slice_)
        accumulator = None if self._outgoing is None else self._outgoing.slice(slice_)
        slots = self._slots.setdefault(bucket.index, [])
        slots.append(_Slot(slice_, value, accumulator, self._after[_START]))

    def _compare(self, child: int, number: int, spec: KeySpec) -> None:
        key = self.plan.keys[number]
        if _is_same(key, spec):
            return
        author = self._names[self._author[number]]
        if key.name == spec.name:
            raise UsageError(
                f"key {key.name!r} is {key.dtype.name}{key.shape} on {author} and "
                f"{spec.dtype}{tuple(spec.shape)} on {self._names[child]}; "
                "all workers must build the same network"
            )
        raise UsageError(
            f"key number {number} is {key.name!r} {key.dtype.name}{key.shape} on {author} "
            f"and {spec.name!r} {spec.dtype}{tuple(spec.shape)} on {self._names[child]}; "
            "initialise the same keys in the same order on all workers"
        )

    def _run(self, bucket: int, first: int, count: int) -> List[_Slot]:
        """Neighbouring slots of this server; raises ProtocolError for any others."""
        slots = self._slots.get(bucket, [])
        if first >= 0 < count <= len(slots) - first:
            return slots[first : first + count]
        try:
            run = self.plan.run(bucket, first, count)
        except IndexError as error:
            raise ProtocolError(str(error)) from error
        raise ProtocolError(f"{run[0].bucket} is not on server {self._server}")

    @staticmethod
    def _parts(slots: List[_Slot], payload: Payload) -> List[np.ndarray]:
        """The payload of a run, slot by slot."""
        if isinstance(payload, Memory):
            return [payload.slice(slot.slice) for slot in slots]
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
            child = slot.turn
            slot.turn = self._after[child]
            is_last = slot.turn is None and len(slot.held) == 1
            # Without an optimizer the owner's last addition can write the new value itself. No
            # earlier one may: until the round is complete, a pull gets the value of the one before.
            is_value = is_last and self.update is None and self._outgoing is None
            slot.add(slot.held.pop(child), slot.value if is_value else None)
        if slot.turn is not None:
            return False
        for child in sorted(slot.held):  # workers that left after they had pushed
            slot.add(slot.held.pop(child), None)
        return True

    def _complete(self, slots: List[_Slot]) -> List[Reply]:
        """All contributions to a round are merged: update the value, or have it updated above."""
        if self._outgoing is not None:
            for slot in slots:
                assert slot.sum is not None and slot.accumulator is not None
                if slot.sum is not slot.accumulator:
                    slot.accumulator[:] = slot.sum
                self._rise("push", slot)
            return []
        for slot in slots:
            assert slot.sum is not None
            if self.update is not None:
                self.update(slot.slice, slot.sum, slot.value)
            elif slot.sum is not slot.value:
                slot.value[:] = slot.sum
        return self._end_round(slots)

    def _rise(self, kind: str, slot: _Slot) -> None:
        slot.above = kind
        self.rising.append(Rise(kind, slot.slice, slot.round + 1))

    def _end_round(self, slots: List[_Slot]) -> List[Reply]:
        """The new value is there: answer whoever waits for it."""
        replies: List[Reply] = []
        for slot in slots:
            slot.initialised = True
            slot.sum = None
            slot.turn = self._after[_START]
            slot.round += 1
        for bucket, first, count, askers in _alike(slots):
            for child, want_value in askers.items():
                if want_value is not None:
                    replies.append(Reply(child, bucket, first, count, want_value))
        for slot in slots:
            slot.askers = {}
            replies += self._answer_pullers(slot)
        return replies

    def _answer_pullers(self, slot: _Slot) -> List[Reply]:
        """There is a first value: answer those who waited for one."""
        pullers = slot.pullers
        if not pullers:
            return []
        slot.pullers = []
        where = slot.slice.bucket.index, slot.slice.position
        return [Reply(child, *where, 1, True) for child in pullers]


def _is_same(key: Key, spec: KeySpec) -> bool:
    return (key.name, key.shape, key.dtype.name) == (spec.name, tuple(spec.shape), spec.dtype)


_START = -1


def _successors(active: List[int]) -> Dict[int, Optional[int]]:
    """Who comes after whom in child order, from `_START` to None."""
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
