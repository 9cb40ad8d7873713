"""Trains nets for 15 steps and writes or reads a checkpoint of each after the fifth; prints losses.

argv: save or restore, the file's path up to its end, the optimizers, one for each net. The batches
are the same for any number of workers.
"""

import os
import sys

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon

from baryon.worker.mxnet import checkpoint

STEPS, SAVED, BATCH = 15, 5, 30
rank, num_workers = int(os.environ["DMLC_WORKER_ID"]), int(os.environ["DMLC_NUM_WORKER"])
inputs = np.random.RandomState(1).randn(STEPS * BATCH, 20).astype("float32")
labels = (inputs.sum(1) > 0).astype("float32")


def train(mode, path, optimizer):
    mx.random.seed(7)
    net = gluon.nn.HybridSequential(prefix="net_")
    with net.name_scope():  # the middle layer's weight has slices on several servers
        net.add(gluon.nn.Dense(700, activation="relu", in_units=20))
        net.add(gluon.nn.Dense(700, activation="relu", in_units=700))
        net.add(gluon.nn.Dense(2, in_units=700))
    net.initialize(mx.init.Xavier())
    options = {"learning_rate": 0.01, **({"momentum": 0.9} if optimizer == "sgd" else {})}
    trainer = gluon.Trainer(net.collect_params(), optimizer, options, kvstore="dist_sync")
    loss_of = gluon.loss.SoftmaxCrossEntropyLoss()
    first = 0
    if mode == "restore":
        found = checkpoint.restore(path, trainer)
        first = found.step
        print("FOUND", optimizer, found.position, found.positions, found.extra)
    for step in range(first, STEPS):
        batch = slice(step * BATCH, (step + 1) * BATCH)
        whole = loss_of(net(mx.nd.array(inputs[batch])), mx.nd.array(labels[batch]))
        print(f"LOSS {optimizer} {step} {whole.mean().asscalar():.5f}")
        part = mx.nd.array(inputs[batch][rank::num_workers])
        with autograd.record():
            loss = loss_of(net(part), mx.nd.array(labels[batch][rank::num_workers]))
        loss.backward()
        trainer.step(BATCH)
        if mode == "save" and step + 1 == SAVED:
            checkpoint.save(path, trainer, position={"rank": rank}, step=SAVED, extra="extra")


for name in sys.argv[3:]:
    train(sys.argv[1], sys.argv[2] + name, name)
