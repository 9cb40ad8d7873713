"""Hints that rank 0 prints once about a script that works, but perhaps not as the user thinks."""

import sys
from typing import Iterable, List, Optional

from baryon.ps import Compression, Key
from baryon.scheduler.control import Credentials

__all__ = ["advice", "asked_for_part", "reader"]

_OURS = ("baryon.", "mxnet.")
_has_asked = False


def asked_for_part() -> None:
    """Remember that the script has asked which part of the data is this worker's."""
    global _has_asked
    _has_asked = True


def reader() -> None:
    """For a property to call: `asked_for_part`, if the property's reader is the script."""
    if not sys._getframe(2).f_globals.get("__name__", "").startswith(_OURS):
        asked_for_part()


def advice(
    credentials: Credentials, compression: Optional[Compression], keys: Iterable[Key]
) -> List[str]:
    """The hints for a store with ``keys``, at its first push."""
    said = []
    if credentials.kvstore is not None and credentials.num_workers > 1 and not _has_asked:
        n = credentials.num_workers
        said.append(
            f"each of the {n} workers seems to read all data: the script has asked neither for its "
            f"rank (kv.rank) nor for a part (baryon.worker.data.ShardSampler, ShardIter). If so, "
            f"an epoch has every sample {n} times, and a step {n} times its batch; see docs/data.md"
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
            "the job runs on one host, where tasks share memory and nothing travels "
            "(use --no-shared-memory to try compression out)"
        )
    if not any(compression.takes(slice_) for key in keys for slice_ in key.slices):
        return (
            f"none of the {len(keys)} keys has a floating dtype and {compression.min_size} or more "
            "elements (min_size)"
        )
    return ""
