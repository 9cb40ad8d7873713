"""Module on a store of ours, if the workers update the weights: all begin with equal weights.

MXNet only initialises the keys then, and each worker keeps its own first weights. With a store of
ours all workers begin with rank 0's values, as with a Trainer. drift.py compares them later.
"""

from typing import Any, Type

import mxnet as mx

__all__ = ["adapt_modules"]


def adapt_modules(store_class: Type[Any]) -> None:
    """Change Module for stores of ``store_class``; calling it again does nothing."""
    if getattr(mx.model, "_is_adapted", False):
        return
    initialize, update = mx.model._initialize_kvstore, mx.model._update_params

    def initialize_kvstore(
        kvstore: Any,
        param_arrays: Any,
        arg_params: Any,
        param_names: Any,
        update_on_kvstore: bool,
    ) -> None:
        initialize(kvstore, param_arrays, arg_params, param_names, update_on_kvstore)
        if isinstance(kvstore, store_class) and not update_on_kvstore:
            for name, arrays in zip(param_names, param_arrays):
                kvstore.pull(name, out=[*arrays, arg_params[name]], ignore_sparse=False)

    def update_params(
        param_arrays: Any,
        grad_arrays: Any,
        updater: Any,
        num_device: int,
        kvstore: Any = None,
        param_names: Any = None,
    ) -> None:
        if isinstance(kvstore, store_class):
            kvstore.look_for_drift(
                lambda: {n: a[0] for n, a in zip(param_names, param_arrays)},
                getattr(updater, "optimizer", None),
            )
        update(param_arrays, grad_arrays, updater, num_device, kvstore, param_names)

    for user in (mx.model, mx.module.module):
        user._initialize_kvstore = initialize_kvstore
        user._update_params = update_params
    mx.model._is_adapted = True
