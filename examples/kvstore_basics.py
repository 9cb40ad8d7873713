"""A key-value store in nine steps, with results that you can check by hand.

    python examples/kvstore_basics.py
    launch.py -n 2 -s 1 --launcher local --devices 2 examples/kvstore_basics.py

The numbers in the comments belong to the second command: two workers (n = 2) with two devices each
(d = 2). The script computes what it expects for any n and d (d is the same on all workers), and
exits with 1 at the first difference. Every worker checks; only rank 0 prints.
"""

import os
import sys

import mxnet as mx

from baryon.worker import devices

SHAPE = (2, 3)
STORE = "dist_sync" if os.environ.get("DMLC_ROLE") == "worker" else "local"

ctxs = devices()
kv = mx.kv.create(STORE)
n, d, rank = kv.num_workers, len(ctxs), kv.rank
ranks_sum = n * (n + 1) // 2  # (1 + 0) + (1 + 1) + ... over all ranks; 3


def filled(value):
    """An array full of `value` on each device."""
    return [mx.nd.full(SHAPE, value, ctx=ctx) for ctx in ctxs]


def say(text):
    if rank == 0:
        print(text, flush=True)


def check(what, arrays, expected):
    """Check that every element is `expected`; floats represent these numbers exactly."""
    for array in arrays:
        seen = array.asnumpy()
        if not (seen == expected).all():
            sys.exit(
                f"worker {rank}: {what} on {array.context} should be {expected:g}, but is\n{seen}"
            )
    say(f"    {what} = {expected:g}")


def pull_and_check(store, key, expected):
    """Check that every device of every worker pulls the same value."""
    out = filled(-1)
    store.pull(key, out=out)
    check(f"key {key!r}", out, expected)


say(f"{n} worker(s) with {d} device(s) each, store {kv.type}")

say("1. init gives a key its first value; all workers call it, and rank 0's value is the one kept.")
kv.init(3, mx.nd.full(SHAPE, 2 + rank))
pull_and_check(kv, 3, 2)

say("2. push from one device: each worker sends 8; without an optimizer the sum replaces the 2.")
kv.push(3, mx.nd.full(SHAPE, 8, ctx=ctxs[0]))
pull_and_check(kv, 3, 8 * n)  # 16

say("3. push from several devices: a list with one array for each; these are summed as well.")
kv.push(3, filled(1))
pull_and_check(kv, 3, d * n)  # 4

say("4. Workers may push different values: rank i pushes 1 + i on each of its devices.")
kv.push(3, filled(1 + rank))
pull_and_check(kv, 3, d * ranks_sum)  # (1 + 0) * 2 + (1 + 1) * 2 = 6

say("5. The stored value was replaced, not added to: the same push again, the same answer.")
kv.push(3, filled(1 + rank))
pull_and_check(kv, 3, d * ranks_sum)  # 6, not 12

say("6. A list of keys does the same to each: one list of device arrays for each key.")
keys = [5, 7, 9]
kv.init(keys, [mx.nd.zeros(SHAPE)] * len(keys))
kv.push(keys, [filled(key * (1 + rank)) for key in keys])
outs = [filled(-1) for _ in keys]
kv.pull(keys, out=outs)
for key, out in zip(keys, outs):
    check(f"key {key}", out, key * d * ranks_sum)  # 30, 42, 54

say("7. Another store has keys of its own, and they may be strings (one kind of key a store).")
named = mx.kv.create(STORE)
named.init("bias", mx.nd.full(SHAPE, 4))
named.push("bias", filled(1 + rank))
pull_and_check(named, "bias", d * ranks_sum)  # 6
pull_and_check(kv, 3, d * ranks_sum)  # 6: the first store knows nothing of it

say("8. With an optimizer the sum is a gradient: SGD with rate 0.5 takes half of it off the value.")
named.set_optimizer(mx.optimizer.SGD(learning_rate=0.5))
named.init("weight", mx.nd.full(SHAPE, 100))  # all workers meet here, so the optimizer is in place
named.push("weight", filled(1 + rank))
pull_and_check(named, "weight", 100 - d * ranks_sum / 2)  # 100 - 6 / 2 = 97

say("9. So the value is now updated, not replaced: the same push again moves it on.")
named.push("weight", filled(1 + rank))
pull_and_check(named, "weight", 100 - d * ranks_sum)  # 97 - 6 / 2 = 94

say("All as expected.")
