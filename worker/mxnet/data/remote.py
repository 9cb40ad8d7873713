"""RecordIO files by URL: record by record, by key, and as Gluon data sets.

Each record is read by one range request for the bytes that the index names; no file is downloaded
as a whole. A DataLoader may use the data sets in processes and threads; see `RemoteFile`.
"""

import functools
import io
import posixpath
from typing import Any, Callable, Dict, Iterator, List, Optional

import mxnet as mx

from ...data.recordio import RecordError, extents, parse_index, read_record
from ...data.urls import ReadAhead, RemoteFile, open_url

__all__ = ["RemoteImageRecordDataset", "RemoteRecordDataset", "RemoteRecordIO", "iter_records"]

_READAHEAD_NBYTES = 1 << 20


def iter_records(url: str, **options: Any) -> Iterator[bytes]:
    """All records of a file, from the first to the last; no index is needed.

    Raises RecordError, with the record's number and place, for a file that is cut short, damaged
    or in another format.
    """
    with open_url(url, "rb", **options) as file:
        number, start = 0, 0
        while True:
            try:
                record = read_record(file)
            except RecordError as error:
                raise RecordError(f"{url}, record {number} at byte {start}: {error}") from None
            if record is None:
                return
            yield record
            number, start = number + 1, file.tell()


class RemoteRecordIO:
    """Records of a file by key, as `mx.recordio.MXIndexedRecordIO` reads them.

    ``idx_url`` defaults to ``url`` with the suffix ``.idx``. The index is read at once, and must
    fit the file's size. The object may be pickled, and used after a fork and by several threads.
    While records are read in file order, each request fetches at least ``readahead_nbytes``.

    Raises RecordError for an index that is damaged or does not fit the file, FileNotFoundError,
    and UsageError without fsspec.
    """

    def __init__(
        self,
        url: str,
        idx_url: Optional[str] = None,
        key_type: Callable[[str], Any] = int,
        readahead_nbytes: int = _READAHEAD_NBYTES,
        **options: Any,
    ) -> None:
        self.url = url
        self.idx_url = posixpath.splitext(url)[0] + ".idx" if idx_url is None else idx_url
        self.keys: List[Any]
        file = RemoteFile(url, **options)
        nbytes = file.nbytes()
        try:
            with open_url(self.idx_url, "rb", **options) as index:
                lines = index.read().decode("utf-8", "replace").splitlines()
            self.keys, self._starts = parse_index(lines, key_type)
        except RecordError as error:
            raise RecordError(f"{self.idx_url}: {error}") from None
        try:
            self._ends = extents(self._starts, nbytes)
        except RecordError as error:
            raise RecordError(f"{url} with {self.idx_url}: {error}") from None
        self._reader = ReadAhead(file.read, nbytes, readahead_nbytes)

    def __len__(self) -> int:
        return len(self.keys)

    @functools.cached_property
    def _positions(self) -> Dict[Any, int]:
        return {key: position for position, key in enumerate(self.keys)}

    def read_idx(self, key: Any) -> bytes:
        """The record with key ``key`` in the index; raises KeyError if there is none."""
        return self.read_at(self._positions[key])

    def read_at(self, position: int) -> bytes:
        """The record at ``position`` in the index, counted from 0; raises IndexError beyond it."""
        if not 0 <= position < len(self.keys):
            raise IndexError(f"{self.url} has {len(self.keys)} records, and no record {position}")
        start, end = int(self._starts[position]), int(self._ends[position])
        try:
            record = read_record(io.BytesIO(self._reader.read(start, end)))
        except RecordError as error:
            raise RecordError(
                f"{self.url}, key {self.keys[position]} at byte {start}: {error}"
            ) from None
        assert record is not None  # no extent is empty
        return record


class RemoteRecordDataset(mx.gluon.data.Dataset):
    """The records of a file as bytes, like `mx.gluon.data.RecordFileDataset`.

    Arguments and errors are those of `RemoteRecordIO`.
    """

    def __init__(self, url: str, idx_url: Optional[str] = None, **options: Any) -> None:
        self._records = RemoteRecordIO(url, idx_url, **options)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, idx: int) -> Any:
        return self._records.read_at(idx)


class RemoteImageRecordDataset(RemoteRecordDataset):
    """Images with their labels, like `mx.gluon.data.vision.ImageRecordDataset`.

    An image is an NDArray of uint8 (height, width, channels). ``flag`` is 1 for colour and 0 for
    grey. ``transform(image, label)`` is applied to each sample. The other arguments and the errors
    are those of `RemoteRecordIO`.
    """

    def __init__(
        self,
        url: str,
        idx_url: Optional[str] = None,
        flag: int = 1,
        transform: Optional[Callable[[Any, Any], Any]] = None,
        **options: Any,
    ) -> None:
        super().__init__(url, idx_url, **options)
        self._flag = flag
        self._transform = transform

    def __getitem__(self, idx: int) -> Any:
        header, encoded = mx.recordio.unpack(super().__getitem__(idx))
        image = mx.image.imdecode(encoded, self._flag)
        if self._transform is None:
            return image, header.label
        return self._transform(image, header.label)
