"""What gives each worker its part of the data, and reads it over the network.

`shard` is the arithmetic; `ShardSampler`, `ShardIter` and `image_record_iter` bring it to MXNet's
loaders, and `joining` is for parts that are not equally long. The others read by URL.
"""

from baryon.ps import import_mxnet

import_mxnet()  # outside a job, nothing else fits it to a newer NumPy

from .loading import ShardIter, ShardSampler, image_record_iter, joining
from .recordio import RecordError
from .remote import RemoteImageRecordDataset, RemoteRecordDataset, RemoteRecordIO, iter_records
from .shards import shard
from .urls import local_copy, open_url

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
