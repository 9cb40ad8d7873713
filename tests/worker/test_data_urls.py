"""Files and records by URL, on this machine: requests, pickles, forks, copies, damage."""

import builtins
import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, List, Tuple

import fsspec
import mxnet as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baryon.ps import UsageError
from baryon.worker.data import (
    RecordError,
    RemoteImageRecordDataset,
    RemoteRecordDataset,
    RemoteRecordIO,
    iter_records,
    local_copy,
    open_url,
    urls,
)
from baryon.worker.data.urls import ReadAhead

from .images import PNG, SIDE

WriteRecords = Callable[[List[bytes]], Path]
MAGIC = bytes.fromhex("0a23d7ce")
RECORDS = [b"", b"abc", MAGIC, b"1234" + MAGIC + b"xyz", b"x" * 5000, b"end" + MAGIC]


# -- reading ahead ---------------------------------------------------------------------------------


def read_ahead(data: bytes, readahead_nbytes: int) -> Tuple[ReadAhead, List[Tuple[int, int]]]:
    """A reader of ``data``, and the requests that it makes."""
    requests: List[Tuple[int, int]] = []

    def fetch(start: int, end: int) -> bytes:
        requests.append((start, end))
        return data[start:end]

    return ReadAhead(fetch, len(data), readahead_nbytes), requests


@given(
    st.binary(min_size=1, max_size=60),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=20),
    st.integers(0, 80),
)
def test_reading_ahead_gives_what_was_asked_for(
    data: bytes, ranges: List[Tuple[int, int]], ahead: int
) -> None:
    reader, requests = read_ahead(data, ahead)
    for a, b in ranges:
        start, end = sorted((min(a, len(data)), min(b, len(data))))
        assert reader.read(start, end) == data[start:end]
    assert all(end <= len(data) for _, end in requests)


def test_reads_in_order_fetch_ahead_and_others_do_not() -> None:
    reader, requests = read_ahead(bytes(range(100)), 30)
    for start in (50, 10, 70):
        reader.read(start, start + 10)
    assert requests == [(50, 60), (10, 20), (70, 80)]
    del requests[:]
    reader.read(80, 85)
    reader.read(85, 95)
    assert requests == [(80, 100)]
    reader.read(0, 40)  # longer than is read ahead
    reader.read(40, 90)
    assert requests[1:] == [(0, 40), (40, 90)]


# -- records ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_records_by_key_by_position_and_in_a_row(write_records: WriteRecords, prefix: str) -> None:
    url = prefix + str(write_records(RECORDS))
    records = RemoteRecordIO(url)
    assert records.keys == [0, 10, 20, 30, 40, 50] and len(records) == 6
    assert [records.read_idx(key) for key in reversed(records.keys)] == RECORDS[::-1]
    assert [records.read_at(i) for i in range(6)] == RECORDS
    assert list(iter_records(url)) == RECORDS
    dataset = RemoteRecordDataset(url)
    assert [dataset[i] for i in range(len(dataset))] == RECORDS
    assert list(dataset) == RECORDS  # it ends with an IndexError
    with pytest.raises(KeyError):
        records.read_idx(5)


def test_records_in_memory_of_fsspec(write_records: WriteRecords) -> None:
    rec = write_records(RECORDS)
    try:
        for name in ("data.rec", "data.idx"):
            with open_url(f"memory://bucket/{name}", "wb") as file:
                file.write(rec.with_name(name).read_bytes())
        assert list(RemoteRecordDataset("memory://bucket/data.rec")) == RECORDS
    finally:
        fsspec.filesystem("memory").rm("/bucket", recursive=True)


def test_an_index_elsewhere_with_keys_that_are_no_numbers(
    write_records: WriteRecords, tmp_path: Path
) -> None:
    rec = write_records([b"one", b"two"])
    index = tmp_path / "other"
    index.write_text("zwei\t12\neins\t0\n")
    rec.with_suffix(".idx").unlink()
    records = RemoteRecordIO(str(rec), str(index), key_type=str)
    assert [records.read_idx("eins"), records.read_idx("zwei")] == [b"one", b"two"]


def test_images_and_their_labels(write_records: WriteRecords) -> None:
    rec = write_records([mx.recordio.pack((0, float(i), i, 0), PNG) for i in range(3)])
    ours = RemoteImageRecordDataset(str(rec))
    theirs = mx.gluon.data.vision.ImageRecordDataset(str(rec))
    for (image, label), (expected, expected_label) in zip(ours, theirs):
        assert label == expected_label
        assert image.shape == (SIDE, SIDE, 3)
        assert (image.asnumpy() == expected.asnumpy()).all()
    assert ours[2][1] == 2.0
    changed = RemoteImageRecordDataset(str(rec), flag=0, transform=lambda image, label: label + 1)
    assert changed[0] == 1.0
    assert RemoteImageRecordDataset(str(rec), flag=0)[0][0].shape == (SIDE, SIDE, 1)


def test_a_pickle_reads_on(write_records: WriteRecords) -> None:
    records = RemoteRecordIO(str(write_records(RECORDS)))
    records.read_idx(40)
    again = pickle.loads(pickle.dumps(records))
    assert [again.read_idx(key) for key in again.keys] == RECORDS


def test_threads_share_a_reader(write_records: WriteRecords) -> None:
    written = [bytes([i]) * (i * 7 % 300) for i in range(200)]
    records = RemoteRecordIO(str(write_records(written)), readahead_nbytes=700)
    order = list(range(200)) * 5
    random.Random(0).shuffle(order)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(records.read_at, order)) == [written[i] for i in order]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("thread_pool", [False, True], ids=["processes", "threads"])
def test_data_loaders_workers_read_after_this_process_has(
    write_records: WriteRecords, thread_pool: bool
) -> None:
    written = [bytes([65 + i]) * 8 for i in range(10)]
    dataset = RemoteRecordDataset(str(write_records(written)))
    assert dataset[0] == written[0]
    loader = mx.gluon.data.DataLoader(
        dataset.transform(len_and_first), 3, num_workers=2, thread_pool=thread_pool
    )
    seen = [batch.asnumpy().tolist() for _ in range(2) for batch in loader]
    one = [[[8, 65], [8, 66], [8, 67]], [[8, 68], [8, 69], [8, 70]], [[8, 71], [8, 72], [8, 73]]]
    assert seen == [*one, [[8, 74]]] * 2


def len_and_first(record: bytes) -> Any:
    return mx.nd.array([len(record), record[0]])


# -- what is damaged -------------------------------------------------------------------------------


def test_a_file_that_is_cut_short_is_named(write_records: WriteRecords) -> None:
    rec = write_records([b"x" * 100] * 3)
    whole = rec.read_bytes()
    rec.write_bytes(whole[:200])
    with pytest.raises(RecordError, match=r"data\.rec with .*data\.idx: .* byte 216, .* 200 bytes"):
        RemoteRecordIO(str(rec))
    rec.write_bytes(whole[:-40])
    records = RemoteRecordIO(str(rec))
    assert records.read_idx(10) == b"x" * 100
    with pytest.raises(RecordError, match=r"data\.rec, key 20 at byte 216: it is cut short"):
        records.read_idx(20)
    with pytest.raises(RecordError, match=r"data\.rec, record 2 at byte 216: it is cut short"):
        list(iter_records(str(rec)))


def test_a_file_that_is_another_is_named(write_records: WriteRecords) -> None:
    rec = write_records([b"x" * 100] * 3)
    rec.write_bytes(b"PK\x03\x04" * 100)
    with pytest.raises(RecordError, match=r"key 10 at byte 108: no record begins here"):
        RemoteRecordIO(str(rec)).read_idx(10)
    with pytest.raises(RecordError, match=r"record 0 at byte 0: no record begins here"):
        next(iter_records(str(rec)))
    rec.with_suffix(".idx").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(RecordError, match=r"data\.idx: line 1 is no key"):
        RemoteRecordIO(str(rec))


def test_a_file_that_is_cut_while_it_is_open_is_named(write_records: WriteRecords) -> None:
    rec = write_records([b"x" * 100] * 3)
    records = RemoteRecordIO(str(rec))
    rec.write_bytes(rec.read_bytes()[:150])
    with pytest.raises(RecordError, match=r"42 bytes came instead of 108 at byte 108; has"):
        records.read_idx(10)


def test_what_is_missing_is_named(
    write_records: WriteRecords, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match="nothing"):
        RemoteRecordIO(str(tmp_path / "nothing.rec"))
    rec = write_records(RECORDS)
    rec.with_suffix(".idx").unlink()
    with pytest.raises(FileNotFoundError, match=r"data\.idx"):
        RemoteRecordIO(str(rec))
    original = builtins.__import__

    def without_fsspec(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "fsspec":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_fsspec)
    urls._fsspec.cache_clear()
    with pytest.raises(UsageError, match="run: pip install fsspec"):
        open_url(str(rec))


# -- local copies ----------------------------------------------------------------------------------


def test_a_copy_is_made_once_and_again_when_the_source_changes(tmp_path: Path) -> None:
    source, folder = tmp_path / "data.rec", tmp_path / "copies"
    source.write_bytes(b"first")
    copy = Path(local_copy(str(source), str(folder)))
    assert copy.parent == folder and copy.name.endswith("-data.rec")
    assert copy.read_bytes() == b"first"
    made = copy.stat()
    assert local_copy(str(source), str(folder)) == str(copy)
    assert copy.stat() == made
    source.write_bytes(b"another")
    other = Path(local_copy(str(source), str(folder)))
    assert (other.read_bytes(), copy.read_bytes()) == (b"another", b"first")


def test_a_copy_that_fails_leaves_nothing_that_looks_like_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        local_copy(str(tmp_path / "nothing.rec"), str(tmp_path / "copies"))
    assert not list((tmp_path / "copies").glob("*.rec"))
