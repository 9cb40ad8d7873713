"""Trains a small convolutional net: ``train_net.py OUT [--update-on-kvstore yes|no] ...``.

See training.py.
"""

import mxnet as mx
import numpy as np
from mxnet import gluon
from training import new_parser, run_all, train, write_weights

parser = new_parser()
parser.add_argument("--update-on-kvstore", choices=("yes", "no"), default="yes")


def main(args):
    kv = mx.kv.create("dist_sync")
    size = kv.num_workers
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
    train(args, kv, net, trainer, x, y, step_size=args.batch * size)
    for number, device in enumerate(devices):
        # Names without the net's prefix, which counts the nets of a process.
        parameters = enumerate(net.collect_params().values())
        write_weights(args, kv, number, {f"{i:02d}": p.data(device) for i, p in parameters})


run_all(parser, main)
