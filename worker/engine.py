"""MXNet's dependency engine, driven from Python: operations that complete later.

`push_async` queues an operation that runs once the arrays it reads are ready and that holds the
arrays it writes until its completion is called, from any thread, at any later time. To the engine
it is an operator like any other, so whatever computes with those arrays waits for exactly them.

This is MXNet's C API (``MXEnginePushAsyncND`` in c_api.h; ``CallbackOnComplete`` in engine.h,
both shipped in MXNet's wheel), so nothing is compiled. The callback runs in an engine thread, of
which there may be one only: it must not wait for anything, least of all for another operation.
"""

import ctypes
import functools
import itertools
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from mxnet.base import _LIB, check_call

__all__ = ["Done", "push_async"]

Done = Callable[[Optional[str]], None]
"""``done(None)`` completes an operation; ``done(text)`` makes it one that has failed: what would
read the arrays it writes is skipped, and whoever waits for those gets an MXNetError with ``text``.
"""

_COMPLETION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_OPERATION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


class _CallbackOnComplete(ctypes.Structure):
    """engine.h: the completion to call, as ``callback(engine, param, error)``."""

    _fields_ = (
        ("callback", ctypes.c_void_p),
        ("engine", ctypes.c_void_p),
        ("param", ctypes.c_void_p),
    )


class _Context(ctypes.Structure):
    """base.h: ``Context {DeviceType dev_type; int32_t dev_id;}``; the CPU is type 1."""

    _fields_ = (("dev_type", ctypes.c_int32), ("dev_id", ctypes.c_int32))


_CPU = ctypes.byref(_Context(1, 0))
_ASYNC = ctypes.byref(ctypes.c_int(4))  # engine.h: FnProperty::kAsync
_NAME = b"baryon"

_pending: Dict[int, Tuple[Callable[[Done], None], Callable[[], None]]] = {}
_tokens = itertools.count(1)
_errors: List[Any] = []  # the memory of what `_error` has made


@_OPERATION
def _run(_context: int, on_complete: int, token: int) -> None:
    """The one callback of all operations; called by an engine thread, once per operation."""
    # The engine's own copy of this struct does not outlive the call: take its three words.
    completion = _CallbackOnComplete.from_address(on_complete)
    call, engine, param = completion.callback, completion.engine, completion.param

    def done(error: Optional[str]) -> None:
        _COMPLETION(call)(engine, param, None if error is None else _error(error))

    try:
        start, _ = _pending.pop(token)
        start(done)
    except BaseException as error:
        # ctypes would print and drop it, and whoever waits for the arrays would wait for ever.
        done(f"{type(error).__name__}: {error}")


@_DELETER
def _delete(token: int) -> None:
    """Called when the engine has done with an operation, also with one that it has skipped."""
    _, on_skipped = _pending.pop(token, (None, None))
    if on_skipped is not None:
        on_skipped()


@functools.lru_cache(maxsize=None)  # the engine copies the object; few texts, kept for good
def _error(text: str) -> ctypes.c_void_p:
    """A ``dmlc::Error`` (dmlc/logging.h), which is a ``std::runtime_error`` and nothing more."""
    storage = ctypes.create_string_buffer(64)  # sizeof is 16
    construct = ctypes.CDLL("libstdc++.so.6")["_ZNSt13runtime_errorC1EPKc"]
    construct(storage, text.encode(errors="replace"))
    _errors.append(storage)
    return ctypes.cast(storage, ctypes.c_void_p)


def push_async(
    start: Callable[[Done], None],
    reads: Sequence[Any],
    writes: Sequence[Any],
    priority: int = 0,
    on_skipped: Callable[[], None] = lambda: None,
) -> None:
    """Queue an operation over NDArrays; ``start(done)`` is called when its turn has come.

    ``start`` must return soon; ``done`` must be called once, at any time. ``on_skipped()`` is
    called instead of ``start`` if one of the arrays could not be computed: the engine completes
    such an operation without running it.
    An array that is both read and written belongs in ``writes`` only.
    """
    token = next(_tokens)
    _pending[token] = (start, on_skipped)
    check_call(
        _LIB.MXEnginePushAsyncND(
            _run,
            ctypes.c_void_p(token),
            _delete,
            _CPU,
            _handles(reads),
            len(reads),
            _handles(writes),
            len(writes),
            _ASYNC,
            priority,
            _NAME,
            False,
        )
    )


def _handles(arrays: Sequence[Any]) -> Any:
    handles: List[Any] = [array.handle for array in arrays]
    return (ctypes.c_void_p * max(1, len(handles)))(*handles)
