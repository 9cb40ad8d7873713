"""Records from a real server of S3's protocol, on loopback."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import mxnet as mx
import pytest
import s3fs

from baryon.worker.data import (
    RemoteRecordDataset,
    RemoteRecordIO,
    ShardSampler,
    iter_records,
    local_copy,
    open_url,
)

from .conftest import S3Server

WriteRecords = Callable[[List[bytes]], Path]
MAGIC = bytes.fromhex("0a23d7ce")
RECORDS = [bytes([i]) * 8 + MAGIC * (i % 3) + b"x" * (1000 * i) for i in range(20)]


@pytest.fixture
def s3_url(s3_options: Dict[str, Any], write_records: WriteRecords) -> Iterator[str]:
    """data.rec, with data.idx beside it, in a bucket that goes away."""
    rec = write_records(RECORDS)
    system = s3fs.S3FileSystem(**s3_options)
    system.mkdir("records")
    for name in ("data.rec", "data.idx"):
        system.put_file(str(rec.with_name(name)), f"records/train/{name}")
    yield "s3://records/train/data.rec"
    system.rm("records", recursive=True)


def test_records_are_read_by_ranges(
    s3_url: str, s3_options: Dict[str, Any], s3_server: S3Server
) -> None:
    records = RemoteRecordIO(s3_url, **s3_options)
    before = s3_server.count("GET /records/train/data.rec")
    assert [records.read_idx(key) for key in reversed(records.keys)] == RECORDS[::-1]
    assert s3_server.count("GET /records/train/data.rec") == before + 20
    assert [records.read_at(i) for i in range(20)] == RECORDS
    # The first record is still there; the next one begins to read ahead, and has all others.
    assert s3_server.count("GET /records/train/data.rec") == before + 21
    assert list(iter_records(s3_url, **s3_options)) == RECORDS


def label_and_length(record: bytes) -> Any:
    return mx.nd.array([record[0], len(record)])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_workers_loaders_read_each_its_part(s3_url: str, s3_options: Dict[str, Any]) -> None:
    """By processes that are forked from one that has read from there already."""
    dataset = RemoteRecordDataset(s3_url, **s3_options)
    assert dataset[3] == RECORDS[3]
    seen = []
    for rank in range(2):
        sampler = ShardSampler(20, 3, "join", shuffle=True, rank=rank, num_workers=2)
        loader = mx.gluon.data.DataLoader(
            dataset.transform(label_and_length), 3, sampler=sampler, num_workers=2
        )
        seen += [tuple(row) for batch in loader for row in batch.asnumpy().astype(int).tolist()]
    assert dataset[4] == RECORDS[4]  # nor has the parent lost anything
    assert sorted(seen) == [(i, len(record)) for i, record in enumerate(RECORDS)]


def test_a_copy_for_what_reads_local_files_only(
    s3_url: str, s3_options: Dict[str, Any], tmp_path: Path
) -> None:
    copy = local_copy(s3_url, str(tmp_path / "copies"), **s3_options)
    reader = mx.recordio.MXRecordIO(copy, "r")
    assert [reader.read() for _ in RECORDS] == RECORDS
    reader.close()


def test_those_that_copy_at_the_same_time_fetch_it_once(
    s3_url: str, s3_options: Dict[str, Any], s3_server: S3Server, tmp_path: Path
) -> None:
    """Threads lock each other out as processes do: each opens the lock file for itself."""
    before = s3_server.count("GET /records/train/data.rec")
    together = threading.Barrier(4)

    def copy(_: int) -> str:
        together.wait(30)
        path = local_copy(s3_url, str(tmp_path / "copies"), **s3_options)
        assert list(iter_records(path)) == RECORDS
        return path

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(copy, range(4)))) == 1
    assert s3_server.count("GET /records/train/data.rec") == before + 1
    assert not list((tmp_path / "copies").glob("*.part"))


def test_what_is_not_there_is_named(s3_url: str, s3_options: Dict[str, Any]) -> None:
    with pytest.raises(FileNotFoundError, match=r"records/train/other\.rec"):
        RemoteRecordIO("s3://records/train/other.rec", **s3_options)
    with pytest.raises(FileNotFoundError), open_url("s3://nowhere/a", **s3_options) as file:
        file.read()
