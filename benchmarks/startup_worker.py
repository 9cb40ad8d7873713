"""The script of `benchmarks.startup`: one training step, then the time of day."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import mxnet as mx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.systems import report_line

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kvstore", default="dist_sync")
    kvstore = parser.parse_args().kvstore

    net = mx.gluon.nn.Dense(10, in_units=64)
    net.initialize()
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1}, kvstore=kvstore)
    loss_of = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    with mx.autograd.record():
        loss = loss_of(net(mx.nd.ones((BATCH, 64))), mx.nd.zeros(BATCH))
    loss.backward()
    trainer.step(BATCH)
    mx.nd.waitall()
    first_step_at_s = time.time()

    store = trainer._kvstore  # the Trainer has no public name for what it chose
    line = report_line(
        store=f"{type(store).__module__}.{type(store).__name__}",
        omp_num_threads=os.environ.get("OMP_NUM_THREADS"),
        first_step_at_s=first_step_at_s,
    )
    sys.stdout.write(line)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
