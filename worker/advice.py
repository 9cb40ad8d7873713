"""What rank 0 says once of a script that works, and perhaps not as its user thinks."""

import sys
from typing import Iterable, List, Optional

from baryon.ps import Compression, Key
from baryon.scheduler.control import Credentials

__all__ = ["advice", "asked_for_part", "reader"]

_OURS = ("baryon.", "mxnet.")
_has_asked = False


def asked_for_part() -> None:
    """Take note that the script knows which part of the data is this worker's."""
    global _has_asked
    _has_asked = True


def reader() -> None:
    """To be called by a property: take note if it is the script that reads it."""
    if not sys._getframe(2).f_globals.get("__name__", "").startswith(_OURS):
        asked_for_part()


def advice(
    credentials: Credentials, compression: Optional[Compression], keys: Iterable[Key]
) -> List[str]:
    """When the first push is made, of a store with ``keys``."""
    said = []
    if credentials.kvstore is not None and credentials.num_workers > 1 and not _has_asked:
        n = credentials.num_workers
        said.append(
            f"each of the {n} workers seems to read all data: the script has asked neither for its "
            f"rank (kv.rank) nor for a part (baryon.worker.data.ShardSampler, ShardIter). An epoch "
            f"then has every sample {n} times, and a step {n} times its batch; see docs/data.md"
        )
    if compression is not None:
        why = _why_nothing_is_compressed(credentials, compression, list(keys))
        if why:
            said.append(f"gradient compression ({compression.codec.name}) has no effect: {why}")
    return said


def _why_nothing_is_compressed(
    credentials: Credentials, compression: Compression, keys: List[Key]
) -> str:
    parents = (*credentials.parents, *credentials.owners)
    is_one_host = credentials.num_local_workers == credentials.num_workers
    if is_one_host and all(parent.is_shared for parent in parents):
        return (
            "the job is on one host, whose tasks share memory, so that nothing travels "
            "(--no-shared-memory is for trying it out)"
        )
    if not any(compression.takes(slice_) for key in keys for slice_ in key.slices):
        return (
            f"none of the {len(keys)} keys has {compression.min_size} elements or more (min_size) "
            "of a floating dtype"
        )
    return ""
