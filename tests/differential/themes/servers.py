"""What a script asks of the servers: states, compression, commands, updaters, profiles."""

import glob
import os
from typing import Any, List

import mxnet as mx
import numpy as np

from tests.differential.case import Answer, Job, case, raised

from .optimizers import create, gradient_of, local, start_of

SHAPE = (4, 3)


def momentum() -> Any:
    return create("sgd", learning_rate=0.1, momentum=0.9)


def restored(job: Job, dump_optimizer: bool) -> Answer:
    """Two rounds, states saved, two more rounds, states and weight put back, two rounds again."""
    kv, key = job.kv(momentum()), job.key()
    kv.init(key, mx.nd.array(start_of(SHAPE)))
    weight, file = mx.nd.zeros(SHAPE), job.file("states")

    def rounds(first: int) -> None:
        for step in range(first, first + 2):
            kv.pushpull(key, mx.nd.array(gradient_of(step, kv.rank, SHAPE)), out=weight)
        weight.wait_to_read()

    rounds(0)
    kv._barrier()
    kv.save_optimizer_states(file, dump_optimizer=dump_optimizer)
    rounds(2)
    kv._barrier()
    expected = weight.copy()
    kv.load_optimizer_states(file)
    kv._barrier()
    # The momentum is that of after step 1 again: from where the weight is, steps 2 and 3 make the
    # same change as before plus nothing of what came between.
    before = weight.copy()
    rounds(2)
    after_two = local(job, momentum, SHAPE, "float32", None, 2, key)
    after_four = local(job, momentum, SHAPE, "float32", None, 4, key)
    return Answer([expected, weight - before], [after_four, after_four - after_two])


@case()
def case_states(job: Job) -> Answer:
    """`save_optimizer_states`, two rounds, `load_optimizer_states`: the momentum is back"""
    return restored(job, False)


@case()
def case_states_and_optimizer(job: Job) -> Answer:
    """The same with `dump_optimizer=True`"""
    return restored(job, True)


@case("commands", refused=True)
def case_states_without_optimizer(job: Job) -> Answer:
    """`save_optimizer_states` with no optimizer set"""
    return Answer(job.kv().save_optimizer_states(job.file("states")), "refused")


@case("commands", refused=True)
def case_load_states_without_optimizer(job: Job) -> Answer:
    """`load_optimizer_states` with no optimizer set"""
    file = job.file("states")
    with open(file, "wb") as states:
        states.write(mx.optimizer.get_updater(momentum()).get_states())
    return Answer(job.kv().load_optimizer_states(file), "refused")


@case("commands")
def case_command(job: Job) -> Answer:
    """`_send_command_to_servers(99, 'text')`: servers say that they do not know it, and go on"""
    kv, key = job.kv(), job.key()
    got = kv._send_command_to_servers(99, "text")
    kv.init(key, mx.nd.zeros(3))
    out = mx.nd.zeros(3)
    kv.pushpull(key, mx.nd.ones(3), out=out)
    return Answer([got, out], [None, mx.nd.full(3, job.num_workers)])


@case()
def case_set_updater(job: Job) -> Answer:
    """`_set_updater(f)`: for the local store only, the documents say; a push is a push"""
    kv, key = job.kv(), job.key()

    def updater(key: Any, gradient: Any, weight: Any) -> None:
        weight += 100 * gradient

    kv._set_updater(updater)
    kv.init(key, mx.nd.ones(3))
    out = mx.nd.zeros(3)
    kv.push(key, mx.nd.ones(3))
    kv.pull(key, out=out)
    return Answer(out, mx.nd.full(3, job.num_workers))


def quantized(values: np.ndarray, threshold: float) -> np.ndarray:
    """2-bit quantization, as `set_gradient_compression` documents it."""
    return np.where(values >= threshold, threshold, np.where(values <= -threshold, -threshold, 0))


def compressed(job: Job, parameters: Any, threshold: float) -> Answer:
    """Three rounds of `push` and `pull`; what is cut off is added to the next round's."""
    kv, key = job.kv(), job.key()
    kv.set_gradient_compression(parameters)
    kv._barrier()
    kv.init(key, mx.nd.zeros(6))
    outs: List[Any] = []
    rights: List[Any] = []
    residuals = [np.zeros(6, "float32") for _ in range(job.num_workers)]
    for step in range(3):
        gradients = [
            np.array([0, 0.2, -0.3, 0.7, -1.6, 0.45], "float32") * (1 + rank + step)
            for rank in range(job.num_workers)
        ]
        kv.push(key, mx.nd.array(gradients[kv.rank]))
        outs.append(mx.nd.zeros(6))
        kv.pull(key, out=outs[-1])
        outs[-1].wait_to_read()
        total = np.zeros(6, "float32")
        for rank, gradient in enumerate(gradients):
            sent = quantized(residuals[rank] + gradient, threshold).astype("float32")
            residuals[rank] += gradient - sent
            total += sent
        rights.append(total)
    return Answer(outs, rights)


@case()
def case_compression(job: Job) -> Answer:
    """`set_gradient_compression({'type': '2bit'})`, three rounds: threshold 0.5, with residuals"""
    return compressed(job, {"type": "2bit"}, 0.5)


@case()
def case_compression_threshold(job: Job) -> Answer:
    """`{'type': '2bit', 'threshold': 0.25}`"""
    return compressed(job, {"type": "2bit", "threshold": 0.25}, 0.25)


@case()
def case_compression_pushpull(job: Job) -> Answer:
    """2-bit compression and `pushpull`, which is what Gluon calls"""
    kv, key = job.kv(), job.key()
    kv.set_gradient_compression({"type": "2bit"})
    kv._barrier()
    kv.init(key, mx.nd.zeros(3))
    out = mx.nd.zeros(3)
    kv.pushpull(key, mx.nd.array([0.4, 0.6, -3]), out=out)
    return Answer(out, np.array([0, 0.5, -0.5], "float32") * job.num_workers)


@case("commands")
def case_compression_refused(job: Job) -> Answer:
    """`set_gradient_compression`: an unknown type, an unknown argument, a threshold below zero"""
    kv = job.kv()
    wrong = ({"type": "3bit"}, {"type": "2bit", "size": 3}, {"type": "2bit", "threshold": -1})
    return Answer([raised(kv.set_gradient_compression, one) for one in wrong], [True] * 3)


@case(refused=True, ends_job=True)
def case_compression_of_half_precision(job: Job) -> Answer:
    """2-bit compression and a float16 key"""
    kv, key = job.kv(), job.key()
    kv.set_gradient_compression({"type": "2bit"})
    kv._barrier()
    kv.init(key, mx.nd.zeros(3, dtype="float16"))
    out = mx.nd.zeros(3, dtype="float16")
    kv.push(key, mx.nd.ones(3, dtype="float16"))
    kv.pull(key, out=out)
    out.wait_to_read()
    return Answer(out, "refused")


@case(ends_job=True)
def case_profile_of_servers(job: Job) -> Answer:
    """`mx.profiler` with `profile_process='server'`: each server writes its file"""
    kv, key = job.kv(), job.key()
    kv.init(key, mx.nd.zeros(3))
    name = "profile.json"  # in the working directory; a server puts its number before the name
    out = mx.nd.zeros(3)
    if kv.rank == 0:
        mx.profiler.set_config(profile_all=True, filename=name, profile_process="server")
        mx.profiler.set_state("run", profile_process="server")
    kv._barrier()
    kv.pushpull(key, mx.nd.ones(3), out=out)
    out.wait_to_read()
    kv._barrier()
    if kv.rank == 0:
        mx.profiler.pause(profile_process="server")
        mx.profiler.resume(profile_process="server")
        mx.profiler.set_state("stop", profile_process="server")
        mx.profiler.dump(profile_process="server")
    kv._barrier()
    return Answer(len(glob.glob(os.path.join(job.folder, "*profile.json"))), 2)
