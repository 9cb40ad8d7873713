"""A worker that ends in the middle of its training: ENDS_WHAT is under way, and ENDS_HOW it ends.

``how`` is one for each worker, by rank; "stay" waits for the others, and ends because of them.
"""

import faulthandler
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import mxnet as mx
import numpy as np

WHAT, HOW = os.environ["ENDS_WHAT"], os.environ["ENDS_HOW"].split(",")
kv = mx.kv.create("dist_sync")
how = HOW[kv.rank]


def end() -> None:
    """End in this worker's way; the others', if it stays, come to it."""
    if how == "raise":
        raise ValueError("the end of this worker")
    if how == "record":
        with mx.autograd.record():
            raise ValueError("the end of this worker, while recording")
    if how == "exit":
        sys.exit(3)
    if how == "system_exit":
        raise SystemExit(4)
    if how == "text":
        sys.exit("the end of this worker")
    if how == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)


def network() -> None:
    """Dense: an ordinary loop, which ends after a step whose answers are still to come."""
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Conv2D(16, 3, activation="relu"), mx.gluon.nn.Dense(500))
    net.add(mx.gluon.nn.Dense(500), mx.gluon.nn.Dense(10))
    net.initialize()
    net.hybridize()
    trainer = mx.gluon.Trainer(net.collect_params(), "adam", kvstore=kv)
    loss_of = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    x, y = mx.nd.random.uniform(shape=(16, 1, 28, 28)), mx.nd.zeros(16)
    step = 0
    while True:
        with mx.autograd.record():
            loss = loss_of(net(x), y)
        loss.backward()
        trainer.step(16)
        step += 1
        if step == 3:
            end()
        if step > 3:
            mx.nd.waitall()


def pushes() -> None:
    """Pushes that are never pulled; those who stay wait for a value."""
    out = mx.nd.zeros((400, 400))
    for key in range(20):
        kv.init(key, mx.nd.zeros((400, 400)))
    kv.barrier()
    for _ in range(3):
        for key in range(20):
            kv.push(key, mx.nd.random.uniform(shape=(400, 400)))
    end()
    while True:
        kv.pushpull(0, mx.nd.ones((400, 400)), out=out)
        out.wait_to_read()


def rows() -> None:
    """Row-sparse pulls, which wait for a round that the others have not completed."""
    shape, ids = (1000, 16), mx.nd.array([1, 5, 9], dtype="int64")
    kv.init("rows", mx.nd.zeros(shape).tostype("row_sparse"))
    kv.barrier()
    out = mx.nd.zeros(shape, stype="row_sparse")
    values = (np.ones((3, 16), np.float32), np.array([1, 5, 9]))
    grad = mx.nd.sparse.row_sparse_array(values, shape=shape)
    for step in range(10**9):
        if step == 2 and how == "interrupt":
            # While it waits for rows: no other worker pushes any more, or none of those that end.
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            time.sleep(0.1)
            kv.push("rows", grad)
            kv.row_sparse_pull("rows", out=out, row_ids=ids)
            time.sleep(10)
        kv.push("rows", grad)
        if step == 2 and how != "stay":
            pulling = threading.Thread(
                target=kv.row_sparse_pull, args=("rows", out), kwargs={"row_ids": ids}, daemon=True
            )
            pulling.start()
            end()
        kv.row_sparse_pull("rows", out=out, row_ids=ids)


def module() -> None:
    """Module, whose callback at the end of a batch ends."""
    data = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=300, name="one")
    symbol = mx.sym.SoftmaxOutput(
        mx.sym.FullyConnected(data, num_hidden=10, name="two"), name="softmax"
    )
    source = mx.io.NDArrayIter(np.ones((400, 100), np.float32), np.zeros(400), batch_size=10)

    def callback(param: object) -> None:
        if param.nbatch == 3:  # type: ignore[attr-defined]
            end()

    model = mx.mod.Module(symbol)
    model.fit(source, num_epoch=10**6, kvstore=kv, batch_end_callback=callback)


class Failing(mx.operator.CustomOp):
    """Its backward pass fails, in a thread of MXNet's."""

    def forward(self, is_train, req, in_data, out_data, aux):  # type: ignore[no-untyped-def]
        self.assign(out_data[0], req[0], in_data[0])

    def backward(self, req, out_grad, in_data, out_data, in_grad, aux):  # type: ignore[no-untyped-def]
        raise ValueError("the end of this worker, in an operator")


@mx.operator.register("failing")
class FailingProp(mx.operator.CustomOpProp):
    def create_operator(self, ctx, shapes, dtypes):  # type: ignore[no-untyped-def]
        return Failing()


def operator() -> None:
    """An operator of the script's own raises; the script ends where it reads what depends on it."""
    x = mx.nd.ones((300, 300))
    for key in range(4):
        kv.init(key, x)
    kv.barrier()
    x.attach_grad()
    with mx.autograd.record():
        y = mx.nd.Custom(x, op_type="failing") if how != "stay" else x * 2
    y.backward()
    for key in range(4):
        kv.pushpull(key, x.grad if key == 2 else x, out=mx.nd.zeros((300, 300)))
    if how == "stay":
        kv.barrier()
    x.grad.wait_to_read()
    raise AssertionError("the operator did not fail")


def begin_to_end(code: int) -> None:
    faulthandler.dump_traceback_later(4)  # it is killed after 5 s
    queued_s = int(Path(f"/proc/{os.getpid()}/schedstat").read_text().split()[1]) / 1e9
    path = Path(os.environ["ENDS_FOLDER"], f"moment-{kv.rank}")
    path.write_text(json.dumps([code, time.time() - queued_s]), encoding="utf-8")


try:
    {"dense": network, "push": pushes, "rows": rows, "module": module, "operator": operator}[WHAT]()
except SystemExit as error:
    begin_to_end(error.code if isinstance(error.code, int) else 1)
    raise
except KeyboardInterrupt:
    begin_to_end(130)
    raise
except BaseException:
    begin_to_end(1)
    raise
