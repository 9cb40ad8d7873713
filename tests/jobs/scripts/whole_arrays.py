"""Optimizers that need whole arrays, set before or after the keys, against a local updater.

argv: names of optimizers; each is set before the keys in one store, and after them in another.
"""

import sys

import mxnet as mx
import numpy as np

SHAPE = (1000, 700)  # slices on several servers, but for such optimizers


class Mine(mx.optimizer.Optimizer):
    """A class of the script's own, which uses the norm of the whole gradient."""

    def create_state(self, index, weight):
        return mx.nd.zeros(weight.shape)

    def update(self, index, weight, grad, state):
        self._update_count(index)
        state[:] = state + 1
        weight[:] = weight - self._get_lr(index) * state * normalised(grad)


def normalised(grad):
    return grad / grad.norm()


def new_optimizer(name):
    if name == "mine":
        return Mine(learning_rate=0.1)
    if name == "lars":
        return mx.optimizer.LARS(learning_rate=0.1, momentum=0.9, eta=0.1)
    return mx.optimizer.create(name, learning_rate=0.1)


def check(name, is_late):
    kv = mx.kv.create("dist_sync")
    chance = np.random.RandomState(3)
    weight, gradient = mx.nd.array(chance.randn(*SHAPE)), mx.nd.array(chance.randn(*SHAPE))
    if not is_late:
        kv.set_optimizer(new_optimizer(name))
    kv.init(["a", "b"], [weight, mx.nd.ones(3)])
    if is_late:
        kv.set_optimizer(new_optimizer(name))
    updater = mx.optimizer.get_updater(new_optimizer(name))
    expected, out, ones = weight.copy(), mx.nd.zeros(SHAPE), mx.nd.zeros(3)
    for _ in range(3):
        kv.pushpull("a", gradient * (kv.rank + 1), out=out)
        updater("a", gradient * sum(range(1, kv.num_workers + 1)), expected)
    kv.pull("b", out=ones)
    assert ones.asnumpy().tolist() == [1, 1, 1]
    np.testing.assert_allclose(out.asnumpy(), expected.asnumpy(), rtol=1e-4, atol=1e-4)
    print("AS LOCALLY", name, is_late)


for name in sys.argv[1:]:
    check(name, is_late=False)
    check(name, is_late=True)
