"""One key's way through MXNet's engine: from the script's arrays to the store and back.

An exchange is a single asynchronous operation of the engine, which holds the script's arrays:

1. when they are ready, the communication thread is told where their bytes lie (level 0), and the
   engine waits for nothing more;
2. that thread sends them, and puts the answer's bytes into each output, slice by slice; after the
   last the operation completes.

This is for arrays on the CPU, whose bytes can be had. For several gradients, or arrays on GPUs,
MXNet's own operators sum and copy, to the key's place in the staging memory before the operation
and from there after it.

What can be found out beforehand is found out once: a script gives the same arrays at every step.
"""

import ctypes
from typing import Any, List, Optional

import mxnet as mx
import numpy as np

from baryon.ps import Key, Operation, StoreClient, UsageError

from .arguments import fitting
from .compat import array_over
from .engine import address_of, as_handles, can_address, complete, copy, overlap, push_async

__all__ = ["Exchange", "Place"]


class Place:
    """A key's place in the staging memory as NDArrays: where it is sent from, where it arrives.

    Every exchange of the key holds both, whether it uses them or not: so they take place one after
    the other, and whoever still copies a value from there has finished before the next one comes.
    """

    def __init__(self, store: StoreClient, key: Key) -> None:
        self.store = store
        self.key = key
        self.outs: List[Any] = []  # what the last value was written to
        outgoing, incoming = store.outgoing(key), store.incoming(key)
        # To the engine, too, they must be one if they are one.
        self.outgoing = self.incoming = array_over(outgoing)
        if incoming.ctypes.data != outgoing.ctypes.data:
            self.incoming = array_over(incoming)

    def fail(self, error: Optional[str]) -> None:
        """Fail the store, one of whose steps has: by ``error``, or because of the value given."""
        why = f": {error}" if error else " failed to compute"
        self.store.fail(UsageError(f"the value given for key {self.key.name!r}{why}"))


class Exchange:
    """Sends ``arrays`` or receives into ``outs`` (None if not), or both; one array per device.

    ``kind`` is an Operation's. Raises UsageError unless all are dense arrays of the key's shape,
    and ``arrays`` of its dtype; the value is cast to the dtype of ``outs``.
    """

    def __init__(
        self, kind: str, place: Place, arrays: Optional[List[Any]], outs: Optional[List[Any]]
    ) -> None:
        self.kind = kind
        self.place = place
        self.wants_value = outs is not None
        self._arrays = [] if arrays is None else fitting(place.key, arrays)
        self._outs = [] if outs is None else fitting(place.key, outs, is_cast=True)
        self._seen = [array.handle for array in (*self._arrays, *self._outs)]
        takes = len(self._arrays) == 1 and can_address(self._arrays)
        gives = outs is not None and can_address(self._outs)
        gives = gives and all(np.dtype(out.dtype) == place.key.dtype for out in self._outs)
        if takes and gives:  # slices arrive while others are still to be sent
            gives = not any(overlap(self._arrays[0], out) for out in self._outs)
        # None: by the key's place in the staging memory.
        self.source = _Bytes(self._arrays[0]) if takes else None
        self.targets = [_Bytes(out) for out in self._outs] if gives else None
        held = [place.outgoing, place.incoming]
        held += self._arrays if takes else []
        held += self._outs if gives else []
        self._held = as_handles(held)

    def is_for(self, kind: str, arrays: Optional[List[Any]], outs: Optional[List[Any]]) -> bool:
        """Whether it would be the same for these arrays."""
        if kind != self.kind or (outs is not None) != self.wants_value:
            return False
        given = [*(arrays or ()), *(outs or ())]
        if len(arrays or ()) != len(self._arrays) or len(given) != len(self._seen):
            return False
        # An array's handle is its own, and nobody else's.
        return all(array.handle is handle for array, handle in zip(given, self._seen))

    def enqueue(self, priority: int, version: Optional[int] = None) -> None:
        """Queue it; the steps of a key must be queued one after the other. ``version`` is that of
        the optimizer's attributes."""
        if self.wants_value:
            self.place.outs = self._outs
        step = _Step(self, priority)
        step.version = version
        if self._arrays and self.source is None:
            _sum(self._arrays, self.place.outgoing)
        self.place.store.announce(step)
        push_async(step, self._held, priority)
        if self.targets is None:
            for out in self._outs:
                copy(_cast(self.place.incoming, out.dtype), out)


class _Bytes:
    """The bytes of a CPU array, while an operation holds it."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self._address = 0
        self._bytes = np.empty(0, np.uint8)

    def get(self) -> np.ndarray:
        """As uint8, in C order."""
        address = address_of(self._array)
        if address != self._address and self._array.size:
            nbytes = self._array.size * np.dtype(self._array.dtype).itemsize
            memory = (ctypes.c_ubyte * nbytes).from_address(address)
            self._bytes = np.frombuffer(memory, np.uint8)
            self._address = address
        return self._bytes


class _Step(Operation):
    """An exchange as the store knows it, and as the engine does."""

    __slots__ = ("_completion", "_exchange")

    def __init__(self, exchange: Exchange, priority: int) -> None:
        super().__init__(exchange.kind, exchange.place.key, exchange.wants_value, priority)
        self._exchange = exchange

    def start(self, completion: bytes) -> None:
        self._completion = completion
        exchange = self._exchange
        if exchange.source is not None:
            self.source = exchange.source.get()
        if exchange.targets is not None:
            self.targets = [target.get() for target in exchange.targets]
        exchange.place.store.ready(self)

    def done(self, error: Optional[str]) -> None:
        complete(self._completion, error)

    def failed(self, error: Optional[str]) -> None:
        # The script learns of it where it reads what depends on it. The others' round cannot be
        # completed without it.
        self._exchange.place.fail(error)


def _cast(array: Any, dtype: Any) -> Any:
    """Before it is copied: between a CPU and a GPU, MXNet casts nothing."""
    return array if array.dtype == dtype else array.astype(dtype)


def _sum(arrays: List[Any], out: Any) -> None:
    """Sum the devices' arrays into ``out`` (level 0)."""
    if len(arrays) == 1:
        copy(arrays[0], out)
    elif all(array.context.device_type == "cpu" for array in arrays):
        mx.nd.add_n(*arrays, out=out)
    else:
        device = arrays[0].context
        copy(mx.nd.add_n(*[array.as_in_context(device) for array in arrays]), out)
