"""This worker's part of the data for MXNet's loaders: Gluon's DataLoader and the older DataIters.

Every worker gets the same number of batches, except with ``last='join'``.
"""

from typing import Any, Dict, Iterable, Iterator, Optional

import mxnet as mx

from baryon.ps import UsageError

from ...data.shards import part_of_job, shard

__all__ = ["ShardSampler", "ShardIter", "image_record_iter", "joining"]


class ShardSampler(mx.gluon.data.Sampler):
    """This worker's samples of a data set of ``length``, for a DataLoader's ``sampler``.

    Pass the DataLoader's ``batch_size``, so that all batches are full. `shard` explains ``last``,
    ``shuffle`` and ``seed``. ``rank`` and ``num_workers`` default to the job's, or to 0 and 1
    outside a job. Each iteration is one epoch, and the next iteration is the next epoch. A script
    that resumes calls `set_epoch`.

    Raises UsageError for arguments that make no sense, and if no worker would get a sample.
    """

    def __init__(
        self,
        length: int,
        batch_size: int = 1,
        last: str = "pad",
        shuffle: bool = False,
        seed: int = 0,
        rank: Optional[int] = None,
        num_workers: Optional[int] = None,
    ) -> None:
        self._rank, self._num_workers = part_of_job(rank, num_workers)
        self._how: Dict[str, Any] = {
            "last": last,
            "shuffle": shuffle,
            "seed": seed,
            "batch_size": batch_size,
        }
        self._samples = length
        self._epoch = 0
        self._length = len(self._indices(0))
        if not self._length and (last != "join" or not length):
            raise UsageError(
                f"{length} samples are too few for {self._num_workers} worker(s) with batches of "
                f"{batch_size} each; make batches smaller, or pass last='pad'"
            )

    def _indices(self, epoch: int) -> Any:
        return shard(self._samples, self._rank, self._num_workers, epoch=epoch, **self._how)

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration epoch ``epoch``, counted from 0; the same on all workers.

        A DataLoader with ``auto_reload=True`` has already begun its next epoch.
        """
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        epoch, self._epoch = self._epoch, self._epoch + 1
        return iter(self._indices(epoch).tolist())

    def __len__(self) -> int:
        return self._length


def joining(batches: Iterable[Any], store: Any) -> Iterable[Any]:
    """``batches``, and after the last one a ``store.join()``, which waits for the other workers.

    It is for workers with different numbers of batches (``last='join'``): a worker that has joined
    counts as done for the epoch, and the others do not wait for it. Iterate it once an epoch. If a
    loop ends early, call ``store.join()`` yourself.
    """
    return _Joining(batches, store)


class _Joining:
    def __init__(self, batches: Iterable[Any], store: Any) -> None:
        self._batches = batches
        self._store = store

    def __iter__(self) -> Iterator[Any]:
        yield from self._batches
        self._store.join()

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]


class ShardIter(mx.io.DataIter):
    """`mx.io.NDArrayIter` over this worker's part of the arrays.

    ``data`` and ``label`` are arrays (NumPy's or dense NDArrays, samples along the first axis),
    lists of arrays, or dicts from name to array, and the same on all workers. The other arguments
    are those of `ShardSampler`; ``options`` go to NDArrayIter. Each `reset` begins the next epoch.
    A batch always has ``batch_size`` samples: with ``last='join'`` NDArrayIter fills up a worker's
    last batch, and its ``pad`` is the number of samples added.
    """

    def __init__(
        self,
        data: Any,
        label: Any = None,
        batch_size: int = 1,
        last: str = "pad",
        shuffle: bool = False,
        seed: int = 0,
        rank: Optional[int] = None,
        num_workers: Optional[int] = None,
        **options: Any,
    ) -> None:
        super().__init__(batch_size)
        if "last_batch_handle" in options:
            raise UsageError("pass last= instead of last_batch_handle=")
        self._arrays = data, label
        self._options = options
        self._sampler = ShardSampler(
            _length_of(data, label), batch_size, last, shuffle, seed, rank, num_workers
        )
        if not len(self._sampler):
            raise UsageError("this worker would have no sample; pass last='pad'")
        self.reset()

    def set_epoch(self, epoch: int) -> None:
        """Begin epoch ``epoch`` now, counted from 0; the same on all workers."""
        self._sampler.set_epoch(epoch)
        self.reset()

    def reset(self) -> None:
        """Begin the next epoch."""
        indices = list(self._sampler)
        data, label = (_rows(arrays, indices) for arrays in self._arrays)
        self._part = mx.io.NDArrayIter(data, label, self.batch_size, **self._options)

    @property
    def provide_data(self) -> Any:
        return self._part.provide_data

    @property
    def provide_label(self) -> Any:
        return self._part.provide_label

    def next(self) -> Any:
        return self._part.next()

    def iter_next(self) -> bool:
        return bool(self._part.iter_next())

    def getdata(self) -> Any:
        return self._part.getdata()

    def getlabel(self) -> Any:
        return self._part.getlabel()

    def getindex(self) -> Any:
        return self._part.getindex()

    def getpad(self) -> Any:
        return self._part.getpad()


def _arrays_of(data: Any) -> Any:
    if data is None:
        return []
    if isinstance(data, dict):
        return list(data.values())
    return list(data) if isinstance(data, (list, tuple)) else [data]


def _length_of(data: Any, label: Any) -> int:
    """How many samples the arrays have; raises UsageError if they do not agree."""
    lengths = {array.shape[0] for array in _arrays_of(data) + _arrays_of(label)}
    if len(lengths) != 1:
        raise UsageError(
            f"data and label must have the same number of samples, not {sorted(lengths)}"
        )
    return int(lengths.pop())


def _rows(data: Any, indices: Any) -> Any:
    """``data`` with only these samples of each array."""
    if data is None:
        return None
    if isinstance(data, dict):
        return {name: array[indices] for name, array in data.items()}
    return [array[indices] for array in _arrays_of(data)]


def image_record_iter(
    path_imgrec: str,
    path_imgidx: str,
    batch_size: int,
    last: str = "pad",
    rank: Optional[int] = None,
    num_workers: Optional[int] = None,
    **options: Any,
) -> Any:
    """`mx.io.ImageRecordIter` over this worker's part of a local file.

    All workers get the same number of batches. MXNet gives each worker a run of the file's records
    (``num_parts`` and ``part_index``), the same in every epoch; the last run may be shorter.
    ``last`` is ``pad`` (every record is seen, and a worker that runs out begins anew) or ``drop``
    (as many batches as the shortest run can fill). ``options`` go to ImageRecordIter, for example
    ``data_shape`` and ``shuffle``. For remote files see `local_copy`.

    Raises UsageError if there are too few records, and OSError if the index cannot be read.
    """
    rank, num_workers = part_of_job(rank, num_workers)
    with open(path_imgidx) as index:
        length = sum(1 for line in index if line.strip())
    batches = _batches_of_parts(length, num_workers, batch_size, last)
    part = mx.io.ImageRecordIter(
        path_imgrec=path_imgrec,
        path_imgidx=path_imgidx,
        batch_size=batch_size,
        num_parts=num_workers,
        part_index=rank,
        **options,
    )
    return mx.io.ResizeIter(part, batches)


def _batches_of_parts(length: int, num_workers: int, batch_size: int, last: str) -> int:
    """How many batches each worker has in an epoch over ``length`` records.

    dmlc-core's src/io/indexed_recordio_split.cc gives each worker ceil(length / num_workers)
    records, and the last ones the rest, which may be empty.
    """
    if last not in ("pad", "drop"):
        raise UsageError(f"last is pad or drop for ImageRecordIter, not {last!r}")
    longest = -(-length // num_workers)
    shortest = length - longest * (num_workers - 1)
    batches = -(-longest // batch_size) if last == "pad" else shortest // batch_size
    if batches < 1 or shortest < 1:
        raise UsageError(
            f"{length} records are too few for {num_workers} workers with batches of "
            f"{batch_size} each; use fewer workers or smaller batches"
        )
    return batches
