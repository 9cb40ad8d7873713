"""The memory in which gradients and values lie: a process's own, or shared by the tasks of a host.

An *area* is written by one task and may be read by others: a task's outgoing gradients, or the
host's values. The store's plan lays out areas (``Bucket.start``), so a message only has to name a
bucket. `Memory` maps an area piece by piece, as it is used.

A host's memory is one file without a name (memfd_create(2)). The host's agent makes it, and the
tasks open it through ``/proc/AGENT/fd``, which the kernel allows to the same user only. So it has
one owner, cannot be left behind, and does not depend on the size of /dev/shm, which is small in
containers. The file is sparse: each area begins at a fixed place, terabytes from the next, and only
mapped pieces take memory. Pieces are reserved before they are mapped, so a host with too little
memory gives an error here and not a SIGBUS later.

Memory that is no longer used must be given back explicitly (`Memory.discard`): the file keeps its
pages when a mapping ends.

Rejected: POSIX shared memory with names in /dev/shm, which outlives killed tasks; inherited
descriptors, which a wrapper script may close.
"""

import ctypes
import errno
import math
import mmap
import os
import weakref
from typing import Any, Container, Dict, Optional, Sequence, Tuple

import numpy as np

from .errors import UsageError
from .plan import Bucket, Key, Slice

__all__ = ["MAX_STORES", "VALUES", "HostMemory", "Memory", "staging"]

VALUES = 0  # the area of the values that a host has received; members count from 1
_AREA_NBYTES = 1 << 40
_MAX_MEMBERS = 1 << 10
MAX_STORES = (1 << 63) // _AREA_NBYTES // _MAX_MEMBERS

_STEP_NBYTES = 64 << 20  # of memory that is taken at once
_MEMINFO = "/proc/meminfo"

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = (
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int),
    *(ctypes.c_int, ctypes.c_int, ctypes.c_int64),
)
_LIBC.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_LIBC.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Area:
    """Memory of one process: zeros, which take memory when they are touched.

    A shared area (`_SharedArea`) lives as long as any piece of it is mapped.
    """

    def map(self, start: int, nbytes: int) -> np.ndarray:
        """Bytes ``start ... start + nbytes``, as uint8. Pieces must not overlap.

        Raises UsageError if the host has not enough memory left.
        """
        try:
            return np.zeros(nbytes, np.uint8)
        except MemoryError as error:
            raise _too_big(nbytes) from error

    def discard(self, start: int) -> None:
        """Give a piece back to the system when nothing in this process refers to it."""


class _SharedArea(Area):
    def __init__(self, descriptor: int, offset: int) -> None:
        self._descriptor = descriptor
        self._offset = offset
        self._pieces: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    def map(self, start: int, nbytes: int) -> np.ndarray:
        offset, nbytes = self._offset + start, max(nbytes, 1)
        for at in range(0, nbytes, _STEP_NBYTES):
            self._reserve(offset + at, min(_STEP_NBYTES, nbytes - at), nbytes)
        buffer = self._pieces[start] = _map(self._descriptor, nbytes, offset)
        buffer.area = self
        return np.frombuffer(buffer, np.uint8)

    def _reserve(self, offset: int, step: int, nbytes: int) -> None:
        """Reserve ``step`` of ``nbytes`` bytes, unless they are reserved already."""
        # The kernel does not refuse memory to such a file; it kills tasks instead.
        if step > _available_nbytes():
            raise _too_big(nbytes)
        try:
            os.posix_fallocate(self._descriptor, offset, step)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.ENOMEM):
                raise
            raise _too_big(nbytes) from error

    def discard(self, start: int) -> None:
        buffer = self._pieces.get(start)
        if buffer is not None:
            # Finalizers run in reverse order of their creation: this one before munmap.
            address, nbytes = ctypes.addressof(buffer), ctypes.sizeof(buffer)
            remove = mmap.MADV_REMOVE  # the file's pages, too
            weakref.finalize(buffer, _LIBC.madvise, address, nbytes, remove).atexit = False


def _available_nbytes() -> float:
    """How much memory this host has left, as its kernel estimates it."""
    left = 0
    try:
        with open(_MEMINFO, encoding="ascii") as file:
            for line in file:
                if line.startswith(("MemAvailable:", "SwapFree:")):
                    left += int(line.split()[1]) << 10
    except OSError:
        return math.inf
    return left


def _too_big(nbytes: int) -> UsageError:
    return UsageError(
        f"this host has no {nbytes >> 20} MiB of memory left for gradients and values; "
        "run fewer workers on it, or a smaller model"
    )


def _map(descriptor: int, nbytes: int, offset: int) -> Any:
    """A shared mapping as a buffer, which is unmapped when nothing refers to it.

    Python's own mmap keeps a descriptor for each mapping; a model may have thousands of them.
    """
    access = mmap.PROT_READ | mmap.PROT_WRITE
    address = _LIBC.mmap(None, nbytes, access, mmap.MAP_SHARED, descriptor, offset)
    if address == ctypes.c_void_p(-1).value:
        code = ctypes.get_errno()
        raise UsageError(f"memory cannot be mapped: {os.strerror(code)}; see ulimit -v")
    buffer = (ctypes.c_ubyte * nbytes).from_address(address)
    weakref.finalize(buffer, _LIBC.munmap, address, nbytes).atexit = False
    return buffer


class HostMemory:
    """The memory of this host's tasks, opened by one of them, number ``member`` (from 1)."""

    def __init__(self, path: str, member: int) -> None:
        self.member = member
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def area(self, store: int, member: int) -> Area:
        """The area of a member, or the `VALUES`, in a store."""
        assert 0 <= member < _MAX_MEMBERS and store < MAX_STORES
        return _SharedArea(self._descriptor, (store * _MAX_MEMBERS + member) * _AREA_NBYTES)

    def close(self) -> None:
        """Existing mappings stay."""
        os.close(self._descriptor)


class Memory:
    """An area with the layout of a plan."""

    def __init__(self, area: Optional[Area] = None) -> None:
        self.area = area or Area()
        self._regions: Dict[int, np.ndarray] = {}  # start -> bytes
        self._buckets: Dict[int, np.ndarray] = {}  # index -> bytes
        self._slices: Dict[Slice, np.ndarray] = {}  # its elements

    def __repr__(self) -> str:
        nbytes = sum(region.nbytes for region in self._regions.values())
        return f"Memory({len(self._regions)} regions, {nbytes} bytes)"

    def bucket(self, bucket: Bucket) -> np.ndarray:
        """The bytes of a bucket, as uint8; always the same array."""
        found = self._buckets.get(bucket.index)
        if found is None:
            region = bucket.region
            if region.start not in self._regions:
                self._regions[region.start] = self.area.map(region.start, region.nbytes)
            start = bucket.start - region.start
            found = self._regions[region.start][start : start + bucket.capacity]
            self._buckets[bucket.index] = found
        return found

    def discard(self, keep: Container[int] = ()) -> None:
        """Give all regions but those that begin at ``keep`` back to the system, when this process
        no longer refers to them. Other tasks may have them mapped, and must not read them."""
        for start in self._regions:
            if start not in keep:
                self.area.discard(start)

    def run(self, run: Sequence[Slice]) -> np.ndarray:
        """The bytes of neighbouring slices of a bucket, from the first to the last, as uint8."""
        return self.bucket(run[0].bucket)[run[0].offset : run[-1].end]

    def slice(self, slice_: Slice) -> np.ndarray:
        """The elements of a slice, 1-D of its dtype; always the same array."""
        found = self._slices.get(slice_)
        if found is None:
            found = self._slices[slice_] = self.run((slice_,)).view(slice_.bucket.dtype)
        return found

    def key(self, key: Key) -> np.ndarray:
        """A key's elements, as an array of its shape and dtype."""
        first = key.slices[0]
        self.bucket(first.bucket)
        region = self._regions[first.bucket.region.start]
        start = first.bucket.start + first.offset - first.bucket.region.start
        return region[start : start + key.nbytes].view(key.dtype).reshape(key.shape)


def staging(host: Optional[HostMemory], store: int) -> Tuple[Memory, Memory]:
    """The memory of a store's gradients, from which a task sends, and of its values, into which it
    receives."""
    if host is None:
        return Memory(), Memory()
    return Memory(host.area(store, host.member)), Memory(host.area(store, VALUES))
