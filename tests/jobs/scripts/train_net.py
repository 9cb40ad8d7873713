"""Trains a small convolutional net on made-up data, the same for every layout of the job.

``train_net.py OUT --batch B --steps S [--update-on-kvstore yes|no] [--optimizer NAME]``: step t
takes the samples ``t*B*N + rank*B ...`` of a fixed sequence, so N workers of batch B see what one
of batch N*B sees. Writes OUT/losses-RANK.npy and OUT/weights-RANK.npz. Runs on any dist store.
"""

import argparse
import os

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon

parser = argparse.ArgumentParser()
parser.add_argument("out")
parser.add_argument("--batch", type=int, required=True)
parser.add_argument("--steps", type=int, default=12)
parser.add_argument("--devices", type=int, default=1)
parser.add_argument("--update-on-kvstore", choices=("yes", "no"), default="yes")
parser.add_argument("--optimizer", default="sgd")
args = parser.parse_args()

kv = mx.kv.create("dist_sync")
rank, size = kv.rank, kv.num_workers
devices = [mx.cpu(i) for i in range(args.devices)]

rng = np.random.RandomState(7)
samples = args.steps * args.batch * size
x = rng.uniform(-1, 1, (samples, 1, 12, 12)).astype(np.float32)
y = rng.randint(0, 5, samples).astype(np.float32)

mx.random.seed(3)
net = gluon.nn.HybridSequential()
net.add(
    gluon.nn.Conv2D(8, 3, activation="relu", in_channels=1),
    gluon.nn.MaxPool2D(2),
    gluon.nn.Dense(600, activation="relu", in_units=200),
    gluon.nn.Dense(600, activation="relu", in_units=600),
    gluon.nn.Dense(5, in_units=600),
)
net.initialize(mx.init.Xavier(), ctx=devices)
net.hybridize()
options = {"learning_rate": 0.05}
if args.optimizer == "sgd":
    options["momentum"] = 0.9
trainer = gluon.Trainer(
    net.collect_params(),
    args.optimizer,
    options,
    kvstore=kv,
    update_on_kvstore=args.update_on_kvstore == "yes",
)
loss_of = gluon.loss.SoftmaxCrossEntropyLoss()

losses = []
for step in range(args.steps):
    start = (step * size + rank) * args.batch
    batch = slice(start, start + args.batch)
    xs = gluon.utils.split_and_load(mx.nd.array(x[batch]), devices)
    ys = gluon.utils.split_and_load(mx.nd.array(y[batch]), devices)
    with autograd.record():
        parts = [loss_of(net(a), b) for a, b in zip(xs, ys)]
    autograd.backward(parts)
    trainer.step(args.batch * size)
    losses.append(sum(part.sum().asscalar() for part in parts))

mx.nd.waitall()
np.save(os.path.join(args.out, f"losses-{rank}.npy"), np.array(losses))
for number, device in enumerate(devices):
    # Names without the net's prefix, which counts the nets of a process.
    weights = {
        f"{i:02d}": p.data(device).asnumpy() for i, p in enumerate(net.collect_params().values())
    }
    np.savez(os.path.join(args.out, f"weights-{rank}-{number}.npz"), **weights)
