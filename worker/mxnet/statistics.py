"""Running statistics of a network (batch normalisation's), averaged over workers.

They have no gradient, so no step combines them: each worker has statistics of its own batches.
"""

from typing import Any, Callable, Dict, List

import mxnet as mx
import numpy as np

from baryon.ps import UsageError

__all__ = ["average"]

_NAMES = ("running_mean", "running_var", "moving_mean", "moving_var")


def average(net: Any, mean: Callable[[np.ndarray], np.ndarray]) -> None:
    """Replace the statistics of ``net``, a Gluon block or a Module, by their mean over workers.

    ``mean`` computes it of one vector (float64) with all of them. Raises UsageError if ``net`` is
    neither.
    """
    if isinstance(net, mx.gluon.Block):
        _average(_of_block(net), mean)
    elif isinstance(net, mx.module.BaseModule):
        auxiliary = net.get_params()[1]
        _average([[auxiliary[name]] for name in sorted(auxiliary)], mean)
        if auxiliary:
            net.set_params({}, auxiliary, allow_missing=True, force_init=True)
    else:
        raise UsageError(f"sync_aux needs a Gluon block or a Module, not a {type(net).__name__}")


def _of_block(net: Any) -> List[List[Any]]:
    """For each statistic its arrays, one per device; in the order of declaration."""
    found: Dict[str, List[Any]] = {}
    for name, parameter in net.collect_params().items():
        is_named = parameter.grad_req == "null" and name.endswith(_NAMES)
        if is_named or not parameter._differentiable:
            # We write to the arrays: after `set_data` a Trainer would go on with a new store.
            found[name] = parameter.list_data()
    return list(found.values())


def _average(statistics: List[List[Any]], mean: Callable[[np.ndarray], np.ndarray]) -> None:
    own = [
        np.mean([array.asnumpy().astype(np.float64).reshape(-1) for array in arrays], axis=0)
        for arrays in statistics
    ]
    if not own:
        return
    vector, at = mean(np.concatenate(own)), 0
    for arrays in statistics:
        for array in arrays:
            part = vector[at : at + array.size].reshape(array.shape)
            array[:] = mx.nd.array(part, dtype=array.dtype, ctx=array.context)
        at += arrays[0].size
