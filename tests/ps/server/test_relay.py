"""Servers above servers, and links over shared memory: real ones, in threads of this process.

The tree is the smallest with everything in it: one owner, whose children are a level-1 server with
workers 0 and 1, on one host with the owner, and worker 2 elsewhere.
"""

import os
import queue

import numpy as np
import pytest

from baryon.ps import (
    Child,
    Client,
    PeerError,
    Server,
    ServerAddress,
    new_key_pair,
    token_of,
    wire,
)
from baryon.ps.memory import HostMemory
from baryon.worker.mxnet.pickled import dump_optimizer
from tests.ps.conftest import LoopThread, Worker, answered
from tests.waiting import LIMIT_S, wait_until

SHAPES = {"small": (3,), "empty": (0,), "big": (700, 600)}  # big: two buckets


class TreeWorker(Worker):
    """A worker with a chosen parent, its two ends of memory apart."""

    def __init__(self, rank, keys, parent, memory, encrypts):
        self.faults = queue.Queue()
        self.loop = LoopThread(f"worker-{rank}")
        self.client = Client(
            self.loop.reactor, self.loop.context,
            name=f"worker {rank}", keys=keys, servers=[parent], num_owners=1, timeout_s=LIMIT_S,
            silence_s=LIMIT_S, on_fault=self.faults.put, memory=memory, encrypts=encrypts,
        )  # fmt: skip
        self.loop.owned.append(self.client)
        self.loop.start()
        self.store = self.client.open(wire.Open(0, "sync"))
        self.places, self.arrived, self.version = {}, {}, None

    def key(self, name, shape, dtype="float32"):
        key = self.store.declare(name, shape, dtype)
        self.places[name], self.arrived[name] = self.store.outgoing(key), self.store.incoming(key)
        return self.arrived[name]

    def pull(self, name):
        answered(self.begin("pull", name))
        return self.arrived[name].copy()


class Tree:
    def __init__(self, encrypts=True):
        descriptor = self._descriptor = os.memfd_create("memory")
        path = f"/proc/{os.getpid()}/fd/{descriptor}"
        self._memories = [HostMemory(path, member) for member in (1, 2, 3, 4)]
        owner_memory, relay_memory, *worker_memories = self._memories
        keys = [new_key_pair() for _ in range(3)]
        owner_keys, relay_keys = new_key_pair(), new_key_pair()
        children = [
            Child(pair.public, f"worker {rank}", (rank,), token_of(pair.secret), True, member)
            for rank, (pair, member) in enumerate(zip(keys, (3, 4, 0)))
        ]
        token = token_of(relay_keys.secret)
        below = Child(relay_keys.public, "server 1", (0, 1), token, False, 2)
        self.faults = queue.Queue()
        self.loops = []
        self.owner = self._server(0, owner_keys, [below, children[2]], owner_memory, encrypts)
        self.relay = self._server(1, relay_keys, children[:2], relay_memory, encrypts)
        relay_loop = self.loops[1]
        above = Client(
            relay_loop.reactor, relay_loop.context, name="server 1", keys=relay_keys,
            servers=[ServerAddress(self.owner.endpoint, owner_keys.public, True)], num_owners=1,
            timeout_s=LIMIT_S, silence_s=LIMIT_S, on_fault=self.faults.put, memory=relay_memory,
            encrypts=encrypts,
        )  # fmt: skip
        relay_loop.owned.append(above)
        self.owner.serve()
        self.relay.serve(above)
        for loop in self.loops:
            loop.start()
        parent = ServerAddress(self.relay.endpoint, relay_keys.public, True)
        far = ServerAddress(self.owner.endpoint, owner_keys.public)
        self.workers = [
            TreeWorker(0, keys[0], parent, worker_memories[0], encrypts),
            TreeWorker(1, keys[1], parent, worker_memories[1], encrypts),
            TreeWorker(2, keys[2], far, None, encrypts),
        ]
        for worker in self.workers:
            for name, shape in SHAPES.items():
                worker.key(name, shape)

    def _server(self, index, keys, children, memory, encrypts):
        loop = LoopThread(f"server-{index}")
        server = Server(
            loop.reactor, loop.context, index=index, num_owners=1, children=children, keys=keys,
            address="127.0.0.1", timeout_s=LIMIT_S, on_fault=self.faults.put, memory=memory,
            encrypts=encrypts,
        )  # fmt: skip
        loop.owned.append(server)
        self.loops.append(loop)
        return server

    def begin_push(self, name, *values):
        return [
            worker.begin("push", name, value, want_value=True)
            for worker, value in zip(self.workers, values)
        ]

    def leave(self, rank):
        for loop, server in zip(self.loops, (self.owner, self.relay)):
            loop.call(server.worker_left, rank)

    def close(self):
        for worker in self.workers:
            worker.loop.close()
        for loop in reversed(self.loops):
            loop.close()
        for memory in self._memories:
            memory.close()
        os.close(self._descriptor)


@pytest.fixture(params=[True, False], ids=["encrypted", "plain"])
def tree(no_leaks, request):
    made = Tree(encrypts=request.param)
    yield made
    made.close()


def test_everybody_pulls_the_first_value_of_rank_0(tree):
    pulls = [worker.begin("pull", "big") for worker in tree.workers[1:]]
    tree.workers[0].init("big", np.arange(420_000).reshape(700, 600))
    answered(*pulls)
    for worker in tree.workers:
        assert (worker.pull("big").ravel() == np.arange(420_000)).all()


@pytest.mark.parametrize("name", list(SHAPES))
def test_a_round_is_the_sum_over_the_tree(tree, name):
    for round_ in (1, 2, 3):
        answered(*tree.begin_push(name, 1.0 * round_, 10.0 * round_, 100.0 * round_))
        for worker in tree.workers:
            assert (worker.arrived[name] == 111.0 * round_).all()


def test_no_round_ends_before_all_have_pushed(tree):
    early = tree.begin_push("small", 1.0, 10.0)  # not worker 2
    assert not any(outcome.is_known() for outcome in early)
    late = tree.workers[2].begin("push", "small", 100.0, want_value=True)
    answered(*early, late)
    assert tree.workers[1].arrived["small"].tolist() == [111.0] * 3


def test_a_closed_store_is_gone_on_all_levels_with_its_memory(tree):
    stores = [tree.owner._stores, tree.relay._stores]
    path = f"/proc/{os.getpid()}/fd/{tree._descriptor}"
    answered(*tree.begin_push("big", 1.0, 10.0, 100.0))
    near, far = tree.workers[:2], tree.workers[2]

    def close(worker):
        worker.store = worker.places = None
        worker.client.drain()

    def until(level, condition):
        wait_until(lambda: tree.loops[level].call(condition))

    for worker in near:
        value, worker.arrived = worker.arrived["big"], {}  # as MXNet may still copy it
        close(worker)
        assert tree.loops[1].call(lambda: list(stores[1])) == [0]
        assert (value == 111.0).all()
        del value
    until(1, lambda: not stores[1])
    assert tree.loops[0].call(lambda: list(stores[0])) == [0]
    assert (far.pull("big") == 111.0).all()
    far.arrived = {}
    close(far)
    until(0, lambda: not stores[0])
    assert os.stat(path).st_blocks == 0


def test_the_optimizer_of_rank_0_reaches_the_owner_and_a_change_does_too(tree, mx):
    tree.workers[0].init("big", 1.0)
    store = tree.workers[0].store
    store.set_updater("mxnet", dump_optimizer(mx.optimizer.SGD(learning_rate=0.5)))
    tree.workers[0].client.drain()
    answered(*tree.begin_push("big", 1.0, 2.0, 3.0))
    assert (tree.workers[1].arrived["big"] == 1.0 - 0.5 * 6).all()
    tree.workers[0].set_hyper({"lr": 1.0})
    answered(*tree.begin_push("big", 1.0, 2.0, 3.0))
    assert (tree.workers[2].arrived["big"] == -2.0 - 6).all()


def test_who_has_left_is_not_waited_for_at_any_level(tree):
    answered(*tree.begin_push("small", 1.0, 10.0, 100.0))
    tree.leave(1)
    answered(
        tree.workers[0].begin("push", "small", 1.0, want_value=True),
        tree.workers[2].begin("push", "small", 100.0, want_value=True),
    )
    assert tree.workers[0].arrived["small"].tolist() == [101.0] * 3
    tree.leave(0)
    answered(tree.workers[2].begin("push", "small", 100.0, want_value=True))
    assert tree.workers[2].arrived["small"].tolist() == [100.0] * 3


def test_a_failure_at_the_owner_is_told_to_every_worker(tree, mx):
    store = tree.workers[0].store
    optimizer = mx.optimizer.SGD(learning_rate=0.5)
    store.set_updater("mxnet", dump_optimizer(optimizer).replace(b"SGD", b"Sgd"))
    waiting = tree.workers[2].begin("push", "small", 1.0)
    assert "refers to" in (waiting.error() or "")
    for worker in tree.workers:
        outcome = worker.begin("pull", "small")
        assert outcome.error() is not None
        with pytest.raises(PeerError, match="refers to"):
            worker.client.raise_if_failed()
    assert "refers to" in tree.faults.get(timeout=LIMIT_S)
    assert tree.faults.empty()  # said once, by the owner
