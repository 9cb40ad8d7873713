"""init, push, pull, pushpull and broadcast of a key."""

import threading

import mxnet as mx

from tests.differential.case import Answer, Job, case


def full(value: float, shape=(2, 3), device: int = 0) -> mx.nd.NDArray:
    return mx.nd.full(shape, value, ctx=mx.cpu(device))


@case("ints")
def case_init_takes_rank_0s_value(job: Job) -> Answer:
    """`init` with another value on each worker: rank 0's counts"""
    kv, key = job.kv(), job.key()
    kv.init(key, full(7 + kv.rank))
    out = full(0)
    kv.pull(key, out=out)
    return Answer(out, full(7))


@case("ints")
def case_push_replaces(job: Job) -> Answer:
    """`push`, `pull`, twice: the sum replaces the value"""
    kv, key = job.kv(), job.key()
    kv.init(key, full(100))
    outs = [full(0), full(0)]
    for step, out in enumerate(outs):
        kv.push(key, full(10**step * (kv.rank + 1)))
        kv.pull(key, out=out)
        out.wait_to_read()
    return Answer(outs, [full(10**s * job.total(lambda rank: rank + 1)) for s in (0, 1)])


@case("ints")
def case_pushes_before_a_pull(job: Job) -> Answer:
    """`push` three times, then `pull`: the last round's sum"""
    kv, key = job.kv(), job.key()
    kv.init(key, full(0))
    for value in (1, 4, 9):
        kv.push(key, full(value))
    out = full(0)
    kv.pull(key, out=out)
    return Answer(out, full(9 * job.num_workers))


@case("ints")
def case_pulls_without_a_push(job: Job) -> Answer:
    """`pull` twice, with no push before: the initial value"""
    kv, key = job.kv(), job.key()
    kv.init(key, full(5))
    outs = [full(0), full(0)]
    for out in outs:
        kv.pull(key, out=out)
    return Answer(outs, [full(5), full(5)])


@case("ints")
def case_devices(job: Job) -> Answer:
    """`push(k, [v0, v1])` from two devices, `pull(k, [o0, o1])`"""
    kv, key = job.kv(), job.key()
    kv.init(key, full(0))
    kv.push(key, [full(1 + device, device=device) for device in range(2)])
    outs = [full(0, device=device) for device in range(2)]
    kv.pull(key, out=outs)
    return Answer([*outs, [str(out.context) for out in outs]],
                  [full(3 * job.num_workers)] * 2 + [["cpu(0)", "cpu(1)"]])  # fmt: skip


@case("ints")
def case_pushpull(job: Job) -> Answer:
    """`pushpull(k, v, out=o)`, twice"""
    return pushpulled(job, is_patient=True)


@case("ints")
def case_pushpull_ahead(job: Job) -> Answer:
    """`pushpull` twice with nothing waited for: each out has its own round's sum"""
    return pushpulled(job, is_patient=False)


def pushpulled(job: Job, is_patient: bool) -> Answer:
    kv, key = job.kv(), job.key()
    kv.init(key, full(0))
    outs = [full(0), full(0)]
    for step, out in enumerate(outs):
        kv.pushpull(key, full(step + 1), out=out)
        if is_patient:
            out.wait_to_read()
    return Answer(outs, [full(n * job.num_workers) for n in (1, 2)])


@case("ints")
def case_pushpull_without_out(job: Job) -> Answer:
    """`pushpull(k, [v0, v1])`: the sum is written to the values"""
    kv, key = job.kv(), job.key()
    kv.init(key, full(0))
    values = [full(kv.rank + 1, device=device) for device in range(2)]
    kv.pushpull(key, values)
    return Answer(values, [full(2 * job.total(lambda rank: rank + 1))] * 2)


@case("ints")
def case_pushpull_onto_itself(job: Job) -> Answer:
    """`pushpull(k, v, out=v)`, four times in a chain, with nothing waited for"""
    kv, key = job.kv(), job.key()
    kv.init(key, full(0))
    value = full(kv.rank + 1)
    for _ in range(4):
        kv.pushpull(key, value, out=value)
    return Answer(value, full(job.total(lambda rank: rank + 1) * job.num_workers**3))


@case("ints")
def case_broadcast(job: Job) -> Answer:
    """`broadcast(k, v, out=[o0, o1])`: rank 0's value"""
    kv, key = job.kv(), job.key()
    outs = [full(0, device=device) for device in range(2)]
    kv.broadcast(key, full(3 + kv.rank), out=outs)
    return Answer(outs, [full(3)] * 2)


@case("ints")
def case_priorities(job: Job) -> Answer:
    """`priority=` of push, pull, pushpull and broadcast: negative, zero, large"""
    kv, keys = job.kv(), job.keys(4)
    outs = [full(0) for _ in keys]
    for number, priority in enumerate((-(2**31), -5, 0, 2**31 - 1)):
        key, out = keys[number], outs[number]
        kv.broadcast(key, full(1), out=out, priority=priority)
        kv.push(key, full(2), priority=priority)
        kv.pull(key, out=out, priority=priority)
        out.wait_to_read()
        kv.pushpull(key, full(number), out=out, priority=priority)
    return Answer(outs, [full(number * job.num_workers) for number in range(4)])


@case("ints")
def case_pull_ignore_sparse(job: Job) -> Answer:
    """`pull(k, out, ignore_sparse=False)` of a dense key"""
    kv, key = job.kv(), job.key()
    kv.init(key, full(2))
    out = full(0)
    kv.pull(key, out=out, ignore_sparse=False)
    return Answer(out, full(2))


@case("ints")
def case_gradients_are_left_alone(job: Job) -> Answer:
    """`push(k, v)`, `pull(k, out=o)` on one device: v is still what it was"""
    kv, key = job.kv(), job.key()
    kv.init(key, full(0))
    value, out = full(9), full(0)
    kv.push(key, value)
    kv.pull(key, out=out)
    mx.nd.waitall()
    return Answer([value, out], [full(9), full(9 * job.num_workers)])


@case("ints")
def case_value_changed_after_push(job: Job) -> Answer:
    """`push(k, v)`, then `v[:] = 0` at once: what v was is pushed"""
    kv, key = job.kv(), job.key()
    kv.init(key, full(0))
    value, out = full(9, (300, 300)), full(0, (300, 300))
    key = job.key()
    kv.init(key, out)
    kv.push(key, value)
    value[:] = 0
    kv.pull(key, out=out)
    return Answer(out, full(9 * job.num_workers, (300, 300)))


@case("ints")
def case_threads(job: Job) -> Answer:
    """Four threads push the same value to one key"""
    kv, key = job.kv(), job.key()
    kv.init(key, full(0))

    def push() -> None:
        for _ in range(10):
            kv.push(key, full(3))

    threads = [threading.Thread(target=push) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    out = full(0)
    kv.pull(key, out=out)
    return Answer(out, full(3 * job.num_workers))


@case(ends_job=True)
def case_uneven(job: Job) -> Answer:
    """Worker r makes 2 + r rounds and ends: the others' rounds go on without it"""
    kv, key = job.kv(), job.key()
    kv.init(key, full(0))
    out = full(0)
    for _ in range(2 + kv.rank):
        kv.pushpull(key, full(1), out=out)
        out.wait_to_read()
    return Answer(out, full(job.num_workers - kv.rank))
