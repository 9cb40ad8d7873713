"""What a store is: its type string, its size, what it says of itself."""

import mxnet as mx

from tests.differential.case import Answer, Job, case, raised

SYNC = ("dist", "dist_sync", "dist_device_sync", "dist_sync_device")
ASYNC = ("dist_async", "dist_async_device", "dist_device_async")


def serves_sync(job: Job, asked: str, told: str) -> Answer:
    kv = mx.kv.create(asked)
    job.rank = kv.rank
    kv.init(3, mx.nd.ones(5))
    out = [mx.nd.zeros(5), mx.nd.zeros(5)]
    kv.push(3, mx.nd.full(5, kv.rank + 1))
    kv.pull(3, out=out[0])
    out[0].wait_to_read()
    kv.pushpull(3, mx.nd.full(5, 10), out=out[1])
    total = job.total(lambda rank: rank + 1)
    right = [told, mx.nd.full(5, total), mx.nd.full(5, 10 * job.num_workers)]
    return Answer([kv.type, *out], right)


def serves_async(job: Job, asked: str) -> Answer:
    """Every push is applied when it comes; so after a barrier all are there."""
    kv = mx.kv.create(asked)
    job.rank = kv.rank
    kv.set_optimizer(mx.optimizer.SGD(learning_rate=1.0))
    kv.init(3, mx.nd.zeros(5))
    out = mx.nd.zeros(5)
    for _ in range(3):
        kv.push(3, mx.nd.full(5, kv.rank + 1))
        kv.pull(3, out=out)
        out.wait_to_read()
    kv._barrier()
    kv.pull(3, out=out)
    return Answer([kv.type, out], [asked, mx.nd.full(5, -3 * job.total(lambda rank: rank + 1))])


for type_ in SYNC:
    case(name=f"type_{type_}", what=f"`create('{type_}')`: type, push, pull, pushpull")(
        lambda job, type_=type_: serves_sync(job, type_, type_)
    )
for type_ in ASYNC:
    case(
        name=f"type_{type_}",
        what=f"`create('{type_}')`, SGD: each push is applied when it comes, all after a barrier",
    )(lambda job, type_=type_: serves_async(job, type_))


@case()
def case_type_in_capitals(job: Job) -> Answer:
    """`create('Dist_SYNC')`"""
    return serves_sync(job, "Dist_SYNC", "dist_sync")


@case(refused=True)
def case_type_unheard_of(job: Job) -> Answer:
    """`create('dist_unheard_of')`: a misspelt type is refused"""
    return serves_sync(job, "dist_unheard_of", "refused")


@case(refused=True, ends_job=True)
def case_async_without_optimizer(job: Job) -> Answer:
    """`dist_async` without an optimizer: a push is refused"""
    kv = mx.kv.create("dist_async")
    job.rank = kv.rank
    kv.init(3, mx.nd.zeros(5))
    out = mx.nd.zeros(5)
    kv.push(3, mx.nd.ones(5))
    kv.pull(3, out=out)
    out.wait_to_read()
    return Answer(out, "refused")


@case()
def case_async_uneven(job: Job) -> Answer:
    """`dist_async`, SGD: worker r pushes r + 1 times"""
    kv = mx.kv.create("dist_async")
    job.rank = kv.rank
    kv.set_optimizer(mx.optimizer.SGD(learning_rate=1.0))
    kv.init(3, mx.nd.zeros(5))
    out = mx.nd.zeros(5)
    for _ in range(kv.rank + 1):
        kv.pushpull(3, mx.nd.ones(5), out=out)
        out.wait_to_read()
    kv._barrier()
    kv.pull(3, out=out)
    return Answer(out, mx.nd.full(5, -job.total(lambda rank: rank + 1)))


@case()
def case_two_stores(job: Job) -> Answer:
    """Two stores in one process, the same key in both"""
    stores = [mx.kv.create("dist_sync") for _ in range(2)]
    job.rank = stores[0].rank
    outs = [mx.nd.zeros(2), mx.nd.zeros(2)]
    for number, kv in enumerate(stores):
        kv.init(3, mx.nd.zeros(2))
        kv.pushpull(3, mx.nd.full(2, number + 1), out=outs[number])
    return Answer(outs, [mx.nd.full(2, job.num_workers * n) for n in (1, 2)])


@case("ints", refused=True)
def case_type_no_string(job: Job) -> Answer:
    """`create(3)`"""
    job.kv()
    return Answer(mx.kv.create(3), "refused")


@case("ints")
def case_properties(job: Job) -> Answer:
    """`rank`, `num_workers`, `type`, and that it is a `mx.kvstore.KVStore`"""
    kv = job.kv()
    is_rank = 0 <= kv.rank < kv.num_workers
    got = [is_rank, kv.num_workers, kv.type, isinstance(kv, mx.kvstore.KVStore)]
    return Answer(got, [True, job.num_workers, "dist_sync", True])


@case("ints")
def case_is_capable(job: Job) -> Answer:
    """`is_capable('optimizer')`, in capitals, and of something unknown (ValueError)"""
    kv = job.kv()
    got = [kv.is_capable("optimizer"), kv.is_capable("OPTIMIZER"), raised(kv.is_capable, "magic")]
    return Answer(got, [True, True, True])


@case("ints")
def case_get_num_dead_node(job: Job) -> Answer:
    """`get_num_dead_node`: in 1.9.1 no store has it"""
    return Answer(hasattr(job.kv(), "get_num_dead_node"), False)


@case("ints")
def case_barrier(job: Job) -> Answer:
    """`_barrier()`, three times: what was pushed before is there for all after"""
    kv, key = job.kv(), job.key()
    kv.init(key, mx.nd.zeros(2))
    out = mx.nd.zeros(2)
    for step in range(1, 4):
        kv.pushpull(key, mx.nd.full(2, step), out=out)
        out.wait_to_read()
        kv._barrier()
    return Answer(out, mx.nd.full(2, 3 * job.num_workers))


@case("ints", workers=3)
def case_three_workers(job: Job) -> Answer:
    """Three workers: the sum of what each pushes"""
    kv, key = job.kv(), job.key()
    kv.init(key, mx.nd.zeros(4))
    out = mx.nd.zeros(4)
    kv.pushpull(key, mx.nd.full(4, 10**kv.rank), out=out)
    return Answer(out, mx.nd.full(4, 111))


@case("ints", workers=1)
def case_one_worker(job: Job) -> Answer:
    """One worker alone"""
    kv, key = job.kv(), job.key()
    kv.init(key, mx.nd.zeros(4))
    out = mx.nd.zeros(4)
    kv.pushpull(key, mx.nd.full(4, 3), out=out)
    return Answer(out, mx.nd.full(4, 3))
