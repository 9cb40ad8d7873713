"""Trains a net with an embedding, of which a batch needs few rows.

``train_embedding.py OUT --weight dense|row_sparse [--lazy yes|no] ...``: the gradient is
row_sparse, and the weight as asked for. See training.py.
"""

import mxnet as mx
import numpy as np
from mxnet import gluon
from training import new_parser, run_all, train, write_weights

parser = new_parser()
parser.set_defaults(steps=8)
parser.add_argument("--weight", choices=("dense", "row_sparse"), required=True)
parser.add_argument("--rows", type=int, default=400)
parser.add_argument("--width", type=int, default=8)
parser.add_argument("--momentum", type=float, default=0.0)
parser.add_argument("--wd", type=float, default=0.01)
parser.add_argument("--lazy", choices=("yes", "no"), default=None)
parser.add_argument("--kvstore", default="dist_sync")
LENGTH = 3  # of a sample


class Net(gluon.Block):
    def __init__(self, args):
        super().__init__()
        self.args = args
        with self.name_scope():
            stype = "default" if args.weight == "dense" else "row_sparse"
            self.table = self.params.get(
                "table", shape=(args.rows, args.width), stype=stype, grad_stype="row_sparse"
            )
            self.output = gluon.nn.Dense(4, in_units=LENGTH * args.width)

    def forward(self, x):
        args = self.args
        if args.weight == "dense":
            table = self.table.data(x.context)
        else:
            table = self.table.row_sparse_data(x.reshape((-1,)))
        embedded = mx.nd.Embedding(
            x, table, input_dim=args.rows, output_dim=args.width, sparse_grad=True
        )
        return self.output(embedded)


def main(args):
    kv = mx.kv.create(args.kvstore)
    size = kv.num_workers
    devices = [mx.cpu(i) for i in range(args.devices)]
    rng = np.random.RandomState(7)
    samples = args.steps * args.batch * size
    # Rows near the first one are there in every batch, those near the last one hardly ever.
    x = np.minimum(rng.exponential(args.rows / 10, (samples, LENGTH)), args.rows - 1).astype(int)
    y = rng.randint(0, 4, samples).astype(np.float32)

    mx.random.seed(3)
    net = Net(args)
    net.initialize(mx.init.Uniform(0.5), ctx=devices)
    # With a row_sparse weight MXNet's own store is given the optimizer before the first step.
    options = {"learning_rate": 0.1, "wd": args.wd, "rescale_grad": 1 / (args.batch * size)}
    if args.momentum:
        options["momentum"] = args.momentum
    if args.lazy:
        options["lazy_update"] = args.lazy == "yes"
    trainer = gluon.Trainer(net.collect_params(), args.optimizer, options, kvstore=kv)
    train(args, kv, net, trainer, x, y, step_size=1)
    if args.weight == "dense":
        table = net.table.data(devices[0])
    else:
        table = net.table.row_sparse_data(mx.nd.arange(args.rows))
    write_weights(args, kv, 0, {"table": table, "output": net.output.weight.data(devices[0])})


run_all(parser, main)
