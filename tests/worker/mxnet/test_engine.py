"""Engine operations that complete later: who waits for them, and who does not."""

import ctypes
import functools
import os
import subprocess
import sys
import threading
from typing import Any, Callable, List, Optional

import mxnet as mx
import numpy as np
import pytest

from baryon.ps import UsageError
from baryon.worker.mxnet import engine
from baryon.worker.mxnet.compat import array_over
from baryon.worker.mxnet.engine import address_of, as_handles, complete, copy, push_async, settle
from tests.waiting import LIMIT_S


class Step:
    """An operation that calls ``action(completion)`` when it starts."""

    def __init__(self, action: Callable[[bytes], None]) -> None:
        self.start = action

    def failed(self, error: Optional[str]) -> None:
        raise AssertionError("an operation has failed")


def test_operation_starts_when_what_it_reads_is_ready_and_holds_what_it_writes() -> None:
    x = mx.nd.random.uniform(shape=(300, 300))
    product, out = mx.nd.dot(x, x), mx.nd.zeros((300, 300))
    held: List[bytes] = []
    started = threading.Event()

    def start(completion: bytes) -> None:
        held.append(completion)
        started.set()

    push_async(Step(start), as_handles([product, out]))
    after = out + 1  # queued behind the operation
    seen: List[np.ndarray] = []
    reader = threading.Thread(target=lambda: seen.append(after.asnumpy()))
    reader.start()
    assert started.wait(LIMIT_S)
    unrelated = (mx.nd.ones(3) * 2).asnumpy()  # the engine goes on with everything else
    assert unrelated.tolist() == [2, 2, 2]
    assert not seen
    complete(held[0])
    reader.join(LIMIT_S)
    assert (seen[0] == 1).all()


def test_operations_of_one_array_run_in_program_order() -> None:
    array = mx.nd.zeros(1)
    order: List[int] = []

    def start(number: int, completion: bytes) -> None:
        order.append(number)
        complete(completion)

    for number in range(200):
        push_async(Step(functools.partial(start, number)), as_handles([array]))
    array.wait_to_read()
    assert order == list(range(200))


def test_failed_operation_raises_in_whoever_waits_and_what_depends_on_it_is_skipped() -> None:
    place, out = mx.nd.zeros(3), mx.nd.full(3, 7)
    failing = Step(lambda completion: complete(completion, "the server has gone"))
    push_async(failing, as_handles([place]))
    place.copyto(out)
    with pytest.raises(mx.MXNetError, match="the server has gone"):
        out.wait_to_read()
    assert out.asnumpy().tolist() == [7, 7, 7]
    assert (mx.nd.ones(1) + 1).asscalar() == 2


def test_exception_in_start_does_not_hold_the_arrays() -> None:
    array = mx.nd.zeros(1)

    def start(completion: bytes) -> None:
        raise ValueError("a bug")

    push_async(Step(start), as_handles([array]))
    with pytest.raises(ValueError, match="a bug"):  # MXNet goes by the text's beginning
        array.wait_to_read()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", "int8", "int64"])
def test_array_over_memory_is_that_memory(dtype: str) -> None:
    memory = np.zeros(6, dtype)
    array = array_over(memory[:].reshape(2, 3))
    array += 3
    array.wait_to_read()
    assert memory.tolist() == [3] * 6
    memory[0] = 5
    assert array[0, 0].asscalar() == 5


def test_sum_of_arrays_in_mkldnn_layout_is_plain() -> None:
    """Gradients of convolutions are in a layout of MKLDNN's own; their sum in our memory is not."""
    conv = mx.gluon.nn.Conv2D(32, 3, in_channels=16)
    devices = [mx.cpu(0), mx.cpu(1)]
    conv.initialize(ctx=devices)
    conv.hybridize(static_alloc=True, static_shape=True)
    inputs = [mx.nd.random.uniform(shape=(4, 16, 9, 9), ctx=device) for device in devices]
    with mx.autograd.record():
        losses = [(conv(x) ** 2).sum() for x in inputs]
    mx.autograd.backward(losses)
    first, second = conv.weight.list_grad()
    memory = np.zeros(first.shape, np.float32)
    mx.nd.add_n(first, second, out=array_over(memory[:]))
    mx.nd.waitall()
    np.testing.assert_array_equal(memory, first.asnumpy() + second.asnumpy())
    first.copyto(array_over(memory[:]))
    mx.nd.waitall()
    np.testing.assert_array_equal(memory, first.asnumpy())


def test_the_bytes_of_an_array_in_mkldnns_layout_are_those_that_numpy_sees() -> None:
    """As convolutions leave them; a plain look at the memory would find the channels mixed up."""
    x = mx.nd.random.uniform(shape=(8, 16, 14, 14))
    weight = mx.nd.random.uniform(shape=(32, 16, 3, 3))

    def output() -> Any:
        return mx.nd.Convolution(x, weight, kernel=(3, 3), num_filter=32, no_bias=True)

    expected = output().asnumpy()
    array, found = output(), np.zeros_like(expected)
    was_mixed: List[bool] = []
    finished = threading.Event()

    def start(completion: bytes) -> None:
        was_mixed.append(engine._is_mkldnn(ctypes.c_void_p(engine._chunk(array))))
        ctypes.memmove(found.ctypes.data, address_of(array), found.nbytes)
        complete(completion)
        finished.set()

    push_async(Step(start), as_handles([array]))
    assert finished.wait(LIMIT_S)
    assert was_mixed == [True]
    assert (found == expected).all() and (array.asnumpy() == expected).all()


def test_views_of_one_array_count_once() -> None:
    array = mx.nd.arange(6)
    assert len(as_handles([array, array[0:2], array[2:4], mx.nd.ones(1)])) == 2


def test_arrays_overlap_that_are_views_of_one_but_not_the_same() -> None:
    array = mx.nd.arange(6)
    assert engine.overlap(array[0:4], array[2:6]) and engine.overlap(array, array[0:2])
    assert not engine.overlap(array, array)
    assert not engine.overlap(array, mx.nd.arange(6))


def test_copy_does_what_copyto_does() -> None:
    source, target = mx.nd.arange(6).reshape((2, 3)), mx.nd.zeros((2, 3))
    copy(source, target)
    assert target.asnumpy().tolist() == [[0, 1, 2], [3, 4, 5]]


def test_step_whose_start_raises_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    """Its bucket would wait for it for ever."""
    told: List[Any] = []
    step = Step(lambda completion: 1 // 0)  # type: ignore[arg-type, return-value]
    step.failed = told.append  # type: ignore[method-assign]
    array = mx.nd.zeros(1)
    push_async(step, as_handles([array]))
    assert settle(LIMIT_S)
    assert told == ["ZeroDivisionError: integer division or modulo by zero"]


def test_ctrl_c_in_a_step_of_naive_engine_reaches_the_script() -> None:
    """There the script's own thread starts it, in a callback that no exception leaves."""
    script = """
import mxnet as mx
from baryon.worker.mxnet.engine import as_handles, push_async
array = mx.nd.zeros(1)
class Step:
    def start(self, completion):
        raise KeyboardInterrupt
    def failed(self, error):
        print("failed", error)
try:
    push_async(Step(), as_handles([array]))
except KeyboardInterrupt:
    print("interrupted")
Step.start = lambda self, completion: 1 / 0
push_async(Step(), as_handles([array]))
"""
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "MXNET_ENGINE_TYPE": "NaiveEngine"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    told = [
        "failed KeyboardInterrupt: ",
        "interrupted",
        "failed ZeroDivisionError: division by zero",
    ]
    assert ended.stdout.splitlines() == told, ended.stderr


def test_engine_settles_when_its_operations_are_completed_and_its_threads_are_back() -> None:
    held: List[bytes] = []
    product = mx.nd.dot(*[mx.nd.ones((300, 300))] * 2)
    push_async(Step(held.append), as_handles([product]))
    failing = mx.nd.random.normal(0, -1, shape=3)
    step = Step(complete)
    step.failed = lambda error: None  # type: ignore[method-assign]
    push_async(step, as_handles([failing]))
    assert not settle(0.01)
    assert engine._alive
    threading.Timer(0.05, lambda: complete(held[0])).start()
    assert settle(LIMIT_S)
    assert not engine._alive and not engine._pending


def test_engine_that_is_shut_takes_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_is_shut", False)
    engine.shut()
    array = mx.nd.zeros(1)
    with pytest.raises(UsageError, match="has left its job"):
        push_async(Step(complete), as_handles([array]))
    assert settle(LIMIT_S)
