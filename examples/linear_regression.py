"""Fit a line to made-up data: the smallest Gluon program that trains on many machines.

    python examples/linear_regression.py
    launch.py -n 2 -s 1 --launcher local examples/linear_regression.py
    launch.py -n 4 -s 2 --workers-per-host 2 examples/linear_regression.py

All workers generate the same data from the same seed, and each trains on its own part. A step uses
one batch of each worker, so together they learn one line. The script exits with 1 if a learned
parameter is off by more than 0.01.
"""

import os
import sys

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon

EXAMPLES, BATCH, EPOCHS = 2000, 20, 10
TRUE_W, TRUE_B = np.array([1.5, -2.0, 0.25]), 3.0


def main():
    kv = mx.kv.create("dist_sync" if os.environ.get("DMLC_ROLE") == "worker" else "local")

    rng = np.random.RandomState(7)
    x = rng.normal(size=(EXAMPLES, len(TRUE_W)))
    y = x @ TRUE_W + TRUE_B + rng.normal(scale=0.01, size=EXAMPLES)
    steps = EXAMPLES // (BATCH * kv.num_workers)  # the same on all workers
    first = kv.rank * steps * BATCH
    x, y = mx.nd.array(x), mx.nd.array(y)

    net = gluon.nn.Dense(1, in_units=len(TRUE_W))
    net.initialize(mx.init.Zero())
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1}, kvstore=kv)
    loss_fn = gluon.loss.L2Loss()
    for _ in range(EPOCHS):
        for start in range(first, first + steps * BATCH, BATCH):
            with autograd.record():
                loss = loss_fn(net(x[start : start + BATCH]), y[start : start + BATCH])
            loss.backward()
            trainer.step(BATCH * kv.num_workers)  # gradients are summed over all workers

    w, b = net.weight.data().asnumpy()[0], net.bias.data().asscalar()
    error = max(np.abs(w - TRUE_W).max(), abs(b - TRUE_B))
    if kv.rank == 0:
        print(f"learned w = {np.round(w, 3).tolist()}, b = {b:.3f}")
        print(f"true    w = {TRUE_W.tolist()}, b = {TRUE_B:.3f}; largest error {error:.4f}")
    return 0 if error <= 0.01 else 1


if __name__ == "__main__":
    sys.exit(main())
