"""A worker's part of the data, for MXNet's loaders."""

from .loading import ShardIter, ShardSampler, image_record_iter, joining
from .remote import RemoteImageRecordDataset, RemoteRecordDataset, RemoteRecordIO, iter_records

__all__ = [
    "RemoteImageRecordDataset",
    "RemoteRecordDataset",
    "RemoteRecordIO",
    "ShardIter",
    "ShardSampler",
    "image_record_iter",
    "iter_records",
    "joining",
]
