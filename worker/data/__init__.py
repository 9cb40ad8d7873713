"""Each worker's part of the data, and data over the network.

`shard` computes a worker's part. `ShardSampler`, `ShardIter` and `image_record_iter` do so for
MXNet's loaders, and `joining` is for parts of different lengths. The others read by URL. The names
that need MXNet are in `baryon.worker.mxnet.data`, which is imported on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .recordio import RecordError
from .shards import shard
from .urls import local_copy, open_url

if TYPE_CHECKING:
    from ..mxnet.data import (
        RemoteImageRecordDataset,
        RemoteRecordDataset,
        RemoteRecordIO,
        ShardIter,
        ShardSampler,
        image_record_iter,
        iter_records,
        joining,
    )

__all__ = [
    "shard",
    "ShardSampler",
    "ShardIter",
    "image_record_iter",
    "joining",
    "open_url",
    "local_copy",
    "iter_records",
    "RemoteRecordIO",
    "RemoteRecordDataset",
    "RemoteImageRecordDataset",
    "RecordError",
]


def __getattr__(name: str) -> Any:  # PEP 562
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("..mxnet.data", __name__), name)
