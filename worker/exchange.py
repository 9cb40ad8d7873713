"""One key's way through MXNet's engine: from the script's arrays to the store and back.

An exchange is a single asynchronous operation of the engine, which holds the key's places in the
staging memory and the script's own arrays:

1. when the arrays are ready, their bytes are copied to the place that is sent from (level 0);
2. the communication thread is told, and the engine waits for nothing more;
3. when the answer has arrived, its bytes are copied to each output, and the operation completes.

This is for arrays on the CPU, whose bytes can be had. For several gradients, or arrays on GPUs,
MXNet's own operators sum and copy before and after the operation.

What can be found out beforehand is found out once: a script gives the same arrays at every step.
"""

import ctypes
from typing import Any, List, Optional

import mxnet as mx

from baryon.ps import Key, Operation, Places, StoreClient, UsageError, array_over

from .engine import address_of, as_handles, can_address, complete, copy, push_async

__all__ = ["Exchange", "Place"]


class Place:
    """A key in the staging memory: where it is sent from, where it arrives."""

    def __init__(self, key: Key, places: Places) -> None:
        self.key = key
        self.exchange: Optional[Exchange] = None  # the last one, likely to be the next
        self._from = places.incoming.ctypes.data
        self._to = places.outgoing.ctypes.data
        # To the engine, too, they must be one if they are one.
        self.outgoing = self.incoming = array_over(places.outgoing)
        if places.incoming is not places.outgoing:
            self.incoming = array_over(places.incoming)

    def fill(self, array: Any) -> None:
        """Copy a CPU array's elements to where the key is sent from."""
        ctypes.memmove(self._to, address_of(array), self.key.nbytes)

    def empty(self, outs: List[Any]) -> None:
        """Copy what has arrived to some CPU arrays."""
        for out in outs:
            ctypes.memmove(address_of(out), self._from, self.key.nbytes)


class Exchange:
    """Sends ``arrays``, receives into ``outs``, or both, either None if not; one array a device.

    ``kind`` is an Operation's. The arrays must be dense, and of the key's shape and dtype.
    Until the answer, both places are held. That of arrival also when nothing is to be received:
    with this worker's push the value there may change, so whoever still copies the one before must
    have finished.
    """

    def __init__(
        self,
        store: StoreClient,
        kind: str,
        place: Place,
        arrays: Optional[List[Any]],
        outs: Optional[List[Any]],
    ) -> None:
        self.store = store
        self.kind = kind
        self.place = place
        self.arrays = arrays or []
        self.outs = outs or []
        self.wants_value = outs is not None
        self.takes = len(self.arrays) == 1 and can_address(self.arrays)
        self.gives = outs is not None and can_address(self.outs)
        held = [place.outgoing, place.incoming]
        held += self.arrays if self.takes else []
        held += self.outs if self.gives else []
        self._held = as_handles(held)
        self._seen = [array.handle for array in (*self.arrays, *self.outs)]

    def is_for(self, kind: str, arrays: Optional[List[Any]], outs: Optional[List[Any]]) -> bool:
        """Whether it would be the same for these arrays."""
        if kind != self.kind or (outs is not None) != self.wants_value:
            return False
        given = [*(arrays or ()), *(outs or ())]
        if len(arrays or ()) != len(self.arrays) or len(given) != len(self._seen):
            return False
        return all(array.handle is handle for array, handle in zip(given, self._seen))

    def enqueue(self, priority: int) -> None:
        """Queue it; the steps of a key must be queued one after the other."""
        step = _Step(self, priority)
        if self.arrays and not self.takes:
            _sum(self.arrays, self.place.outgoing)
        self.store.announce(step)
        push_async(step, self._held, priority)
        if not self.gives:
            for out in self.outs:
                copy(self.place.incoming, out)


class _Step(Operation):
    """An exchange as the store knows it, and as the engine does."""

    __slots__ = ("_completion", "_exchange")

    def __init__(self, exchange: Exchange, priority: int) -> None:
        super().__init__(exchange.kind, exchange.place.key, exchange.wants_value, priority)
        self._exchange = exchange

    def start(self, completion: bytes) -> None:
        self._completion = completion
        exchange = self._exchange
        if exchange.takes:
            exchange.place.fill(exchange.arrays[0])
        exchange.store.ready(self)

    def done(self, error: Optional[str]) -> None:
        exchange = self._exchange
        if error is None and exchange.gives:
            exchange.place.empty(exchange.outs)
        complete(self._completion, error)

    def skipped(self) -> None:
        # The gradient could not be computed, which the script learns where it reads what depends
        # on it. The others' round cannot be completed without it.
        name = self._exchange.place.key.name
        self._exchange.store.fail(UsageError(f"the value given for key {name!r} failed to compute"))


def _sum(arrays: List[Any], out: Any) -> None:
    """Sum the devices' arrays into ``out`` (level 0)."""
    if len(arrays) == 1:
        copy(arrays[0], out)
    elif all(array.context.device_type == "cpu" for array in arrays):
        mx.nd.add_n(*arrays, out=out)
    else:
        device = arrays[0].context
        copy(mx.nd.add_n(*[array.as_in_context(device) for array in arrays]), out)
