"""Fits linear models with compressed gradients: ``compressed.py TYPE/STORE/WHERE ...``.

WHERE is "servers" or "workers": where the weights are updated. For each, every worker prints
``ERROR x`` (the distance from the right weights, relative to the first) and ``BITS hash`` of them.
"""

import hashlib
import sys

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon

SHAPE = (40, 25)


def fit(what):
    codec, store, where = what.split("/")
    kv = mx.kv.create(store)
    params = {"type": codec, "min_size": 1000}
    if codec == "2bit":
        params["threshold"] = 4
    if codec in ("topk", "randomk"):
        params["ratio"] = 0.1
    right = np.random.RandomState(1).uniform(-1, 1, SHAPE).astype("float32")
    net = gluon.nn.Dense(SHAPE[0], in_units=SHAPE[1])
    net.initialize(mx.init.Zero())
    trainer = gluon.Trainer(
        net.collect_params(),
        "sgd",
        {"learning_rate": 0.3},
        kvstore=kv,
        compression_params=params if codec != "none" else None,
        update_on_kvstore=where == "servers",
    )
    data = np.random.RandomState(2 + kv.rank)
    for _ in range(150 if store == "dist_sync" else 300):
        x = data.standard_normal((32, SHAPE[1])).astype("float32")
        with autograd.record():
            loss = gluon.loss.L2Loss()(net(mx.nd.array(x)), mx.nd.array(x @ right.T)) * 10
        loss.backward()
        trainer.step(32 * kv.num_workers)
    kv.barrier()
    found = net.weight.data().asnumpy()
    print(f"ERROR {what} {np.abs(found - right).mean() / np.abs(right).mean():.6f}")
    print(
        "BITS",
        what,
        hashlib.sha256(found.tobytes() + net.bias.data().asnumpy().tobytes()).hexdigest(),
    )


for name in sys.argv[1:]:
    fit(name)
