"""Arrays of every dtype, shape and layout."""

import mxnet as mx
import numpy as np

from tests.differential.case import Answer, Job, case

DTYPES = ("float16", "float32", "float64", "uint8", "int8", "int32", "int64")
BIG = 1_200_000  # natively, arrays of a million elements and more are split over the servers


def pattern(shape, dtype="float32") -> np.ndarray:
    """Small whole numbers, another at each place, exact in every dtype."""
    return (np.arange(np.prod(shape, dtype=int)) % 13).reshape(shape).astype(dtype)


def summed(job: Job, shape, dtype: str = "float32") -> Answer:
    """init, pushpull of (rank + 1) times a pattern, pull."""
    kv, key = job.kv(), job.key()
    value = pattern(shape, dtype)
    kv.init(key, mx.nd.zeros(shape, dtype=dtype))
    outs = [mx.nd.zeros(shape, dtype=dtype) for _ in range(2)]
    kv.pushpull(key, mx.nd.array(value * (kv.rank + 1), dtype=dtype), out=outs[0])
    kv.pull(key, out=outs[1])
    right = (value * job.total(lambda rank: rank + 1)).astype(dtype)
    return Answer(outs, [right, right])


WHOLE = ("uint8", "int8", "int32", "int64")
for dtype_ in DTYPES:
    case(
        None if dtype_ in WHOLE else "ints",
        name=f"dtype_{dtype_}",
        what=f"{dtype_}: init, pushpull, pull",
    )(lambda job, dtype_=dtype_: summed(job, (3, 5), dtype_))


@case(refused=True)
def case_dtype_bool(job: Job) -> Answer:
    """bool, which cannot be summed: init, pull"""
    kv, key = job.kv(), job.key()
    kv.init(key, mx.nd.array([1, 0, 1], dtype=bool))
    out = mx.nd.zeros(3, dtype=bool)
    kv.pull(key, out=out)
    out.wait_to_read()
    return Answer(out, "refused")


SHAPES = {
    "one_element": ((1,), "one element"),
    "four_dimensions": ((2, 3, 4, 5), "four dimensions"),
    "big": ((BIG,), "1.2 million elements: natively split over the servers"),
    "big_and_odd": ((1_000_003,), "1,000,003 elements"),
    "big_matrix": ((1100, 1001), "a matrix of 1.1 million elements"),
}
for name_, (shape_, what_) in SHAPES.items():
    case("ints", name=f"shape_{name_}", what=f"{what_}: init, pushpull, pull")(
        lambda job, shape_=shape_: summed(job, shape_)
    )


@case("ints")
def case_big_half_precision(job: Job) -> Answer:
    """1.2 million elements of float16"""
    return summed(job, (BIG,), "float16")


@case("ints")
def case_big_devices(job: Job) -> Answer:
    """1.2 million elements, from two devices to two devices"""
    kv, key = job.kv(), job.key()
    value = pattern((BIG,))
    kv.init(key, mx.nd.zeros(BIG))
    outs = [mx.nd.zeros(BIG, ctx=mx.cpu(device)) for device in range(2)]
    kv.pushpull(key, [mx.nd.array(value, ctx=mx.cpu(device)) for device in range(2)], out=outs)
    return Answer(outs, [value * 2 * job.num_workers] * 2)


@case()
def case_shape_zero_dimensions(job: Job) -> Answer:
    """A 0-d array of `mx.np`, under `npx.set_np()`"""
    with mx.util.np_shape(True), mx.util.np_array(True):
        kv, key = job.kv(), job.key()
        kv.init(key, mx.np.array(5.0))
        out = mx.np.array(0.0)
        kv.pushpull(key, mx.np.array(2.0), out=out)
        out.wait_to_read()
    return Answer(out, np.array(2.0 * job.num_workers, "float32"))


@case()
def case_shape_size_zero(job: Job) -> Answer:
    """An array of no elements, (0, 3), under `npx.set_np()`"""
    with mx.util.np_shape(True), mx.util.np_array(True):
        kv, key = job.kv(), job.key()
        kv.init(key, mx.np.zeros((0, 3)))
        out = mx.np.zeros((0, 3))
        kv.pushpull(key, mx.np.zeros((0, 3)), out=out)
        out.wait_to_read()
    return Answer(out, np.zeros((0, 3), "float32"))


@case("ints")
def case_numpy_interface(job: Job) -> Answer:
    """`mx.np` arrays as value and out"""
    kv, key = job.kv(), job.key()
    kv.init(key, mx.np.zeros((2, 2)))
    out = mx.np.zeros((2, 2))
    kv.pushpull(key, mx.np.ones((2, 2)), out=out)
    return Answer(out, np.full((2, 2), job.num_workers, "float32"))


@case("ints")
def case_view(job: Job) -> Answer:
    """Value and out are rows 1 and 2 of bigger arrays: the rest is left alone"""
    kv, key = job.kv(), job.key()
    value, out = mx.nd.array(pattern((4, 3))), mx.nd.zeros((4, 3))
    kv.init(key, mx.nd.zeros((2, 3)))
    kv.pushpull(key, value[1:3], out=out[1:3])
    mx.nd.waitall()
    right = np.zeros((4, 3), "float32")
    right[1:3] = pattern((4, 3))[1:3] * job.num_workers
    return Answer([value, out], [pattern((4, 3)), right])


@case("ints")
def case_reshaped_view(job: Job) -> Answer:
    """Value and out are `reshape` views"""
    kv, key = job.kv(), job.key()
    value, out = mx.nd.array(pattern((12,))), mx.nd.zeros(12)
    kv.init(key, mx.nd.zeros((4, 3)))
    kv.pushpull(key, value.reshape((4, 3)), out=out.reshape((4, 3)))
    mx.nd.waitall()
    return Answer(out, pattern((12,)) * job.num_workers)


@case("ints")
def case_overlapping_views(job: Job) -> Answer:
    """`pushpull(k, a[:-1], out=a[1:])`: two views of one array that overlap"""
    kv, key = job.kv(), job.key()
    array = mx.nd.array(pattern((100,)))
    kv.init(key, mx.nd.zeros(99))
    kv.pushpull(key, array[:-1], out=array[1:])
    mx.nd.waitall()
    right = np.concatenate([pattern((100,))[:1], pattern((100,))[:-1] * job.num_workers])
    return Answer(array, right)


@case("ints")
def case_transposed(job: Job) -> Answer:
    """`push(k, a.T)`"""
    kv, key = job.kv(), job.key()
    kv.init(key, mx.nd.zeros((3, 4)))
    out = mx.nd.zeros((3, 4))
    kv.push(key, mx.nd.array(pattern((4, 3))).T)
    kv.pull(key, out=out)
    return Answer(out, pattern((4, 3)).T.copy() * job.num_workers)


@case("ints")
def case_computed_value(job: Job) -> Answer:
    """`push(k, v)` where v is still being computed"""
    kv, key = job.kv(), job.key()
    kv.init(key, mx.nd.zeros((64, 64)))
    out = mx.nd.zeros((64, 64))
    value = mx.nd.ones((64, 64))
    for _ in range(5):
        value = mx.nd.dot(value, mx.nd.ones((64, 64))) / 64
    kv.push(key, value)
    kv.pull(key, out=out)
    return Answer(out, np.full((64, 64), job.num_workers, "float32"))


@case()
def case_library_layout(job: Job) -> Answer:
    """A convolution's weight and gradient in the CPU library's own layout"""
    weight = mx.nd.array(pattern((32, 16, 3, 3)) / 13)
    weight.attach_grad()
    data = mx.nd.ones((2, 16, 8, 8))
    with mx.autograd.record():
        loss = mx.nd.Convolution(data, weight, kernel=(3, 3), num_filter=32, no_bias=True).sum()
    loss.backward()
    kv, key = job.kv(), job.key()
    kv.init(key, weight)
    out = mx.nd.zeros(weight.shape)
    kv.pushpull(key, weight.grad, out=out)
    return Answer(out, np.full(weight.shape, 2 * 6 * 6 * job.num_workers, "float32"))


def cast(job: Job, is_pushed: bool) -> Answer:
    """A key of float32, pulled into arrays of other dtypes."""
    kv, key = job.kv(), job.key()
    value = np.array([0, 1, 2.5, -7.75, 100, 2049], "float32")
    kv.init(key, mx.nd.array(value))
    if is_pushed:
        kv.push(key, mx.nd.array(value))
        value = value * job.num_workers
    outs = [mx.nd.zeros(value.shape, dtype=dtype) for dtype in ("float64", "float16", "int32")]
    for out in outs:
        kv.pull(key, out=out)
    kv.pull(key, out=outs)
    return Answer(outs, [value.astype(out.dtype) for out in outs])


@case()
def case_pull_into_other_dtype(job: Job) -> Answer:
    """`pull` of a key of float32 into float64, float16 and int32, before anything is pushed"""
    return cast(job, is_pushed=False)


@case("ints")
def case_pull_into_other_dtype_later(job: Job) -> Answer:
    """`push`, then `pull` of a key of float32 into float64, float16 and int32: cast"""
    return cast(job, is_pushed=True)


@case("ints")
def case_pushpull_into_other_dtype(job: Job) -> Answer:
    """`pushpull(k, v, out=[o0, o1])`, twice, v float16 as the key, o0 float32, o1 float16"""
    kv, key = job.kv(), job.key()
    value = pattern((3, 5), "float16")
    kv.init(key, mx.nd.zeros((3, 5), dtype="float16"))
    outs = [mx.nd.zeros((3, 5), mx.cpu(n), dtype) for n, dtype in enumerate(("float32", "float16"))]
    for _ in range(2):
        kv.pushpull(key, mx.nd.array(value, dtype="float16"), out=outs)
    return Answer(outs, [(value * job.num_workers).astype(out.dtype) for out in outs])
