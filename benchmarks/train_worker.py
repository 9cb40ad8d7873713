"""The script of `benchmarks.train`: trains a net on synthetic images and says how fast.

An ordinary Gluon script. It takes no notice of who serves it, if anybody: `--kvstore none` trains
alone. As in most scripts, no step waits for its result; only the two ends of the timed part do.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from pathlib import Path
from typing import Any, Tuple

import mxnet as mx
from mxnet import autograd, gluon
from mxnet.gluon import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.systems import report_line

CLASSES = 10
BATCHES = 4  # different ones, in turns
MEETING_LIMIT_S = 120.0


def mlp() -> Tuple[Any, Tuple[int, ...]]:
    """57 MB in few big arrays, and little to compute."""
    net = nn.HybridSequential()
    for _ in range(4):
        net.add(nn.Dense(2048, activation="relu"))
    net.add(nn.Dense(CLASSES))
    return net, (784,)


def resnet18() -> Tuple[Any, Tuple[int, ...]]:
    """45 MB in 62 arrays. The net for big images on small ones, which leaves less to compute."""
    return gluon.model_zoo.vision.resnet18_v1(classes=CLASSES), (3, 32, 32)


def lenet() -> Tuple[Any, Tuple[int, ...]]:
    """1.7 MB, in steps of milliseconds."""
    net = nn.HybridSequential()
    for channels in (20, 50):
        net.add(nn.Conv2D(channels, kernel_size=5, activation="relu"), nn.MaxPool2D())
    net.add(nn.Dense(500, activation="relu"), nn.Dense(CLASSES))
    return net, (1, 28, 28)


NETS = {"mlp": mlp, "resnet18": resnet18, "lenet": lenet}


def meet(folder: Path, processes: int) -> None:
    """Wait until so many processes have come here, so that all are timed at the same time."""
    (folder / str(os.getpid())).touch()
    deadline = time.monotonic() + MEETING_LIMIT_S
    while len(list(folder.iterdir())) < processes:
        if time.monotonic() > deadline:
            raise RuntimeError(f"fewer than {processes} processes in {MEETING_LIMIT_S:g} s")
        time.sleep(0.001)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", choices=NETS, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--warm-up", type=int, required=True, help="steps")
    parser.add_argument("--steps", type=int, required=True, help="that are timed")
    parser.add_argument("--kvstore", choices=["none", "dist_sync"], default="dist_sync")
    parser.add_argument("--meet", type=Path, required=True, help="an empty folder")
    parser.add_argument("--processes", type=int, required=True, help="that meet there")
    options = parser.parse_args()

    store = mx.kv.create(options.kvstore) if options.kvstore != "none" else None
    rank, workers = (store.rank, store.num_workers) if store else (0, 1)
    mx.random.seed(rank)
    net, shape = NETS[options.net]()
    net.initialize(mx.init.Xavier())
    net.hybridize()
    images = [mx.nd.random.uniform(shape=(options.batch_size, *shape)) for _ in range(BATCHES)]
    labels = [
        mx.nd.random.randint(0, CLASSES, (options.batch_size,)).astype("float32") for _ in images
    ]
    loss_of = gluon.loss.SoftmaxCrossEntropyLoss()
    sgd = {"learning_rate": 0.01, "momentum": 0.9}
    trainer = gluon.Trainer(net.collect_params(), "sgd", sgd, kvstore=store)

    def train(steps: int) -> Any:
        for step in range(steps):
            with autograd.record():
                loss = loss_of(net(images[step % BATCHES]), labels[step % BATCHES])
            loss.backward()
            trainer.step(options.batch_size * workers)
        mx.nd.waitall()
        return loss

    train(options.warm_up)
    meet(options.meet, options.processes)
    began_at_s = time.time()
    loss = train(options.steps)
    ended_at_s = time.time()

    if not math.isfinite(loss.mean().asscalar()):
        raise RuntimeError(f"rank {rank}: the loss is {loss.mean().asscalar()}")
    line = report_line(
        store=f"{type(store).__module__}.{type(store).__name__}",
        omp_num_threads=os.environ.get("OMP_NUM_THREADS"),
        images=options.batch_size * options.steps,
        began_at_s=began_at_s,
        ended_at_s=ended_at_s,
    )
    sys.stdout.write(line)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
