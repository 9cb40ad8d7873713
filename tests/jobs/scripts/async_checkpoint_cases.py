"""Asynchronous stores, of a slow worker and a fast one, whose optimizer or states change.

Case by case; see cases.py. Worker 0 is the slow one: it goes on once worker 1 waits for it, or has
gone ahead, which is wrong.
"""

import itertools
import pickle
from functools import partial
from pathlib import Path
from unittest import mock

import mxnet as mx
from cases import run_cases, same
from mxnet import autograd, gluon

from baryon.ps import StoreClient
from baryon.worker.collectives import Collectives
from baryon.worker.mxnet import checkpoint
from baryon.worker.mxnet.states import States
from tests.waiting import wait_until

KINDS = ("dist_async", "dist_ssp")
LOADING = (States, "load"), "the optimizer's states are there"  # where to be slow, and to wait
SGD = {"learning_rate": 1.0, "momentum": 1.0}
numbers = itertools.count()


def apart(kv, call, slow, meeting, then):
    """`call` on both, in which worker 0 is slow to get through the method ``slow`` and worker 1 is
    to wait in the barrier ``meeting``; then `then` on worker 1, whose result is that of both."""
    seen = Path(f"seen-{next(numbers)}")
    method, barrier = getattr(*slow), Collectives.barrier

    def slowly(*args):
        wait_until(seen.exists, "worker 1 to wait, or to go ahead")
        return method(*args)

    def watched(self, name):
        if name == meeting:
            seen.touch()
        barrier(self, name)

    patch = (*slow, slowly) if kv.rank == 0 else (Collectives, "barrier", watched)
    with mock.patch.object(*patch):
        call()
    result = then() if kv.rank == 1 else None
    seen.touch()
    return kv.broadcast_object(result, root=1)


def pushed(kv, gradient):
    out = mx.nd.zeros(3)
    kv.pushpull("w", mx.nd.full(3, gradient), out=out)
    return out


def replace(kv):
    kv.set_optimizer(mx.optimizer.SGD(learning_rate=1.0))
    kv.init("w", mx.nd.zeros(3))
    kv.push("w", mx.nd.ones(3))
    call = partial(kv.set_optimizer, mx.optimizer.SGD(learning_rate=100.0))
    slow = StoreClient, "set_optimizer"
    same(apart(kv, call, slow, "the new optimizer is there", partial(pushed, kv, 1)), -102)


def load(kv):
    kv.set_optimizer(mx.optimizer.SGD(**SGD))
    kv.init("w", mx.nd.zeros(3))
    if kv.rank == 0:
        Path("states").write_bytes(pickle.dumps({"w": mx.nd.full(3, 10)}))
    kv.barrier()
    call = partial(kv.load_optimizer_states, "states")
    same(apart(kv, call, *LOADING, partial(pushed, kv, 0)), 10)


def trained(kv):
    weight = gluon.Parameter("w", shape=(3,))
    weight.initialize(mx.init.Zero())
    return weight, gluon.Trainer([weight], "sgd", dict(SGD), kvstore=kv)


def step(weight, trainer, gradient):
    with autograd.record():
        loss = (weight.data() * gradient).sum()
    loss.backward()
    trainer.step(1)
    return weight.data()


def restore(kv):
    """Worker 0 has not seen worker 1's step, and worker 1's next one is by its momentum alone."""
    before, after = trained(kv), trained(mx.kv.create(kv.type))
    for rank in range(2):
        if kv.rank == rank:
            step(*before, 1)
            mx.nd.waitall()
        kv.barrier()
    checkpoint.save("run.ckpt", before[1])
    call = partial(checkpoint.restore, "run.ckpt", after[1])
    same(apart(kv, call, *LOADING, partial(step, *after, 0)), -5)


def case_an_optimizer_is_replaced():
    for kind in KINDS:
        replace(mx.kv.create(kind))


def case_states_are_loaded():
    for kind in KINDS:
        load(mx.kv.create(kind))


def case_a_checkpoint_is_restored():
    for kind in KINDS:
        restore(mx.kv.create(kind))


run_cases(globals())
