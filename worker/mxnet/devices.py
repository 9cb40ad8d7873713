"""Which devices a worker trains on."""

import os
from typing import Any, List

__all__ = ["devices"]


def devices() -> List[Any]:
    """The MXNet contexts of this worker, as many as ``launch.py --devices`` says.

    The workers of a host divide its GPUs in rank order. If the host has too few, a worker gets CPU
    contexts. Outside a job: all GPUs, or one CPU context.
    """
    import mxnet as mx

    count = int(os.environ.get("BARYON_DEVICES", "0"))
    gpus = mx.context.num_gpus()
    if not count:
        return [mx.gpu(i) for i in range(gpus)] or [mx.cpu()]
    local_rank = int(os.environ["BARYON_LOCAL_RANK"])
    # A worker that got GPUs by name (gpus= in the host file) sees no others.
    first = int(os.environ.get("BARYON_FIRST_GPU", local_rank * count))
    if gpus >= first + count:
        return [mx.gpu(first + i) for i in range(count)]
    return [mx.cpu(i) for i in range(count)]
