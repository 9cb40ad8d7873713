"""What scripts share that train a net on made-up data, the same for every layout of the job.

Step t takes the samples ``t*B*N + rank*B ...`` of a fixed sequence, so N workers of batch B see
what one of batch N*B sees. They write OUT/losses-RANK.npy and OUT/weights-RANK-DEVICE.npz, and run
on any dist store. A ``+`` between arguments begins another run in the same job.
"""

import argparse
import os
import sys

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon


def run_all(parser, main):
    """Call ``main(args)`` for each run that the command line describes."""
    words, runs = sys.argv[1:], []
    while "+" in words:
        end = words.index("+")
        runs.append(words[:end])
        words = words[end + 1 :]
    for one in (*runs, words):
        main(parser.parse_args(one))


def new_parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--optimizer", default="sgd")
    return parser


def train(args, kv, net, trainer, x, y, step_size):
    """Train ``net`` on samples x and labels y; ``step_size`` is what each step is given."""
    loss_of = gluon.loss.SoftmaxCrossEntropyLoss()
    devices = [mx.cpu(i) for i in range(args.devices)]
    losses = []
    for step in range(args.steps):
        start = (step * kv.num_workers + kv.rank) * args.batch
        batch = slice(start, start + args.batch)
        xs = gluon.utils.split_and_load(mx.nd.array(x[batch]), devices)
        ys = gluon.utils.split_and_load(mx.nd.array(y[batch]), devices)
        with autograd.record():
            parts = [loss_of(net(a), b) for a, b in zip(xs, ys)]
        autograd.backward(parts)
        trainer.step(step_size)
        losses.append(sum(part.sum().asscalar() for part in parts))
    mx.nd.waitall()
    np.save(os.path.join(args.out, f"losses-{kv.rank}.npy"), np.array(losses))


def write_weights(args, kv, device, weights):
    """``weights``: {name: array} of the device of that number."""
    arrays = {name: weight.asnumpy() for name, weight in weights.items()}
    np.savez(os.path.join(args.out, f"weights-{kv.rank}-{device}.npz"), **arrays)
