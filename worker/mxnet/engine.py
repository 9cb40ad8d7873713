"""MXNet's dependency engine, driven from Python: operations that complete later.

`push_async` queues an operation. It starts once its arrays are ready and no other operation uses
them, and holds them until it is completed: from any thread, at any later time. To the engine it is
an operator like any other, so a computation waits for exactly the arrays that it needs.

This is MXNet's C API (``MXEnginePushAsyncND`` in c_api.h and ``CallbackOnComplete`` in engine.h,
both in MXNet's wheel), so nothing is compiled. An operation starts in an engine thread, and the
engine may have only one: a start must not wait for anything, least of all for another operation.
"""

import ctypes
import functools
import itertools
import os
import struct
import sys
import threading
import time
import traceback
from typing import Any, Dict, List, Optional, Protocol, Sequence, Set

from mxnet.base import _LIB, check_call

from baryon.ps import UsageError

__all__ = [
    "Step",
    "address_of",
    "as_handles",
    "can_address",
    "complete",
    "copy",
    "overlap",
    "push_async",
    "settle",
    "shut",
    "wait_for_own",
]

# The same library, called without releasing Python's lock. These calls return at once; if each of
# them released the lock, another thread would take it, and this one would wait to get it back. (The
# engine holds no lock of its own while it calls us, so there is no deadlock.)
_QUICK = ctypes.PyDLL(_LIB._name)
# The debugging engine runs an operation inside the push, and waits there for its completion by
# another thread, which needs that lock.
_PUSHING = _LIB if os.environ.get("MXNET_ENGINE_TYPE") == "NaiveEngine" else _QUICK

_COMPLETION = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_OPERATION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


# engine.h: CallbackOnComplete {callback, engine, param}; call it as callback(engine, param, error).
_WORDS = struct.Struct("PPP")


class _Context(ctypes.Structure):
    """base.h: ``Context {DeviceType dev_type; int32_t dev_id;}``; the CPU is type 1."""

    _fields_ = (("dev_type", ctypes.c_int32), ("dev_id", ctypes.c_int32))


_CPU = ctypes.byref(_Context(1, 0))
# engine.h: FnProperty::kCPUPrioritized has threads of its own, which no computation occupies. With
# kAsync the script's own thread may run the callback, and a signal would raise an exception in it.
_PRIORITIZED = ctypes.byref(ctypes.c_int(3))
_NAME = b"baryon"


class Step(Protocol):
    """An operation, for the engine. It is a single object because thousands may exist at a time,
    and the garbage collector visits every object whenever many have been made.
    """

    def start(self, completion: bytes) -> None:
        """The arrays belong to it until ``complete(completion)``. Must return soon."""

    def failed(self, error: Optional[str]) -> None:
        """Called with None instead of `start` if an array could not be computed: the engine then
        completes the operation without running it. Called after `start` if that raised ``error``;
        the operation is completed with that error."""


_pending: Dict[int, Step] = {}
_alive: Set[int] = set()  # tokens of operations that the engine has, or is being given
_is_shut = False
_interrupt: Optional[KeyboardInterrupt] = None  # came in a callback, which it cannot leave
_tokens = itertools.count(1)
_completions: Dict[int, Any] = {}  # address -> function; each engine has one
_errors: List[Any] = []  # keeps the memory of `_error` alive


def _on_run(_context: int, on_complete: int, token: int) -> None:
    """The callback of all operations; an engine thread calls it once per operation."""
    # The engine's own copy of these words does not outlive the call.
    completion = ctypes.string_at(on_complete, _WORDS.size)
    step = _pending.pop(token)
    try:
        step.start(completion)
    except BaseException as error:
        # ctypes would print and drop it, and all that wait for the arrays would wait for ever.
        text = f"{type(error).__name__}: {error}"
        complete(completion, text)
        _fail(step, text)
        if isinstance(error, KeyboardInterrupt):  # NaiveEngine: this is the script's own thread
            global _interrupt
            _interrupt = error


def _on_delete(token: int) -> None:
    """Called when the engine has finished or skipped an operation."""
    step = _pending.pop(token, None)
    if step is not None:
        _fail(step, None)
    _alive.discard(token)


_run, _delete = _OPERATION(_on_run), _DELETER(_on_delete)
_CALLBACKS = (_on_run.__code__, _on_delete.__code__)


def _fail(step: Step, error: Optional[str]) -> None:
    try:
        step.failed(error)
    except Exception:
        traceback.print_exc()


@functools.lru_cache(maxsize=None)  # the engine copies the object; the few texts are kept for good
def _error(text: str) -> ctypes.c_void_p:
    """A ``dmlc::Error`` (dmlc/logging.h), which is a ``std::runtime_error`` and nothing more."""
    storage = ctypes.create_string_buffer(64)  # sizeof is 16
    construct = ctypes.CDLL("libstdc++.so.6")["_ZNSt13runtime_errorC1EPKc"]
    construct(storage, text.encode(errors="replace"))
    _errors.append(storage)
    return ctypes.cast(storage, ctypes.c_void_p)


def push_async(step: Step, writes: Any, priority: int = 0) -> None:
    """Queue an operation that owns its NDArrays from its `start` to its `complete`.

    ``writes`` are arrays made by `as_handles`.
    """
    token = next(_tokens)
    _alive.add(token)  # before looking, or `settle` might look between the two
    if _is_shut:
        _alive.discard(token)
        raise UsageError("this worker has left its job, so its kvstores cannot be used any more")
    _pending[token] = step
    check_call(
        _PUSHING.MXEnginePushAsyncND(
            _run,
            ctypes.c_void_p(token),
            _delete,
            _CPU,
            None,
            0,
            writes,
            len(writes),
            _PRIORITIZED,
            priority,
            _NAME,
            False,
        )
    )
    if _interrupt is not None and threading.current_thread() is threading.main_thread():
        _raise_interrupt()


def _raise_interrupt() -> None:
    global _interrupt
    error, _interrupt = _interrupt, None
    assert error is not None
    raise error


def complete(completion: bytes, error: Optional[str] = None) -> None:
    """Complete an operation, once, from any thread and at any time.

    With an ``error`` it has failed: the engine skips what would read the arrays that it writes, and
    a wait for those arrays raises an MXNetError with that text.
    """
    address, engine, param = _WORDS.unpack(completion)
    function = _completions.get(address)
    if function is None:
        function = _completions[address] = _COMPLETION(address)
    function(engine, param, None if error is None else _error(error))


def shut() -> None:
    """Have `push_async` raise UsageError from now on."""
    global _is_shut
    _is_shut = True


def settle(limit_s: float) -> bool:
    """Wait until the engine is idle and its threads have left Python; whether they have.

    Python must not end earlier. MXNet would wait at its own end for operations that are never
    completed, and a thread that returns to a Python that is ending aborts the process (134).
    """
    deadline = time.monotonic() + limit_s
    # MXNet's wait has no limit of its own. Whether a computation has failed does not matter here.
    waiter = threading.Thread(target=_LIB.MXNDArrayWaitAll, name="baryon-settle", daemon=True)
    waiter.start()
    waiter.join(limit_s)
    return not waiter.is_alive() and wait_for_own(deadline - time.monotonic())


def wait_for_own(limit_s: float) -> bool:
    """Like `settle`, but only for our own operations."""
    deadline = time.monotonic() + limit_s
    while _alive or _is_in_callback():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)  # without Python's lock, which they may need
    return True


def _is_in_callback() -> bool:
    """Whether an engine thread is in one of our callbacks.

    Such a thread releases Python's lock for good only after it has left the callback's code.
    """
    for frame in sys._current_frames().values():
        while frame.f_back is not None:
            frame = frame.f_back
        if frame.f_code in _CALLBACKS:
            return True
    return False


def as_handles(arrays: Sequence[Any]) -> Any:
    """NDArrays as the engine takes them, without repeats and without views of one another."""
    handles: List[Any] = [a.handle for a in {_chunk(array): array for array in arrays}.values()]
    return (ctypes.c_void_p * len(handles))(*handles)


# A convolution's arrays may be in MKLDNN's own layout. MXNDArrayGetData queues an operation to
# convert them and waits for it; inside an operation it would wait for ever. So we check and convert
# directly, by methods of NDArray::Chunk (ndarray.h), to which an NDArray's first member points.
_is_mkldnn = getattr(_QUICK, "_ZNK5mxnet7NDArray5Chunk8IsMKLDNNEv", None)
_to_default = getattr(_QUICK, "_ZN5mxnet7NDArray5Chunk15Reorder2DefaultEv", None)
if _is_mkldnn is not None:
    _is_mkldnn.restype = ctypes.c_bool


def can_address(arrays: Sequence[Any]) -> bool:
    """Whether `address_of` works for all: they are on the CPU, and MXNet's build is known."""
    return _to_default is not None and all(a.context.device_type == "cpu" for a in arrays)


def address_of(array: Any) -> int:
    """The address of a dense CPU array's elements, in C order.

    Call it only in an operation that writes the array, between its start and its completion.
    """
    assert _is_mkldnn is not None and _to_default is not None
    chunk = ctypes.c_void_p(_chunk(array))
    if _is_mkldnn(chunk):
        _to_default(chunk)
    address = ctypes.c_void_p()
    check_call(_QUICK.MXNDArrayGetData(array.handle, ctypes.byref(address)))
    if address.value is None and array.size:
        raise ValueError("an array given to the store has no memory")
    return address.value or 0


def overlap(one: Any, other: Any) -> bool:
    """Whether two different arrays may share bytes."""
    return one.handle.value != other.handle.value and _chunk(one) == _chunk(other)


def _chunk(array: Any) -> int:
    """The memory block of an array; views of one another have the same."""
    return int(ctypes.c_void_p.from_address(array.handle.value).value or 0)


def copy(source: Any, target: Any) -> None:
    """``source.copyto(target)`` for dense NDArrays of one shape, in a tenth of the time."""
    outputs = (ctypes.c_void_p * 1)(target.handle)
    check_call(
        _QUICK.MXImperativeInvokeEx(
            _copy_operator(),
            1,
            (ctypes.c_void_p * 1)(source.handle),
            ctypes.byref(ctypes.c_int(1)),
            ctypes.byref(ctypes.cast(outputs, ctypes.POINTER(ctypes.c_void_p))),
            0,
            None,
            None,
            ctypes.byref(ctypes.POINTER(ctypes.c_int)()),
        )
    )


@functools.lru_cache(maxsize=None)
def _copy_operator() -> ctypes.c_void_p:
    handle = ctypes.c_void_p()
    check_call(_LIB.NNGetOpHandle(b"_copyto", ctypes.byref(handle)))
    return handle
