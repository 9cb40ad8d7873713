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
from typing import Any, Callable, List, Optional, Sequence

import mxnet as mx

from baryon.ps import Key, Operation, Places, StoreClient, array_over

from .engine import Done, address_of, as_handles, can_address, copy, push_async

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

    def empty(self, targets: Sequence[int]) -> None:
        """Copy what has arrived to some addresses."""
        for address in targets:
            ctypes.memmove(address, self._from, self.key.nbytes)


class Exchange:
    """Sends ``arrays``, receives into ``outs``, or both, either None if not; one array a device.

    ``kind`` is an Operation's. The arrays must be dense, and of the key's shape and dtype.
    Until the answer, both places are held. That of arrival also when nothing is to be received:
    with this worker's push the value there may change, so whoever still copies the one before must
    have finished.
    """

    def __init__(
        self, kind: str, place: Place, arrays: Optional[List[Any]], outs: Optional[List[Any]]
    ) -> None:
        self._kind = kind
        self._place = place
        self._arrays = arrays or []
        self._outs = outs or []
        self._wants_value = outs is not None
        self._takes = len(self._arrays) == 1 and can_address(self._arrays)
        self._gives = outs is not None and can_address(self._outs)
        held = [place.outgoing, place.incoming]
        held += self._arrays if self._takes else []
        held += self._outs if self._gives else []
        self._held = as_handles(held)
        self._seen = self._handles()

    def is_for(self, kind: str, arrays: Optional[List[Any]], outs: Optional[List[Any]]) -> bool:
        """Whether it would be the same for these arrays."""
        return (
            kind == self._kind
            and len(arrays or ()) == len(self._arrays)
            and len(outs or ()) == len(self._outs)
            and (outs is not None) == self._wants_value
            and all(map(_is, arrays or (), self._arrays))
            and all(map(_is, outs or (), self._outs))
            and self._handles() == self._seen
        )

    def _handles(self) -> List[Any]:
        return [array.handle.value for array in (*self._arrays, *self._outs)]

    def enqueue(self, store: StoreClient, priority: int, on_skipped: Callable[[], None]) -> None:
        """Queue it; the steps of a key must be queued one after the other."""
        place, arrays, outs = self._place, self._arrays, self._outs
        operation = Operation(self._kind, place.key, self._wants_value, priority)

        def start(done: Done) -> None:
            if self._takes:
                place.fill(arrays[0])
            operation.done = self._finish(done) if self._gives else done
            store.ready(operation)

        if arrays and not self._takes:
            _sum(arrays, place.outgoing)
        store.announce(operation)
        push_async(start, self._held, priority, on_skipped)
        if not self._gives:
            for out in outs:
                copy(place.incoming, out)

    def _finish(self, done: Done) -> Done:
        targets = [address_of(out) for out in self._outs]

        def finish(error: Optional[str]) -> None:
            if error is None:
                self._place.empty(targets)
            done(error)

        return finish


def _is(a: Any, b: Any) -> bool:
    return a is b


def _sum(arrays: List[Any], out: Any) -> None:
    """Sum the devices' arrays into ``out`` (level 0)."""
    if len(arrays) == 1:
        copy(arrays[0], out)
    elif all(array.context.device_type == "cpu" for array in arrays):
        mx.nd.add_n(*arrays, out=out)
    else:
        device = arrays[0].context
        copy(mx.nd.add_n(*[array.as_in_context(device) for array in arrays]), out)
