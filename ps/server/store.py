"""What every store on a server does: keys, first values, pulls; its kinds differ in their pushes.

Pure: messages in, answers out; no sockets, no clock, no threads. One instance per store number,
holding the slices that pass through this server. Its children are counted from 0; they are workers
or, on a server further up, the servers below it, each of which speaks for some workers.

Kinds: `SyncStore` (sync_store.py) merges one contribution of each child per round; `RisingStore`
(rising_store.py) does so on a server with servers above it; `AsyncStore` (async_store.py) applies
each contribution on arrival.

Guarantees: a contribution counts once, however often it is sent (its round names it); a pull sees
the sender's last push, because a worker sends it only after that push was answered. What a worker
has asked for on a connection is answered once on that connection: when it connects again,
`forget_requests` drops what it had asked for, keeps what it has contributed, and the worker asks
again.
"""

import abc
from typing import (
    Dict,
    Generic,
    Iterable,
    Iterator,
    List,
    Optional,
    Sequence,
    Set,
    Tuple,
    TypeVar,
)

import numpy as np

from ..answers import Answers, Compressed
from ..compression import Compression
from ..errors import ProtocolError, UsageError
from ..memory import Memory
from ..plan import Key, Plan, Slice
from ..rows import Part, ids_of, rows_of, select
from ..updater import Updater
from ..wire import KeySpec
from .contributions import Contributions
from .declarations import Declarations
from .settings import Settings
from .slot import Payload, Reply, Slot, Wait, rows_reply

__all__ = ["Store"]

S = TypeVar("S", bound=Slot)


class Store(abc.ABC, Generic[S]):
    """Slices of one store that server number ``server`` owns, for ``children``.

    ``names`` are those of all the server's children, for messages; ``first`` is the child that
    speaks for worker 0, whose first values and settings count (None: none does); ``memory`` is
    where values lie.
    """

    def __init__(
        self,
        server: int,
        plan: Plan,
        children: Sequence[int],
        memory: Optional[Memory] = None,
        names: Sequence[str] = (),
        first: Optional[int] = 0,
    ) -> None:
        self.plan = plan
        self.first = first
        self.updater: Optional[Updater] = None
        self.answers: Optional[Answers] = None  # if they are compressed
        self._names = names or [f"worker {child}" for child in children]
        self._contributions = Contributions(self._names)
        self.settings = Settings()
        self._first_has_left = False
        self._server = server
        self._active = sorted(children)
        self._num_children = len(self._active)
        self._joined: Set[int] = set()  # of those that have not left
        self.epoch = 0  # how often all have joined
        self._declarations = Declarations(plan, children, self._names)
        self._memory = memory or Memory()  # of the values
        self._slots: Dict[int, List[S]] = {}  # bucket -> its slots, by position
        self._waited: Dict[S, None] = {}  # where children may wait, the longest wait first
        self._reset_rounds()

    def __repr__(self) -> str:
        nbytes = self.plan.server_nbytes[self._server]
        what = f"server {self._server}, {len(self._slots)} buckets, {nbytes} bytes"
        return f"{type(self).__name__}({what})"

    # -- events -------------------------------------------------------------------------------

    def declare(self, child: int, first: int, keys: Iterable[KeySpec]) -> None:
        """A child declares its keys ``first``, ``first + 1``, ...; see `Declarations.declare`."""
        for key in self._declarations.declare(child, first, keys):
            for slice_ in key.slices:
                if self._takes(slice_):
                    slots = self._slots.setdefault(slice_.bucket.index, [])
                    slots.append(self._new_slot(slice_))

    @property
    def children(self) -> Iterable[int]:
        return self._declarations.children

    def set_updater(self, updater: Updater) -> List[Reply]:
        """Update by ``updater`` from now on; answers what could not be answered without one."""
        self.updater = updater
        return []

    def set_compression(self, child: int, compression: Compression) -> bool:
        """Take note that a child compresses; returns whether it is the first to say so.

        Raises UsageError unless all say the same, before the first push.
        """
        self._declarations.check_child(child)
        return self._contributions.agree(child, compression)

    def contribution(
        self, child: int, bucket: int, first: int, count: int,
        payload: Payload, is_compressed: bool,
    ) -> Payload:  # fmt: skip
        """The payload of a Push as `push` takes it."""
        self._contributions.check(child)
        if not is_compressed:
            return payload
        if isinstance(payload, Memory) or count != 1:
            raise ProtocolError(f"{self._names[child]} compressed what is not to be compressed")
        (slot,) = self._run(child, bucket, first, 1)
        return self._contributions.decoded(child, slot.slice, payload)

    def init(
        self, child: int, bucket: int, first: int, count: int, payload: Payload
    ) -> List[Reply]:
        """Take worker 0's value; answers it and the pulls that waited for a first value."""
        if child != self.first:
            raise ProtocolError(f"{self._names[child]} sent an initial value; only rank 0's counts")
        slots = self._run(child, bucket, first, count)
        replies = []
        for slot, part in zip(slots, self._parts(slots, payload)):
            replies += self._init(slot, part)
        return replies

    def push(
        self, child: int, bucket: int, first: int, count: int,
        round_: int, want_value: bool, payload: Payload, version: Optional[int] = None,
    ) -> List[Reply]:  # fmt: skip
        """Take a contribution; returns what can be answered by now.

        ``payload`` may be kept until its round is complete and must not change meanwhile; if it
        can be written to, it is the store's to do so. ``version`` is worker 0's to name.
        """
        self.settings.check_version(self._names[child], child == self.first, version)
        slots = self._run(child, bucket, first, count)
        parts = self._parts(slots, payload)
        replies = self._push(child, slots, parts, round_, want_value, version)
        self._contributions.pushed(child)
        return replies

    def push_rows(
        self, child: int, bucket: int, position: int, round_: int, payload: np.ndarray,
        version: Optional[int] = None,
    ) -> List[Reply]:  # fmt: skip
        """Take a contribution of some rows of a slice (rows.py), as `push`."""
        self.settings.check_version(self._names[child], child == self.first, version)
        slots = self._run(child, bucket, position, 1)
        rows = rows_of(slots[0].slice, payload)
        return self._push(child, slots, [rows], round_, False, version)

    def pull(self, child: int, bucket: int, first: int, count: int) -> List[Reply]:
        """Answer with the values, now or once worker 0 has initialised them."""
        slots = self._run(child, bucket, first, count)
        if all(slot.initialised for slot in slots):
            return [Reply(child, bucket, first, count, True)]
        self._check_can_wait(child, slots)
        replies = []
        for slot in slots:
            if slot.initialised:
                replies.append(Reply(child, bucket, slot.slice.position, 1, True))
            else:
                slot.pullers.append(child)
                self._waited.setdefault(slot)
                self._await_first(slot)
        return replies

    def pull_rows(self, child: int, bucket: int, position: int, payload: np.ndarray) -> List[Reply]:
        """Answer with some rows of a slice, whose ids are the payload, as `pull`."""
        slots = self._run(child, bucket, position, 1)
        slot = slots[0]
        ids = ids_of(slot.slice, payload)
        if slot.initialised:
            return [rows_reply(slot.slice, child, _rows_at(slot, ids))]
        self._check_can_wait(child, slots)
        slot.row_pullers.append((child, ids))
        self._waited.setdefault(slot)
        self._await_first(slot)
        return []

    def forget_requests(self, child: int) -> None:
        """The worker has a new connection, on which it will ask again for what it waits for.

        Without this, a round that ends before it has asked again would be answered twice, and the
        second answer could be taken for that of the next round.
        """
        for slot in self._all_slots():
            slot.pullers = [other for other in slot.pullers if other != child]
            slot.row_pullers = [asked for asked in slot.row_pullers if asked[0] != child]

    def leave(self, child: int) -> List[Reply]:
        """The child will push no more; answers what waited only for it."""
        self._joined.discard(child)
        return self._deactivate(child)

    def join(self, child: int, epoch: int) -> List[Reply]:
        """The child will push no more in this epoch, which is number ``epoch``; as `leave`."""
        if epoch != self.epoch + 1 or not (child in self._active or child in self._joined):
            raise ProtocolError(f"{self._names[child]} joined epoch {epoch} after {self.epoch}")
        if any(self._is_under_way(child, slot) for slot in self._all_slots()):
            raise ProtocolError(f"{self._names[child]} joined with a contribution under way")
        self._joined.add(child)
        return self._deactivate(child)

    def check_can_close(self, child: int) -> None:
        """Raise ProtocolError if the child has something under way."""
        for slot in self._all_slots():
            if child in slot.waiting or self._is_under_way(child, slot):
                raise ProtocolError(
                    f"{self._names[child]} closed a store and waits for {slot.slice}"
                )

    @property
    def have_all_joined(self) -> bool:
        return bool(self._joined) and not self._active

    def begin_epoch(self) -> None:
        """All have joined: all take part again, and rounds are counted from 1."""
        self._active, self._joined = sorted(self._joined), set()
        self.epoch += 1
        self._reset_rounds()

    def lose_first(self) -> None:
        """Worker 0 has ended: what it has not initialised never will be. Raises UsageError."""
        self._first_has_left = True
        if any(slot.waiting and self._is_for_first(slot) for slot in self._all_slots()):
            raise UsageError("worker 0 has ended without initialising a key that others pull")

    def discard(self) -> None:
        """Nobody will ask for a value any more: the memory is not needed."""
        self._memory.discard()

    # -- what it knows ------------------------------------------------------------------------

    def values(self, reply: Reply) -> np.ndarray:
        """What is to be sent with an answer that has a value, as uint8; changes with the value."""
        return self._memory.run(self.plan.run(reply.bucket, reply.first, reply.num_slices))

    def parts(self, reply: Reply) -> Iterator[Tuple[Reply, Optional[Compressed]]]:
        """An answer with values as it is to be sent where bytes travel; None: as they are."""
        if self.answers is None:
            yield reply, None
            return
        run = self.plan.run(reply.bucket, reply.first, reply.num_slices)
        for part in self.answers.parts(reply.child, run):
            first = reply.first + part.start
            yield reply._replace(first=first, num_slices=part.num_slices), part.compressed

    def unit(self, bucket: int, position: int) -> Slice:
        """What is updated at once and begins with a slice, by which it is named: that slice, or its
        whole key. Raises ProtocolError if nothing does."""
        (slot,) = self._found(bucket, position, 1)
        if self.plan.has_whole_keys and slot.slice.index:
            raise ProtocolError(f"{slot.slice} is not updated by itself")
        return slot.slice

    def updated(self, unit: Slice) -> np.ndarray:
        """The value of a `unit` that an optimizer changes, 1-D. Raises ProtocolError before there
        is a first one."""
        slices = unit.key.slices if self.plan.has_whole_keys else [unit]
        if not all(self._slots[s.bucket.index][s.position].initialised for s in slices):
            raise ProtocolError(f"{unit} has no value yet")
        value = self._memory.slice(unit)
        if self.plan.has_whole_keys:
            value = self._memory.key(unit.key).reshape(-1)
        return self._exact(unit, value)

    def waits(self) -> List[Wait]:
        """Who waits for whom, one entry per waiting child, which waits for others longest there:
        for messages, not for decisions.

        Costs nothing while nobody waits, and little if all children wait at few slices.
        """
        found: Dict[int, Wait] = {}
        for slot in list(self._waited):
            if not slot.is_waited_at:
                del self._waited[slot]
                continue
            for wait in self._waits_at(slot):
                found.setdefault(wait.child, wait)
            if len(found) == self._num_children:
                break
        return list(found.values())

    # -- what kinds may do in their own way ---------------------------------------------------

    @abc.abstractmethod
    def _push(
        self, child: int, slots: Sequence[S], parts: Sequence[Part],
        round_: int, want_value: bool, version: Optional[int],
    ) -> List[Reply]:  # fmt: skip
        """Take a contribution to a run of slices, part by part, all of it or none."""

    @abc.abstractmethod
    def _is_under_way(self, child: int, slot: S) -> bool:
        """Whether a child has contributed to what is not complete."""

    @abc.abstractmethod
    def _waits_at(self, slot: S) -> Iterator[Wait]:
        """Who waits at a slice for other children."""

    @abc.abstractmethod
    def _deactivate(self, child: int) -> List[Reply]:
        """Wait for the child no more; answers what waited only for it."""

    @abc.abstractmethod
    def _reset_rounds(self) -> None:
        """Nothing is under way: begin with round 1 again."""

    def _takes(self, slice_: Slice) -> bool:
        """Whether a slice passes through this server."""
        return slice_.bucket.server == self._server

    @abc.abstractmethod
    def _new_slot(self, slice_: Slice) -> S:
        """A slot for a slice that it takes."""

    def _init(self, slot: S, part: np.ndarray) -> List[Reply]:
        """Take the first value of one slice; a repeat is answered only."""
        assert self.first is not None
        replies = [Reply(self.first, slot.slice.bucket.index, slot.slice.position, 1, False)]
        if not slot.initialised:
            slot.value[:] = part
            slot.initialised = True
            replies += self._answer_pullers(slot)
        return replies

    def _await_first(self, slot: S) -> None:
        """Somebody waits for a value that is not there."""

    def _is_for_first(self, slot: S) -> bool:
        """Whether a slot's pullers wait for worker 0."""
        return True

    # -- for all kinds ------------------------------------------------------------------------

    def _update(
        self, unit: Slice, gradient: Part, value: np.ndarray, version: Optional[int]
    ) -> None:
        """Have the updater change ``value``, which is that of a `unit`. Raises UsageError if the
        updater needs a whole key and this is a slice of one, and whatever the updater raises."""
        assert self.updater is not None
        if value.size != unit.key.size and not self.updater.is_elementwise:
            raise UsageError(
                f"{self.updater.name} needs whole parameters, and key {unit.key.name!r} is in "
                "pieces; call set_optimizer on every worker, not on rank 0 alone"
            )
        self.updater.update(unit, gradient, value, version)

    def _exact(self, first: Slice, value: np.ndarray) -> np.ndarray:
        """What is updated: a value, or an exact copy where the value is sent compressed."""
        return value if self.answers is None else self.answers.exact(first, value)

    def _all_slots(self) -> Iterable[S]:
        for slots in self._slots.values():
            yield from slots

    def _answer_pullers(self, slot: S) -> List[Reply]:
        """There is a first value: answer those who waited for one."""
        if not slot.pullers and not slot.row_pullers:
            return []
        pullers, slot.pullers = slot.pullers, []
        row_pullers, slot.row_pullers = slot.row_pullers, []
        where = slot.slice.bucket.index, slot.slice.position
        replies = [Reply(child, *where, 1, True) for child in pullers]
        for child, ids in row_pullers:
            replies.append(rows_reply(slot.slice, child, _rows_at(slot, ids)))
        return replies

    def _firsts(self) -> Tuple[int, ...]:
        """Whom those wait for who wait for a first value, as far as is known here."""
        return () if self.first is None else (self.first,)

    def _check_can_wait(self, child: int, slots: Sequence[S]) -> None:
        """Raise ProtocolError if the child waits for a value of one of them already, and UsageError
        if one waits for a worker 0 that has ended."""
        for slot in slots:
            if child in slot.waiting:
                raise ProtocolError(f"{self._names[child]} asked twice for {slot.slice}")
        for slot in slots if self.first is not None and self._first_has_left else ():
            if not slot.initialised and self._is_for_first(slot):
                name = slot.slice.key.name
                raise UsageError(f"worker 0 has ended without initialising key {name!r}")

    def _slots_of(self, key: Key) -> List[S]:
        """All slots of a key, of which this server has all slices."""
        return [self._slots[slice_.bucket.index][slice_.position] for slice_ in key.slices]

    def _run(self, child: int, bucket: int, first: int, count: int) -> List[S]:
        """Neighbouring slots of this server, of keys that the child has declared; raises
        ProtocolError for any others."""
        slots = self._found(bucket, first, count)
        key = slots[-1].slice.key  # the latest of them
        self._declarations.check_key(child, key)
        return slots

    def _found(self, bucket: int, first: int, count: int) -> List[S]:
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
    def _parts(slots: Sequence[Slot], payload: Payload) -> List[np.ndarray]:
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


def _rows_at(slot: Slot, ids: np.ndarray) -> np.ndarray:
    return select(slot.value, ids, slot.slice.key.row_size)
