"""An optimizer and a schedule that use another module of the script's; prints the weight."""

import halving
import mxnet as mx
from halving import half


class Halving(mx.optimizer.Optimizer):
    def create_state(self, index, weight):
        return None

    def update(self, index, weight, grad, state):
        from halving import FACTOR  # found on the servers, too

        self._update_count(index)
        weight -= self._get_lr(index) * half(grad) * halving.FACTOR / FACTOR


kv = mx.kv.create("dist_sync")
kv.set_optimizer(Halving(lr_scheduler=lambda num_update: half(num_update)))
out = mx.nd.zeros(3)
kv.init("w", out)
for _ in range(2):
    kv.pushpull("w", mx.nd.ones(3) / kv.num_workers, out=out)
print("WEIGHT", out.asnumpy().tolist())
