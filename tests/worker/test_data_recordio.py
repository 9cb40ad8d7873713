"""The RecordIO format: what MXNet writes is read, and what is no whole record is refused."""

import io
import struct
from pathlib import Path
from typing import List

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baryon.worker.data.recordio import RecordError, extents, parse_index, read_record

MAGIC = struct.pack("<I", 0xCED7230A)

# Records of pieces among which the magic number is frequent, at multiples of 4 and elsewhere.
records = st.lists(
    st.lists(st.one_of(st.just(MAGIC), st.binary(max_size=9)), max_size=6).map(b"".join), max_size=8
)


def part(kind: int, data: bytes) -> bytes:
    return MAGIC + struct.pack("<I", kind << 29 | len(data)) + data + bytes(-len(data) % 4)


def read_all(data: bytes) -> List[bytes]:
    file = io.BytesIO(data)
    return list(iter(lambda: read_record(file), None))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records")


@given(written=records)
def test_what_mxnet_writes_is_read(scratch: Path, written: List[bytes]) -> None:
    rec, idx = scratch / "a.rec", scratch / "a.idx"
    writer = mx.recordio.MXIndexedRecordIO(str(idx), str(rec), "w")
    for key, record in enumerate(written):
        writer.write_idx(key, record)
    writer.close()
    data = rec.read_bytes()
    assert read_all(data) == written
    keys, starts = parse_index(idx.read_text().splitlines())
    assert keys == list(range(len(written)))
    ends = extents(starts, len(data))
    assert [read_all(data[a:b]) for a, b in zip(starts, ends)] == [[one] for one in written]


def test_parts_of_a_record_are_joined_by_the_number_that_was_cut_out() -> None:
    data = part(1, b"") + part(2, b"abcd") + part(3, b"xyz") + part(0, b"next")
    assert read_all(data) == [MAGIC + b"abcd" + MAGIC + b"xyz", b"next"]


@given(records.filter(any), st.data())
def test_a_file_cut_anywhere_inside_a_record_is_said_to_be_cut(
    written: List[bytes], data: st.DataObject
) -> None:
    whole = b"".join(part(0, record) for record in written)
    edges = np.cumsum([len(part(0, record)) for record in written]).tolist()
    cut = data.draw(st.integers(1, len(whole) - 1).filter(lambda n: n not in edges))
    with pytest.raises(RecordError, match="cut short inside a record"):
        read_all(whole[:cut])


@pytest.mark.parametrize(
    "data",
    [
        b"PK\x03\x04 this is a zip file, or so",
        part(0, b"good") + b"\0\0\0\0\0\0\0\0",
        part(2, b"a middle without a first"),
        part(3, b"a last without a first"),
        part(1, b"first") + part(0, b"whole"),
        part(1, b"first") + part(1, b"first"),
        part(5, b"of no kind"),
    ],
)
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(RecordError, match=r"no record (begins|goes on) here"):
        read_all(data)


def test_an_index_may_be_in_any_order_and_have_keys_of_any_type() -> None:
    keys, starts = parse_index(["b\t40\n", "a\t0\n", "\n", "c\t16\r\n"], key_type=str)
    assert keys == ["b", "a", "c"]
    assert starts.tolist() == [40, 0, 16] and starts.dtype == np.int64
    assert extents(starts, 100).tolist() == [100, 16, 40]


def test_an_empty_index_is_one() -> None:
    keys, starts = parse_index([])
    assert keys == [] and extents(starts, 0).tolist() == []


@pytest.mark.parametrize("line", ["7", "x\t0", "7\tx", "7\t-4", "7 0"])
def test_a_line_of_an_index_that_is_none_is_named(line: str) -> None:
    with pytest.raises(RecordError, match="line 2 is no key, tab and offset"):
        parse_index(["1\t0", line])


def test_an_index_of_a_longer_file_is_refused() -> None:
    with pytest.raises(RecordError, match="at byte 64, and the file has 64 bytes"):
        extents(np.array([0, 64]), 64)
