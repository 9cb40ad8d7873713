"""Trains a net with an embedding, of which a batch needs few rows, on made-up data.

``train_embedding.py OUT --weight dense|row_sparse [--optimizer NAME] [--lazy yes|no] ...``: the
gradient is row_sparse, and the weight as asked for. Step t takes the samples ``t*B*N + rank*B ...``
of a fixed sequence, so N workers of batch B see what one of batch N*B sees. Writes
OUT/losses-RANK.npy and OUT/weights-RANK-0.npz. Runs on any dist store.
"""

import argparse
import os

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon

parser = argparse.ArgumentParser()
parser.add_argument("out")
parser.add_argument("--weight", choices=("dense", "row_sparse"), required=True)
parser.add_argument("--batch", type=int, default=6)
parser.add_argument("--steps", type=int, default=8)
parser.add_argument("--rows", type=int, default=400)
parser.add_argument("--width", type=int, default=8)
parser.add_argument("--devices", type=int, default=1)
parser.add_argument("--optimizer", default="sgd")
parser.add_argument("--momentum", type=float, default=0.0)
parser.add_argument("--wd", type=float, default=0.01)
parser.add_argument("--lazy", choices=("yes", "no"), default=None)
parser.add_argument("--kvstore", default="dist_sync")
args = parser.parse_args()

kv = mx.kv.create(args.kvstore)
rank, size = kv.rank, kv.num_workers
devices = [mx.cpu(i) for i in range(args.devices)]
LENGTH = 3  # of a sample


class Net(gluon.Block):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            stype = "default" if args.weight == "dense" else "row_sparse"
            self.table = self.params.get(
                "table", shape=(args.rows, args.width), stype=stype, grad_stype="row_sparse"
            )
            self.output = gluon.nn.Dense(4, in_units=LENGTH * args.width)

    def forward(self, x):
        if args.weight == "dense":
            table = self.table.data(x.context)
        else:
            table = self.table.row_sparse_data(x.reshape((-1,)))
        embedded = mx.nd.Embedding(
            x, table, input_dim=args.rows, output_dim=args.width, sparse_grad=True
        )
        return self.output(embedded)


rng = np.random.RandomState(7)
samples = args.steps * args.batch * size
# Rows near the first one are there in every batch, those near the last one hardly ever.
x = np.minimum(rng.exponential(args.rows / 10, (samples, LENGTH)), args.rows - 1).astype(int)
y = rng.randint(0, 4, samples).astype(np.float32)

mx.random.seed(3)
net = Net()
net.initialize(mx.init.Uniform(0.5), ctx=devices)
# With a row_sparse weight MXNet's own store is given the optimizer before the first step.
options = {"learning_rate": 0.1, "wd": args.wd, "rescale_grad": 1 / (args.batch * size)}
if args.momentum:
    options["momentum"] = args.momentum
if args.lazy:
    options["lazy_update"] = args.lazy == "yes"
trainer = gluon.Trainer(net.collect_params(), args.optimizer, options, kvstore=kv)
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
    trainer.step(1)
    losses.append(sum(part.sum().asscalar() for part in parts))

mx.nd.waitall()
if args.weight == "dense":
    table = net.table.data(devices[0])
else:
    table = net.table.row_sparse_data(mx.nd.arange(args.rows))
np.save(os.path.join(args.out, f"losses-{rank}.npy"), np.array(losses))
weights = {"table": table.asnumpy(), "output": net.output.weight.data(devices[0]).asnumpy()}
np.savez(os.path.join(args.out, f"weights-{rank}-0.npz"), **weights)
print("DONE")
