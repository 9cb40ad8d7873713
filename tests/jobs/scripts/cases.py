"""What scripts of cases share. A case is a function ``case_...``, run by every worker of a job."""

import os
import traceback

import mxnet as mx
import numpy as np


def same(array, expected):
    np.testing.assert_array_equal(array.asnumpy(), np.broadcast_to(expected, array.shape))


def raises(text, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except Exception as error:
        assert text in str(error), f"{text!r} is not in {error!r}"
        return
    raise AssertionError(f"nothing was raised where {text!r} was expected")


def total(kv):
    """1 + 2 + ... + number of workers: the sum if worker r contributes r + 1."""
    return kv.num_workers * (kv.num_workers + 1) // 2


def run_cases(script):
    """Run a script's cases, given its globals, in one order on all workers; ends the process.

    Prints ``PASSED name`` or a traceback and ``FAILED name``. CASES names those to run, else all.
    """
    failed = 0
    for name, case in sorted(script.items()):
        if not name.startswith("case_") or os.environ.get("CASES", "case_") not in name:
            continue
        try:
            case()
            mx.nd.waitall()
            print("PASSED", name, flush=True)
        except Exception:
            failed += 1
            traceback.print_exc()
            print("FAILED", name, flush=True)
    raise SystemExit(failed)
