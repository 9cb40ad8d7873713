"""The worker of `benchmarks.scaling`: training steps whose compute takes time but no processor.

It knows nothing of who serves it. A step is what Gluon's is: forward in the order of the layers,
each reading its weights; backward in the opposite order, each writing its gradients; then push and
pull of all arrays, as `Trainer.step` does. The next step is queued once the loss is known, and each
of its layers waits for its own weights and no others.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, List, Tuple

import mxnet as mx
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.emulated_device import EmulatedDevice
from benchmarks.models import Layer, layers, trainable_arrays
from benchmarks.pushpull_worker import Exchange
from benchmarks.systems import report_line

FORWARD_SHARE = 1 / 3  # backward computes gradients of both inputs and weights: twice the work


class Training:
    """Steps of one model through one store."""

    def __init__(self, device: EmulatedDevice, exchange: Exchange, model: List[Layer]) -> None:
        self._device = device
        self._exchange = exchange
        total = sum(layer.macs for layer in model)
        self._layers = [(layer, layer.macs / total) for layer in model]
        self._loss = mx.nd.zeros(1)
        self._ends_s: List[float] = []  # of forward passes

    def run(self, compute_s: float, steps: int, warm_up: int) -> Tuple[List[float], float]:
        """Seconds from loss to loss, `steps` times; and how busy all of the machine was then."""
        self._ends_s.clear()
        before: Any = None
        for number in range(warm_up + steps + 1):
            self._step(compute_s)
            self._loss.wait_to_read()
            if number == warm_up:
                before = psutil.cpu_times()
        busy = _busy_share(before, psutil.cpu_times())
        mx.nd.waitall()
        ends_s = self._ends_s[warm_up:]
        return [after - before for before, after in zip(ends_s, ends_s[1:])], busy

    def _step(self, compute_s: float) -> None:
        gradients, weights = self._exchange.gradients, self._exchange.weights
        run = self._device.run
        for layer, share in self._layers:
            run(compute_s * FORWARD_SHARE * share, [weights[key] for key in layer.keys])
        run(0.0, [self._loss], on_end=self._ends_s.append)
        for layer, share in reversed(self._layers):
            written = [gradients[key] for key in layer.keys]
            run(compute_s * (1 - FORWARD_SHARE) * share, written)
        self._exchange.push_and_pull()


def _busy_share(before: Any, after: Any) -> float:
    """Of all cores, whoever used them."""
    total = sum(after) - sum(before)
    idle = after.idle - before.idle + after.iowait - before.iowait
    return 1 - idle / total if total else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--compute", type=float, nargs="+", required=True, help="seconds a step")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--warm-up", type=int, required=True, help="steps before those")
    options = parser.parse_args()

    store = mx.kv.create("dist_sync")
    exchange = Exchange(store, trainable_arrays(options.model))
    exchange.fill(1)
    store._barrier()
    exchange.push_and_pull()
    exchange.check(1)
    exchange.fill(0)  # for what comes natively grows: each sum becomes the next gradient

    device = EmulatedDevice()
    training = Training(device, exchange, layers(options.model))
    measured = []
    for compute_s in options.compute:
        store._barrier()
        times_s, busy = training.run(compute_s, options.steps, options.warm_up)
        measured.append({"compute_s": compute_s, "steps_s": times_s, "busy": busy})
    device.close()
    line = report_line(
        store=f"{type(store).__module__}.{type(store).__name__}",
        omp_num_threads=os.environ.get("OMP_NUM_THREADS"),
        rank=store.rank,
        measured=measured,
    )
    sys.stdout.write(line)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
