"""The worker of `benchmarks.train`: an ordinary Gluon script on made-up data."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple, Tuple

import mxnet as mx
from mxnet import gluon

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.systems import report_line

MEET_LIMIT_S = 120.0


class Setting(NamedTuple):
    make: Any
    batch: int
    shape: Tuple[int, ...]
    warm_up: int
    steps: int


def mlp() -> Any:
    net = gluon.nn.HybridSequential()
    for _ in range(4):
        net.add(gluon.nn.Dense(2048, activation="relu"))
    net.add(gluon.nn.Dense(10))
    return net


def lenet() -> Any:
    net = gluon.nn.HybridSequential()
    for channels in (20, 50):
        net.add(gluon.nn.Conv2D(channels, 5, activation="tanh"), gluon.nn.MaxPool2D(2, 2))
    net.add(gluon.nn.Dense(500, activation="tanh"), gluon.nn.Dense(10))
    return net


def resnet18() -> Any:
    return gluon.model_zoo.vision.get_resnet(1, 18, classes=10)


SETTINGS = {
    "mlp": Setting(mlp, 32, (784,), 10, 40),
    "resnet18": Setting(resnet18, 16, (3, 32, 32), 5, 25),
    "lenet": Setting(lenet, 64, (1, 28, 28), 30, 150),
}


def meet(folder: Path, copies: int) -> None:
    """Wait until so many copies of the script have come here."""
    (folder / str(os.getpid())).touch()
    deadline = time.monotonic() + MEET_LIMIT_S
    while len(list(folder.iterdir())) < copies:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the other copies did not come within {MEET_LIMIT_S:.0f} s")
        time.sleep(0.001)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", choices=list(SETTINGS), required=True)
    parser.add_argument("--kvstore", required=True)
    parser.add_argument("--meet", type=Path, help="a folder in which copies find each other")
    parser.add_argument("--copies", type=int, default=1)
    options = parser.parse_args()
    setting = SETTINGS[options.net]
    mx.random.seed(1)
    net = setting.make()
    net.initialize(mx.init.Xavier())
    net.hybridize(static_alloc=True)
    data = mx.nd.random.uniform(shape=(setting.batch, *setting.shape))
    label = mx.nd.array([i % 10 for i in range(setting.batch)])
    loss_of = gluon.loss.SoftmaxCrossEntropyLoss()
    store = None if options.kvstore == "none" else mx.kv.create(options.kvstore)
    trainer = gluon.Trainer(
        net.collect_params(), "sgd", {"learning_rate": 0.01, "momentum": 0.9}, kvstore=store
    )

    def steps(count: int) -> None:
        for _ in range(count):
            with mx.autograd.record():
                loss = loss_of(net(data), label)
            loss.backward()
            trainer.step(setting.batch)
        mx.nd.waitall()

    steps(setting.warm_up)
    if options.meet is not None:
        meet(options.meet, options.copies)
    elif store is not None:
        store._barrier()
    began_s = time.perf_counter()
    steps(setting.steps)
    step_s = (time.perf_counter() - began_s) / setting.steps
    line = report_line(
        store="none" if store is None else f"{type(store).__module__}.{type(store).__name__}",
        omp_num_threads=os.environ.get("OMP_NUM_THREADS"),
        step_s=step_s,
        images_per_s=setting.batch / step_s,
    )
    sys.stdout.write(line)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
