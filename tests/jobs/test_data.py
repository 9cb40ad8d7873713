"""A job whose workers read their parts of one file."""

from pathlib import Path

import mxnet as mx

from tests.cluster import Cluster

SCRIPT = """
import sys
import mxnet as mx
from mxnet import gluon
from baryon.worker.data import RemoteRecordDataset, ShardSampler
assert "fsspec" not in sys.modules  # those who open no URL do not pay for it

def number(record):
    return mx.nd.array([float(record)])

kv = mx.kv.create("dist_sync")
kv.init(0, mx.nd.zeros(1))
dataset = RemoteRecordDataset("file://" + sys.argv[1])
sampler = ShardSampler(len(dataset), 2, shuffle=True)
loader = gluon.data.DataLoader(dataset.transform(number), 2, sampler=sampler, num_workers=2)
out = mx.nd.zeros(1)
for epoch in range(2):
    total = steps = 0
    for batch in loader:
        kv.pushpull(0, batch.sum(axis=0), out=out)
        total += out.asscalar()
        steps += 1
    print("EPOCH", epoch, steps, total, kv.rank, flush=True)
"""


def test_workers_read_their_parts_by_url(cluster: Cluster, tmp_path: Path) -> None:
    """With processes of a DataLoader, while the store is at work; 12 records, batches of 2."""
    rec = tmp_path / "numbers.rec"
    writer = mx.recordio.MXIndexedRecordIO(str(rec.with_suffix(".idx")), str(rec), "w")
    for number in range(12):
        writer.write_idx(number, str(number).encode())
    writer.close()
    run = cluster.run("-n", 2, cluster.script(SCRIPT), rec)
    for epoch in range(2):
        for rank in range(2):
            assert f"EPOCH {epoch} 3 {float(sum(range(12)))} {rank}" in run.out
