"""Keys of both kinds, and lists of keys with every form of values."""

import mxnet as mx
import numpy as np

from tests.differential.case import Answer, Job, case

from .values import full


@case("ints")
def case_init_list(job: Job) -> Answer:
    """`init([k1, k2], [v1, v2])`"""
    kv, keys = job.kv(), job.keys(2)
    kv.init(keys, [full(1), full(2)])
    outs = [full(0), full(0)]
    kv.pull(keys, out=outs)
    return Answer(outs, [full(1), full(2)])


@case("ints")
def case_push_list(job: Job) -> Answer:
    """`push([k1, k2], [v1, v2])`, `pull` of the same lists"""
    kv, keys = job.kv(), job.keys(2)
    kv.init(keys, [full(0)] * 2)
    kv.push(keys, [full(1), full(2)])
    outs = [full(0), full(0)]
    kv.pull(keys, out=outs)
    return Answer(outs, [full(n * job.num_workers) for n in (1, 2)])


@case("ints")
def case_push_tuple(job: Job) -> Answer:
    """`push((k1, k2), (v1, v2))`: tuples instead of lists"""
    kv, keys = job.kv(), tuple(job.keys(2))
    kv.init(keys, (full(0), full(0)))
    kv.push(keys, (full(1), full(2)))
    outs = (full(0), full(0))
    kv.pull(keys, out=outs)
    return Answer(outs, [full(n * job.num_workers) for n in (1, 2)])


@case("ints")
def case_list_of_lists(job: Job) -> Answer:
    """`push([k1, k2], [[v, v], [v, v]])`, and `pull` so"""
    kv, keys = job.kv(), job.keys(2)
    kv.init(keys, [full(0)] * 2)
    kv.push(keys, [[full(10 * k + d, device=d) for d in range(2)] for k in range(2)])
    outs = [[full(0, device=d) for d in range(2)] for _ in keys]
    kv.pull(keys, out=outs)
    return Answer(outs, [[full((20 * k + 1) * job.num_workers)] * 2 for k in range(2)])


@case("ints")
def case_repeated_key_in_push(job: Job) -> Answer:
    """`push([k, k], [v1, v2])`: taken together"""
    kv, key = job.kv(), job.key()
    kv.init(key, full(0))
    kv.push([key, key], [full(1), full(5)])
    out = full(0)
    kv.pull(key, out=out)
    return Answer(out, full(6 * job.num_workers))


@case("ints")
def case_repeated_key_in_pull(job: Job) -> Answer:
    """`pull([k, k], [o1, o2])`: both get it"""
    kv, key = job.kv(), job.key()
    kv.init(key, full(4))
    outs = [full(0), full(0)]
    kv.pull([key, key], out=outs)
    return Answer(outs, [full(4)] * 2)


@case("ints")
def case_repeated_key_in_pushpull(job: Job) -> Answer:
    """`pushpull([k, k], [v1, v2], out=[o1, o2])`"""
    kv, key = job.kv(), job.key()
    kv.init(key, full(0))
    outs = [full(0), full(0)]
    kv.pushpull([key, key], [full(1), full(5)], out=outs)
    return Answer(outs, [full(6 * job.num_workers)] * 2)


@case("ints")
def case_pushpull_lists(job: Job) -> Answer:
    """`pushpull([k1, k2], [[v, v], [v, v]], out=[[o, o], [o, o]])`"""
    kv, keys = job.kv(), job.keys(2)
    kv.init(keys, [full(0)] * 2)
    outs = [[full(0, device=d) for d in range(2)] for _ in keys]
    values = [[full(10 * k + d, device=d) for d in range(2)] for k in range(2)]
    kv.pushpull(keys, values, out=outs)
    return Answer(outs, [[full((20 * k + 1) * job.num_workers)] * 2 for k in range(2)])


@case("ints")
def case_broadcast_lists(job: Job) -> Answer:
    """`broadcast([k1, k2], [v1, v2], out=[o1, o2])`"""
    kv, keys = job.kv(), job.keys(2)
    outs = [full(0), full(0)]
    kv.broadcast(keys, [full(3 + kv.rank), full(5)], out=outs)
    return Answer(outs, [full(3), full(5)])


@case("ints")
def case_empty_lists(job: Job) -> Answer:
    """`push([], [])` and `pull([], [])`: nothing happens"""
    kv = job.kv()
    return Answer([kv.push([], []), kv.pull([], out=[])], [None, None])


@case("strings")
def case_string_keys(job: Job) -> Answer:
    """String keys: init, push, pull, pushpull, broadcast, lists of them"""
    kv, names = job.kv(), job.names(3)
    outs = [full(0) for _ in names]
    kv.init(names[:2], [full(0)] * 2)
    kv.broadcast(names[2], full(8 + kv.rank), out=outs[2])
    kv.push(names[0], full(1))
    kv.pull(names[0], out=outs[0])
    kv.pushpull(names[1:2], [full(2)], out=outs[1:2])
    return Answer(outs, [full(job.num_workers), full(2 * job.num_workers), full(8)])


@case("strings")
def case_string_keys_of_any_kind(job: Job) -> Answer:
    """String keys with spaces, accents, slashes, a number, and none at all"""
    kv = job.kv()
    names = ["a b", "größe", "net/0:weight", "17", ""]
    kv.init(names, [full(n) for n in range(5)])
    outs = [full(0) for _ in names]
    kv.pull(names, out=outs)
    return Answer(outs, [full(n) for n in range(5)])


@case()
def case_both_kinds_of_keys_in_a_list(job: Job) -> Answer:
    """`init([3, 'w'], [v1, v2])` and `pull` so"""
    kv, outs = job.kv(), [full(0), full(0)]
    kv.init([3, "w"], [full(1), full(2)])
    kv.pull([3, "w"], out=outs)
    return Answer(outs, [full(1), full(2)])


@case()
def case_both_kinds_of_keys_in_a_store(job: Job) -> Answer:
    """`init(3, v)` and `init('3', v)` in one store: two keys"""
    kv = job.kv()
    kv.init(3, full(1))
    kv.init("3", full(2))
    outs = [full(0), full(0)]
    kv.pull(3, out=outs[0])
    kv.pull("3", out=outs[1])
    return Answer(outs, [full(1), full(2)])


@case("ints")
def case_many_keys(job: Job) -> Answer:
    """200 keys of 1 to 200 elements, three rounds"""
    return many(job, is_patient=True)


@case("ints")
def case_many_keys_ahead(job: Job) -> Answer:
    """The same with nothing waited for between the rounds"""
    return many(job, is_patient=False)


def many(job: Job, is_patient: bool) -> Answer:
    kv, keys = job.kv(), job.keys(200)
    sizes = [1 + n for n in range(200)]
    for key, size in zip(keys, sizes):
        kv.init(key, mx.nd.zeros(size))
    outs = [mx.nd.zeros(size) for size in sizes]
    for step in range(1, 4):
        for number, (key, out) in enumerate(zip(keys, outs)):
            kv.pushpull(key, full(step + number, out.shape), out=out, priority=-number)
        if is_patient:
            mx.nd.waitall()
    got = np.array([out.asnumpy().sum() for out in outs])
    return Answer(
        got, np.array([size * (3 + n) * job.num_workers for n, size in enumerate(sizes)], "f")
    )
