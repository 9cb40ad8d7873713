"""What a script may get wrong: it is told so where it did it."""

import mxnet as mx
import numpy as np

from tests.differential.case import Answer, Job, case


def started(job: Job):
    """A store with a (2, 3) key, the key, and an array of its shape."""
    kv, key, array = job.kv(), job.key(), mx.nd.ones((2, 3))
    kv.init(key, array)
    return kv, key, array


def wait(*arrays: mx.nd.NDArray) -> Answer:
    """For errors that the engine learns of later."""
    for array in arrays:
        array.wait_to_read()
    return Answer(list(arrays), "refused")


def push_doubles(kv, key, array) -> Answer:
    kv.push(key, array.astype("float64"))
    kv.pull(key, out=array)
    return wait(array)


@case(refused=True)
def case_init_twice(job: Job) -> Answer:
    """`init(k, v)` twice"""
    kv, key, array = started(job)
    kv.init(key, array)
    return wait(array)


@case("ints", refused=True)
def case_init_key_twice_in_a_list(job: Job) -> Answer:
    """`init([k, k], [v, v])`"""
    kv, key, array = job.kv(), job.key(), mx.nd.ones((2, 3))
    kv.init([key, key], [array, array])
    return wait(array)


@case(refused=True)
def case_broadcast_twice(job: Job) -> Answer:
    """`broadcast(k, v, out)` of a key that exists"""
    kv, key, array = started(job)
    kv.broadcast(key, array, out=array)
    return wait(array)


@case(refused=True)
def case_push_without_init(job: Job) -> Answer:
    """`push` of an unknown key"""
    kv, out = job.kv(), mx.nd.ones((2, 3))
    kv.push(99, out)
    kv.pull(99, out=out)
    return wait(out)


@case(refused=True)
def case_pull_without_init(job: Job) -> Answer:
    """`pull` of an unknown key"""
    kv, out = job.kv(), mx.nd.ones((2, 3))
    kv.pull(99, out=out)
    return wait(out)


@case(refused=True)
def case_push_too_small(job: Job) -> Answer:
    """`push` of (1, 3) to a key of (2, 3)"""
    kv, key, array = started(job)
    kv.push(key, array[:1])
    kv.pull(key, out=array)
    return wait(array)


@case(refused=True)
def case_push_too_big(job: Job) -> Answer:
    """`push` of (4, 3) to a key of (2, 3)"""
    kv, key, array = started(job)
    kv.push(key, mx.nd.ones((4, 3)))
    kv.pull(key, out=array)
    return wait(array)


@case("ints", refused=True)
def case_push_other_shape_of_the_size(job: Job) -> Answer:
    """`push` of (3, 2) to a key of (2, 3)"""
    kv, key, array = started(job)
    kv.push(key, mx.nd.ones((3, 2)))
    kv.pull(key, out=array)
    return wait(array)


@case(refused=True)
def case_pull_into_other_shape(job: Job) -> Answer:
    """`pull` of a key of (2, 3) into (4, 3)"""
    kv, key, _ = started(job)
    out = mx.nd.zeros((4, 3))
    kv.pull(key, out=out)
    return wait(out)


@case(refused=True)
def case_push_other_dtype(job: Job) -> Answer:
    """`push` of float64 to a key of float32"""
    return push_doubles(*started(job))


@case(refused=True)
def case_push_other_dtype_later(job: Job) -> Answer:
    """`push` of float64 to a key of float32 to which float32 was pushed before"""
    kv, key, array = started(job)
    kv.pushpull(key, array, out=array)
    return push_doubles(kv, key, array)


@case(refused=True)
def case_pull_into_other_shape_later(job: Job) -> Answer:
    """`push`, then `pull` of a key of (2, 3) into (4, 3)"""
    kv, key, array = started(job)
    kv.push(key, array)
    out = mx.nd.zeros((4, 3))
    kv.pull(key, out=out)
    return wait(out)


@case("ints", refused=True)
def case_devices_of_other_shapes(job: Job) -> Answer:
    """`push(k, [v, w])` where w has another shape than v"""
    kv, key, array = started(job)
    kv.push(key, [array, mx.nd.ones((3, 4), ctx=mx.cpu(1))])
    kv.pull(key, out=array)
    return wait(array)


@case("ints", refused=True)
def case_pull_without_out(job: Job) -> Answer:
    """`pull(k)`"""
    kv, key, array = started(job)
    kv.pull(key)
    return wait(array)


@case("ints", refused=True)
def case_fewer_values_than_keys(job: Job) -> Answer:
    """`push([k, k], [v])`"""
    kv, key, array = started(job)
    kv.push([key, key], [array])
    return wait(array)


@case("ints", refused=True)
def case_numpy_value(job: Job) -> Answer:
    """`push(k, numpy array)`"""
    kv, key, array = started(job)
    kv.push(key, np.ones((2, 3), "float32"))
    return wait(array)


@case("ints", refused=True)
def case_float_key(job: Job) -> Answer:
    """`init(1.5, v)`"""
    job.kv().init(1.5, mx.nd.ones((2, 3)))
    return Answer("accepted", "refused")


@case("ints", refused=True)
def case_numpy_key(job: Job) -> Answer:
    """`init(np.int64(5000), v)`"""
    job.kv().init(np.int64(5000), mx.nd.ones((2, 3)))
    return Answer("accepted", "refused")


@case("ints")
def case_bool_key(job: Job) -> Answer:
    """`init(True, v)`, `pull(1)`: in Python, True is 1"""
    kv, out = job.kv(), mx.nd.zeros((2, 3))
    kv.init(True, mx.nd.ones((2, 3)))
    kv.pull(1, out=out)
    return Answer(out, mx.nd.ones((2, 3)))


@case()
def case_negative_key(job: Job) -> Answer:
    """`init(-5, v)`, `pull(-5)`"""
    kv, out = job.kv(), mx.nd.zeros((2, 3))
    kv.init(-5, mx.nd.ones((2, 3)))
    kv.pull(-5, out=out)
    return Answer(out, mx.nd.ones((2, 3)))


@case("ints", refused=True)
def case_no_arrays(job: Job) -> Answer:
    """`push(k, [])`: a key with no array"""
    kv, key, array = started(job)
    kv.push(key, [])
    return wait(array)


@case("ints")
def case_goes_on_after_a_refusal(job: Job) -> Answer:
    """After `push([k], v)` with lists of unequal length was refused, the store goes on"""
    kv, key, array = started(job)
    try:
        kv.push([key, key], [array])
    except Exception:
        pass
    kv.pushpull(key, array, out=array)
    return Answer(array, mx.nd.full((2, 3), job.num_workers))
