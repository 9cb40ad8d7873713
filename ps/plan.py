"""Which key lies where: keys are cut into slices, slices are fused into buckets.

A *slice* is a run of elements of one key, and the unit that a server merges. A *bucket* is a run of
bytes that one server owns, and the unit that travels. Small keys share a bucket; a big key spans
many, with one slice in each. The plan only grows. It depends on the order in which keys are added
and on nothing else, so every worker and every server computes the same plan. Servers compare what
the workers declare, and report a difference.

A slice holds whole rows of its key, so rows can be sent and updated by themselves (rows.py), unless
a row is bigger than a bucket.

Placement: a new bucket goes to the server that owns the fewest bytes. Rejected: hashing keys to
servers as MXNet does, which gives one server 7 times the bytes of another on real models; a plan
sent by a coordinator, which costs every `init` a round trip.
"""

import math
from typing import Dict, List, NamedTuple, Optional, Tuple, Union

import numpy as np

from .dtypes import DTYPES, dtype_of, name_of
from .errors import UsageError

__all__ = ["Bucket", "Key", "Plan", "Region", "Slice"]

BUCKET_NBYTES = 1 << 20
PAGE_NBYTES = 1 << 16  # of memory that is mapped: the largest page of any Linux, not this one's
ALIGNMENT = 64  # a cache line, and what SIMD loads like best
MAX_NDIM = 32  # NumPy's own limit
MAX_KEY_NBYTES = 1 << 38  # far beyond any parameter: more is a mistake or an attack


class Region(NamedTuple):
    """Bytes that lie together in a store's memory: one shared bucket, or a whole big key."""

    start: int
    nbytes: int


class Bucket:
    """Up to ``capacity`` bytes of one dtype, owned by one server; ``nbytes`` of them are used.

    It begins at byte ``start`` of a store's memory (memory.py), in ``region``.
    """

    __slots__ = (
        "capacity", "dtype", "index", "nbytes", "region", "server", "slices", "start",
    )  # fmt: skip

    def __init__(
        self, index: int, server: int, dtype: np.dtype, capacity: int, region: Region, start: int
    ) -> None:
        self.index = index
        self.server = server
        self.dtype = dtype
        self.capacity = capacity
        self.region = region
        self.start = start
        self.nbytes = 0
        self.slices: List[Slice] = []

    def __repr__(self) -> str:
        return (
            f"Bucket({self.index}, server={self.server}, {self.nbytes} of {self.capacity} bytes, "
            f"{len(self.slices)} slices)"
        )


class Slice:
    """Elements ``start:stop`` of ``key``, number ``position`` of ``bucket``, at byte ``offset``.

    It is number ``index`` of its key, and begins at the key's byte ``at``.
    """

    __slots__ = ("at", "bucket", "index", "key", "nbytes", "offset", "position", "start", "stop")

    def __init__(self, key: "Key", start: int, stop: int, bucket: Bucket, offset: int) -> None:
        self.key = key
        self.start = start
        self.stop = stop
        self.bucket = bucket
        self.at = start * bucket.dtype.itemsize
        self.index = len(key.slices)
        self.position = len(bucket.slices)
        self.offset = offset
        self.nbytes = (stop - start) * bucket.dtype.itemsize

    @property
    def first_row(self) -> int:
        """The number of the key's row with which it begins, if the key has rows."""
        return self.start // self.key.row_size if self.start else 0

    @property
    def shape(self) -> Tuple[int, ...]:
        """The shape of its elements as an array: whole rows, or flat if rows are cut."""
        if len(self.key.slices) == 1:
            return self.key.shape
        if not self.key.has_rows:
            return (self.stop - self.start,)
        return (self.num_rows, *self.key.shape[1:])

    @property
    def row_nbytes(self) -> int:
        return self.key.row_size * self.key.dtype.itemsize

    @property
    def num_rows(self) -> int:
        key = self.key
        if len(key.slices) == 1:
            return key.shape[0]
        return (self.stop - self.start) // key.row_size

    @property
    def end(self) -> int:
        """The byte of the bucket after this slice, without padding."""
        return self.offset + self.nbytes

    def __repr__(self) -> str:
        where = f"{self.bucket.index}.{self.position}"
        return f"Slice({where}, {self.key.name!r}[{self.start}:{self.stop}])"


class Key:
    """One parameter: ``number`` counts keys in the order in which they were added.

    A row has ``row_size`` elements. ``has_rows`` says whether slices hold whole rows.
    """

    __slots__ = ("dtype", "has_rows", "name", "number", "row_size", "shape", "size", "slices")

    def __init__(
        self, number: int, name: Union[int, str], shape: Tuple[int, ...], dtype: np.dtype
    ) -> None:
        self.number = number
        self.name = name
        self.shape = shape
        self.dtype = dtype
        self.row_size = math.prod(shape[1:])
        self.size = self.row_size * math.prod(shape[:1])
        self.has_rows = bool(shape)
        self.slices: List[Slice] = []

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def dtype_name(self) -> str:
        """One of `DTYPES`; ``dtype`` is the type of the arrays that hold its elements."""
        return name_of(self.dtype)

    def __repr__(self) -> str:
        return f"Key({self.name!r}, {self.shape}, {self.dtype_name})"


class Plan:
    """The keys, slices and buckets of one store over ``num_servers`` servers.

    With ``has_whole_keys`` all slices of a key lie on one server, for optimizers that need more of
    a parameter than one slice.
    """

    def __init__(
        self, num_servers: int, bucket_nbytes: int = BUCKET_NBYTES, has_whole_keys: bool = False
    ) -> None:
        self.num_servers = num_servers
        self.has_whole_keys = has_whole_keys
        self.bucket_nbytes = bucket_nbytes
        self.keys: List[Key] = []
        self.buckets: List[Bucket] = []
        self.server_nbytes = [0] * num_servers
        self._extent = 0  # of the memory that is laid out
        self._by_name: Dict[Union[int, str], Key] = {}
        self._open: Dict[np.dtype, Bucket] = {}  # the bucket that small keys of a dtype join

    def __contains__(self, name: Union[int, str]) -> bool:
        return name in self._by_name

    def __getitem__(self, name: Union[int, str]) -> Key:
        return self._by_name[name]

    def add(self, name: Union[int, str], shape: Tuple[int, ...], dtype: str) -> Key:
        """Place a new key and return it.

        Raises UsageError if the name is taken, the dtype is none of `DTYPES`, or the shape is
        impossible.
        """
        self.check(name, shape, dtype)
        key = Key(len(self.keys), name, tuple(shape), dtype_of(dtype))
        self.keys.append(key)
        self._by_name[name] = key
        if key.nbytes <= self.bucket_nbytes:
            self._place(key, 0, key.size, self._shared_bucket(key))
        else:
            step = self.bucket_nbytes // key.dtype.itemsize
            key.has_rows = key.row_size <= step
            if key.has_rows:
                step -= step % key.row_size
            region = self._new_region(key.nbytes)
            server = self._emptiest() if self.has_whole_keys else None
            for start in range(0, key.size, step):
                stop = min(start + step, key.size)
                nbytes = (stop - start) * key.dtype.itemsize
                at = region.start + start * key.dtype.itemsize
                bucket = self._new_bucket(key.dtype, nbytes, region, at, server)
                self._place(key, start, stop, bucket)
        return key

    def check(self, name: Union[int, str], shape: Tuple[int, ...], dtype: str) -> None:
        """Raise UsageError if `add` would; changes nothing."""
        if name in self._by_name:
            raise UsageError(f"key {name!r} is initialised already; initialise each key once")
        if dtype not in DTYPES:
            raise UsageError(f"key {name!r} has dtype {dtype}; supported are {', '.join(DTYPES)}")
        if len(shape) > MAX_NDIM or any(extent < 0 for extent in shape):
            raise UsageError(f"key {name!r} has the impossible shape {tuple(shape)}")
        # An extent of 0 counts as 1: NumPy has no array of such a shape either.
        nbytes = math.prod(extent or 1 for extent in shape) * dtype_of(dtype).itemsize
        if nbytes > MAX_KEY_NBYTES:
            raise UsageError(f"key {name!r} of {nbytes} bytes is beyond {MAX_KEY_NBYTES}")

    def run(self, bucket: int, first: int, count: int) -> List[Slice]:
        """Slices ``first .. first + count - 1`` of a bucket; raises IndexError if it lacks one."""
        if not 0 <= bucket < len(self.buckets):
            raise IndexError(f"no bucket {bucket} among {len(self.buckets)}")
        slices = self.buckets[bucket].slices
        if count < 1 or first < 0 or first + count > len(slices):
            raise IndexError(f"no slices {first}..{first + count - 1} in {self.buckets[bucket]}")
        return slices[first : first + count]

    def _shared_bucket(self, key: Key) -> Bucket:
        bucket = self._open.get(key.dtype)
        if bucket is None or _aligned(bucket.nbytes) + key.nbytes > bucket.capacity:
            region = self._new_region(self.bucket_nbytes)
            bucket = self._new_bucket(key.dtype, self.bucket_nbytes, region, region.start)
            self._open[key.dtype] = bucket
        return bucket

    def _new_region(self, nbytes: int) -> Region:
        region = Region(self._extent, nbytes)
        self._extent += -(-nbytes // PAGE_NBYTES) * PAGE_NBYTES
        return region

    def _emptiest(self) -> int:
        return min(range(self.num_servers), key=self.server_nbytes.__getitem__)

    def _new_bucket(
        self,
        dtype: np.dtype,
        capacity: int,
        region: Region,
        start: int,
        server: Optional[int] = None,
    ) -> Bucket:
        server = self._emptiest() if server is None else server
        bucket = Bucket(len(self.buckets), server, dtype, capacity, region, start)
        self.buckets.append(bucket)
        return bucket

    def _place(self, key: Key, start: int, stop: int, bucket: Bucket) -> None:
        slice_ = Slice(key, start, stop, bucket, _aligned(bucket.nbytes))
        self.server_nbytes[bucket.server] += slice_.end - bucket.nbytes
        bucket.nbytes = slice_.end
        bucket.slices.append(slice_)
        key.slices.append(slice_)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
