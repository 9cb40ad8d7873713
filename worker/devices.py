"""Which devices a worker trains on."""

import os
from typing import Any, List

__all__ = ["devices"]


def devices() -> List[Any]:
    """The MXNet contexts of this worker, as many as ``launch.py --devices`` said.

    GPUs where there are enough of them, CPU contexts otherwise. Outside a job: all GPUs, or one
    CPU context.
    """
    import mxnet as mx

    count = int(os.environ.get("BARYON_DEVICES", "0"))
    gpus = mx.context.num_gpus()
    if gpus and gpus >= count:
        return [mx.gpu(i) for i in range(count or gpus)]
    return [mx.cpu(i) for i in range(count or 1)]
