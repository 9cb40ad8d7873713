"""What checkpoints promise, case by case; see cases.py. Files are written to where it runs."""

import hashlib
import itertools
import pickle
from unittest import mock

import mxnet as mx
import numpy as np
from cases import raises, run_cases
from mxnet import autograd, gluon

from baryon.worker.mxnet import checkpoint
from baryon.worker.mxnet.states import States

RANK = mx.kv.create("dist_sync").rank
SIZE = mx.kv.create("dist_sync").num_workers
BATCH = 6
seeds = itertools.count()


class Run:
    """A net, whose shapes are known after its first batch only, and its trainer."""

    def __init__(self, optimizer="adam", width=700, devices=1, dtype="float32", **options):
        self.devices = [mx.cpu(number) for number in range(devices)]
        self.net = gluon.nn.HybridSequential(prefix="net_")
        with self.net.name_scope():  # the middle one's weight has slices on several servers
            self.net.add(gluon.nn.Dense(width, activation="relu"))
            self.net.add(gluon.nn.Dense(width, activation="relu"))
            self.net.add(gluon.nn.Dense(2))
        self.net.cast(dtype)
        mx.random.seed(next(seeds))  # so that every run begins in another way, and always in that
        self.net.initialize(mx.init.Xavier(), ctx=self.devices)
        self.trainer = gluon.Trainer(
            self.net.collect_params(),
            optimizer,
            {"learning_rate": 0.001},
            **{"kvstore": "dist_sync", **options},
        )
        self.step = 0

    def train(self, steps=3):
        """Returns the losses; the same batches for every run, by the number of the step."""
        losses = []
        for _ in range(steps):
            x = np.random.RandomState(self.step * SIZE + RANK).randn(BATCH, 20).astype("f4")
            inputs = gluon.utils.split_and_load(mx.nd.array(x), self.devices)
            with autograd.record():
                parts = [(self.net(part) - part[:, :2]) ** 2 for part in inputs]
            autograd.backward(parts)
            self.trainer.step(BATCH * SIZE)
            losses.append(sum(part.sum().asscalar() for part in parts))
            self.step += 1
        return losses

    def save(self, path):
        checkpoint.save(path, self.trainer, step=self.step)

    def restore(self, path):
        self.step = checkpoint.restore(path, self.trainer).step

    @property
    def bits(self):
        """Of all weights on all devices, of this worker."""
        found = hashlib.sha256()
        for parameter in self.net.collect_params().values():
            for array in parameter.list_data():
                found.update(array.asnumpy().tobytes())
        return found.hexdigest()


def goes_on_as(run, before, atol=0.0):
    """``run``, just restored, becomes what ``before`` becomes; the same on all workers."""
    np.testing.assert_allclose(run.train(4), before.train(4), rtol=0, atol=atol)
    if not atol:
        assert run.bits == before.bits
    assert len(set(run.trainer._kvstore.allgather(run.bits))) == 1


def case_a_net_that_has_not_been_run():
    before, run = Run(), Run()
    before.train()
    before.save("deferred")
    run.restore("deferred")
    assert run.bits == before.bits
    goes_on_as(run, before)


def case_a_net_that_has_not_been_run_on_several_devices():
    before, run = Run(devices=2), Run(devices=2)
    before.train()
    before.save("devices")
    run.restore("devices")
    assert run.bits == before.bits
    goes_on_as(run, before)


def case_a_damaged_file_changes_nothing():
    before, run = Run(), Run()
    before.train()
    before.save("whole")
    run.train(1)
    bits, barrier = run.bits, run.trainer._kvstore.barrier
    with open("whole", "rb") as file:
        data = file.read()
    middle = len(data) // 2
    changed = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    for damaged, says in (
        (data[:-1000], "is damaged or cut off"),
        (changed, "is damaged or cut off"),
        (b"PK" + bytes(5000), "is no checkpoint"),
    ):
        barrier()
        if RANK == 0:
            with open("damaged", "wb") as file:
                file.write(damaged)
        barrier()
        raises(says, run.restore, "damaged")
        assert run.bits == bits


def case_a_file_of_another_net_changes_nothing():
    before = Run()
    before.train()
    before.save("net")
    for options, says in (
        ({"width": 600}, "net_dense0_weight is float32(700, 20) there and float32(600, 0) here"),
        ({"dtype": "float16"}, "float32(2,) there and float16(2,) here"),
    ):
        run = Run(**options)
        raises(says, run.restore, "net")
        assert run.net[0].weight.shape[1] == 0


def case_a_file_of_wrong_states_changes_nothing():
    adam = mx.optimizer.Adam()
    for update_on_kvstore in (True, False):
        run = Run(update_on_kvstore=update_on_kvstore)
        run.train()
        for states, says in (
            (b"junk", "has no optimizer states in it"),
            (pickle.dumps(({0: None}, adam)), "none of Adam"),
            (pickle.dumps(({99: None}, adam)), "does not exist here"),
            (
                pickle.dumps(({2: (mx.nd.zeros(9), mx.nd.zeros(9))}, adam)),
                "where Adam has float32(700,)",
            ),
        ):
            where = (States, "dump") if update_on_kvstore else (mx.optimizer.Updater, "get_states")
            with mock.patch.object(*where, lambda *_, s=states, **__: s):
                run.save("wrong")
            run.train(1)
            bits, store = run.bits, run.trainer._kvstore
            raises(says, run.restore, "wrong")
            raises(says, Run(update_on_kvstore=update_on_kvstore).restore, "wrong")
            assert (run.bits, run.trainer._kvstore) == (bits, store)
        run.train(1)


def case_a_trainer_without_a_dist_store_is_refused():
    before = Run()
    before.train()
    before.save("local")
    for kvstore in (None, "local"):
        run = Run(kvstore=kvstore)
        raises("on a dist kvstore", run.restore, "local")
        assert run.net[0].weight.shape[1] == 0
        run.train()
        raises("on a dist kvstore", run.save, "local")
        bits = run.bits
        raises("on a dist kvstore", run.restore, "local")
        assert run.bits == bits


def case_going_back_after_training_has_begun():
    for options in ({}, {"update_on_kvstore": False}, {"optimizer": "lamb"}):
        before, run = Run(**options), Run(**options)
        before.train()
        before.save("back")
        run.restore("back")
        run.train(5)
        run.restore("back")
        assert run.bits == before.bits
        goes_on_as(run, before)


def case_optimizers_in_the_workers():
    """With two devices Nadam's differ, which share one schedule and move it on in turn."""
    for optimizer, devices in (("adam", 2), ("nadam", 1)):
        before, run = (Run(optimizer, devices=devices, update_on_kvstore=False) for _ in range(2))
        before.train()
        before.save("workers")
        run.restore("workers")
        goes_on_as(run, before)


def case_optimizers_move_between_workers_and_servers():
    """And to other numbers of devices."""
    for is_first in (True, False):
        before = Run(update_on_kvstore=is_first, devices=2)
        before.train()
        before.save("moved")
        run = Run(update_on_kvstore=not is_first, devices=1 + is_first * 2)
        run.restore("moved")
        goes_on_as(run, before, atol=1e-4)


def case_compressed_gradients():
    """Kept is what workers see; what was still to be sent is not. All go on from there."""
    for options in ({"type": "topk", "ratio": 0.1}, {"type": "1bit"}):
        before, run = (Run(compression_params=options) for _ in range(2))
        before.train(5)
        before.save("compressed")
        run.restore("compressed")
        assert run.bits == before.bits
        first, _, last = (np.mean(run.train(steps)) for steps in (5, 15, 5))
        kv = run.trainer._kvstore
        assert kv.allreduce(last) < 0.7 * kv.allreduce(first)
        assert len(set(kv.allgather(run.bits))) == 1


def case_row_sparse_weights():
    """Also by an optimizer that takes no weights of one dimension."""

    def new(optimizer, options):
        weight = gluon.Parameter("w", shape=(6, 2), stype="row_sparse", grad_stype="row_sparse")
        weight.initialize(mx.init.One())
        options = {"learning_rate": 1.0, **options}
        return weight, gluon.Trainer([weight], optimizer, options, kvstore="dist_sync")

    def step(weight, trainer):
        ids = mx.nd.array([1, 3])
        with autograd.record():
            y = mx.nd.Embedding(
                ids, weight.row_sparse_data(ids), input_dim=6, output_dim=2, sparse_grad=True
            )
        y.backward()
        trainer.step(SIZE)
        return weight.row_sparse_data(mx.nd.arange(6)).asnumpy()

    for given in (("sgd", {"momentum": 0.5, "lazy_update": False}), ("groupadagrad", {})):
        before, after = new(*given), new(*given)
        step(*before)
        checkpoint.save("sparse", before[1])
        checkpoint.restore("sparse", after[1])
        for _ in range(2):
            np.testing.assert_array_equal(step(*before), step(*after))


run_cases(globals())
