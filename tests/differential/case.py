"""What a case of the differential test is, and what it may use.

A case is a function that makes calls of a store and returns what came of them, with the right
answer beside it, computed without a store. Every worker of a job runs it. The same function runs on
MXNet's own store and on ours, whose results judge.py compares.
"""

import math
import os
from typing import Any, Callable, Dict, List, NamedTuple, Optional

__all__ = ["CASES", "RTOL", "Answer", "Case", "Job", "case", "plain", "raised"]

RTOL = 1e-5
_SHOWN = 24  # elements; of a bigger array, samples and a sum


class Answer(NamedTuple):
    """What a case got, and what it should have got."""

    got: Any
    right: Any


class Case(NamedTuple):
    """One case, and how it has to be run."""

    name: str
    what: str
    run: Callable[["Job"], Answer]
    theme: str
    group: Optional[str]  # cases of one group share a native job; None: a job of its own
    is_refused: bool  # the right answer is an exception
    ends_job: bool  # a job of its own on our side too
    workers: int
    rtol: float  # within which floats are the same


CASES: Dict[str, Case] = {}


def case(
    group: Optional[str] = None,
    refused: bool = False,
    ends_job: bool = False,
    workers: int = 2,
    name: Optional[str] = None,
    what: Optional[str] = None,
    rtol: float = RTOL,
) -> Callable[[Callable[["Job"], Any]], Callable[["Job"], Any]]:
    """Register ``case_NAME``; its docstring says what it does."""

    def register(function: Callable[["Job"], Any]) -> Callable[["Job"], Any]:
        called = name or function.__name__[len("case_") :]
        assert called not in CASES, f"two cases are called {called}"
        text = what or " ".join((function.__doc__ or "").split())
        assert text, f"{called} does not say what it does"
        theme = function.__module__.rpartition(".")[2]
        CASES[called] = Case(
            called, text, function, theme, group, refused, ends_job, workers, rtol
        )  # fmt: skip
        return function

    return register


class Job:
    """What a case knows of the job that it runs in, and where it gets stores and keys from.

    MXNet's own store can be made once in a process (a second one waits for ever), so there all
    cases of a job share one, with keys of their own; ``is_shared`` says so.
    """

    def __init__(self, workers: int, is_shared: bool, folder: str) -> None:
        self.num_workers = workers
        self.folder = folder
        self.rank = -1  # until there is a store
        self._is_shared = is_shared
        self._store: Any = None
        self._keys = 10

    def kv(self, optimizer: Any = None) -> Any:
        """A ``dist_sync`` store, on which all workers have set ``optimizer`` if one is given."""
        import mxnet as mx

        if self._store is None or not self._is_shared:
            self._store = mx.kv.create("dist_sync")
            self.rank = self._store.rank
        if optimizer is not None:
            self._store.set_optimizer(optimizer)
            self._store._barrier()
        return self._store

    def key(self) -> int:
        """A key that no case has used."""
        self._keys += 1
        return self._keys

    def keys(self, count: int) -> List[int]:
        return [self.key() for _ in range(count)]

    def names(self, count: int) -> List[str]:
        """Keys that are strings."""
        return [f"w{key}" for key in self.keys(count)]

    def total(self, contribution: Callable[[int], Any]) -> Any:
        """The sum over all workers' ``contribution(rank)``."""
        parts = [contribution(rank) for rank in range(self.num_workers)]
        return sum(parts[1:], parts[0])

    def file(self, name: str) -> str:
        """A path of this worker's own."""
        return os.path.join(self.folder, f"{name}-{os.getpid()}")


def plain(value: Any) -> Any:
    """``value`` as JSON; arrays as a dict that says dtype, shape, and elements or samples."""
    if hasattr(value, "asnumpy"):
        dense = value.asnumpy()
        found = {"dtype": dense.dtype.name, "shape": list(dense.shape), **_elements(dense)}
        if getattr(value, "stype", "default") == "row_sparse":
            found["rows"] = [int(row) for row in value.indices.asnumpy()]
        return found
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        array = value if value.shape else value.reshape(())
        return {"dtype": array.dtype.name, "shape": list(array.shape), **_elements(array)}
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value


def _elements(array: Any) -> Dict[str, Any]:
    flat = array.reshape(-1)
    if flat.size <= _SHOWN:
        return {"values": flat.tolist()}
    step = max(1, math.ceil(flat.size / _SHOWN))
    samples = [*flat[::step].tolist(), flat[-1].item()]
    return {"samples": samples, "sum of |x|": float(abs(flat.astype("float64")).sum())}


def raised(call: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
    """Whether ``call`` raises, for cases that have more to tell than that."""
    try:
        call(*args, **kwargs)
    except Exception:
        return True
    return False
