"""Any message, mutated: an error that is told, never an exception that would stop the server.

The server is real, its socket too; frames are handed to it as its reactor would, so that thousands
can be tried. Answers go to routes that nobody listens at.
"""

import logging
import random

import numpy as np
import pytest
import zmq

from baryon.ps import Child, KeyPair, Reactor, Server, dump_optimizer, wire

KEY = wire.KeySpec("w", (4,), "float32")
SPEC = wire.StateSpec(0, (("float32", (4,)),), 1, {})
TRIES = 20_000


class Harness:
    """A server with two workers, whose frames `send` hands over."""

    def __init__(self, context, mx):
        children = [Child("", f"worker {n}", (n,), f"token {n}", True) for n in range(2)]
        self.faults = []
        self.reactor = Reactor()
        self.server = Server(
            self.reactor, context, index=0, num_owners=1, children=children, keys=KeyPair("", ""),
            address="127.0.0.1", timeout_s=30.0, on_fault=self.faults.append, encrypts=False,
        )  # fmt: skip
        self.told = []
        self.server._reply = lambda child, message, payload=None: self.told.append((child, message))
        optimizer, _ = dump_optimizer(mx.optimizer.SGD(learning_rate=1.0, momentum=0.5))
        for worker in range(2):
            self.send(worker, wire.Hello(wire.VERSION, 1, 0, f"token {worker}"))
            self.send(worker, wire.Open(0, "sync"))
            self.send(worker, wire.Declare(0, 0, (KEY,)))
        self.send(0, wire.SetOptimizer(0, 1, optimizer, [], []))
        self.send(0, wire.Init(0, 0, 0, 1), bytes(16))

    def send(self, worker, message, *payload):
        self.hand_over(worker, [wire.DATA.encode(message), *payload])

    def hand_over(self, worker, frames):
        route = zmq.Frame(f"route {worker}".encode())
        self.server._on_message([route, *map(zmq.Frame, frames)])

    def serves(self):
        """Whether a round of both workers is completed, if it has not been told otherwise."""
        self.told.clear()
        round_ = self.server._stores[0]._slots[0][0].round + 1
        for worker in range(2):
            push = wire.Push(0, 0, 0, 1, round_, True)
            self.send(worker, push, np.ones(4, np.float32).tobytes())
        kinds = [type(message) for _, message in self.told]
        return kinds.count(wire.Answer) == 2 or wire.Fault in kinds

    def close(self):
        self.server.close()
        self.reactor.close()


def originals(mx):
    optimizer, _ = dump_optimizer(mx.optimizer.Adam())
    values = np.ones(4, np.float32).tobytes()
    return [
        (wire.Hello(wire.VERSION, 2, 0, "token 1"),),
        (wire.Hello(wire.VERSION, 1, 1, "token 1"),),
        (wire.Batch((wire.Pull(0, 0, 0, 1), wire.Push(0, 0, 0, 1, 1, True))),),
        (wire.Open(1, "sync"),),
        (wire.Open(1, "async", False, 3),),
        (wire.Close(1, 1),),
        (wire.Declare(0, 1, (wire.KeySpec("v", (2, 3), "float16"),)),),
        (wire.Init(0, 0, 0, 1), values),
        (wire.Push(0, 0, 0, 1, 1, True), values),
        (wire.Pull(0, 0, 0, 1),),
        (wire.PushRows(0, 0, 0, 1), bytes(8) + values[:4]),
        (wire.PushRows(0, 0, 0, 1), bytes([0] * 8 + [1] + [0] * 7) + values[:8]),
        (wire.PullRows(0, 0, 0), bytes(8)),
        (
            wire.Batch((wire.PushRows(0, 0, 0, 1), wire.PullRows(0, 0, 0), wire.Pull(0, 0, 0, 1))),
            bytes(8) + values[:4],
            bytes(8),
        ),
        (wire.AnswerRows(0, 0, 0), values[:4]),
        (wire.SetOptimizer(0, 2, optimizer, [("w", 0.5)], []),),
        (wire.SetHyper(0, 2, 1, 0, {"lr": 0.5}, [("w", 0.5)], []),),
        (wire.Join(0, 1, 1),),
        (wire.GetState(0, 1, 0, 0, 0, 0),),
        (wire.PutState(0, 2, 0, 0, 0, 0, SPEC), values),
        (wire.Accepted(0, 1),),
        (wire.Answer(0, 0, 0, 1, True), values),
        (wire.Fault("text"),),
    ]


def noise(chance, most):
    return bytes(chance.randrange(256) for _ in range(chance.randrange(1, most)))


def mutated(chance, frames):
    """One to three changes: bits, bytes, lengths, frames."""
    frames = [bytearray(frame) for frame in frames]
    for _ in range(chance.randrange(1, 4)):
        which = chance.randrange(len(frames)) if frames else 0
        how = chance.randrange(7)
        frame = frames[which] if frames else bytearray()
        if how <= 2 and frame:
            at = chance.randrange(min(len(frame), 200) if how else len(frame))
            frame[at] = chance.choice([frame[at] ^ 1 << chance.randrange(8), chance.randrange(256)])
        elif how == 3 and frame:
            del frame[chance.randrange(len(frame)) :]
        elif how == 4:
            frame += noise(chance, 20)
        elif how == 5 and frames:
            del frames[which]
        else:
            frames.insert(which, bytearray(noise(chance, 40)))
    return [bytes(frame) for frame in frames]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:mxnet.*")
def test_mutated_messages_never_stop_a_server(mx, caplog):
    caplog.set_level(logging.CRITICAL, "baryon.server")  # tens of thousands of refusals
    chance = random.Random(1)
    frames_of = [[wire.DATA.encode(first), *payload] for first, *payload in originals(mx)]
    context = zmq.Context()
    harness = Harness(context, mx)
    failures = refusals = 0
    try:
        for tried in range(TRIES):
            harness.told.clear()
            harness.hand_over(chance.randrange(2), mutated(chance, chance.choice(frames_of)))
            refusals += any(isinstance(message, wire.Fault) for _, message in harness.told)
            if tried % 50 and harness.server._failure is None:
                continue
            failures += harness.server._failure is not None
            harness.close()
            harness = Harness(context, mx)
            assert harness.serves()
    finally:
        harness.close()
        context.destroy(linger=0)
    assert refusals > TRIES / 4 and failures > 10  # they did get as far as that


def test_the_harness_serves_what_is_not_mutated(mx):
    context = zmq.Context()
    harness = Harness(context, mx)
    assert harness.faults == [] and harness.serves()
    assert [type(message) for _, message in harness.told] == [wire.Answer] * 2
    harness.close()
    context.destroy(linger=0)
