"""Where gluon.Trainer refuses what MXNet's own dist stores cannot do, and ours can.

With a store of ours, a changed batch size takes effect with the step that it is given to, and so
does another optimizer. Parameters may be loaded or set after training has begun: Trainer then goes
on with a new store, to which rank 0's new values go and the optimizer's states of the old one: on
one machine they stay, too. Trainers on other stores are left alone.
"""

from typing import Any, Dict, Type

import mxnet as mx

__all__ = ["adapt"]


def adapt(store_class: Type[Any]) -> None:
    """Change Trainer for stores of ``store_class``; once is enough, and more does no harm."""
    trainer_class = mx.gluon.Trainer
    if getattr(trainer_class, "_is_adapted", False):
        return
    check_and_rescale, reset = trainer_class._check_and_rescale_grad, trainer_class._reset_kvstore
    init_params, allreduce = trainer_class._init_params, trainer_class._allreduce_grads

    def rescale_live(self: Any, scale: float) -> None:
        if not isinstance(self._kvstore, store_class):
            check_and_rescale(self, scale)
            return
        self._optimizer.rescale_grad = scale
        if self._update_on_kvstore and self._kvstore._optimizer is not self._optimizer:
            self._kvstore.set_optimizer(self._optimizer)

    def reset_with_a_new_store(self: Any) -> None:
        if isinstance(self._kvstore, store_class):
            self._kvstore.replaced()
            self._kvstore_params["kvstore"] = self._kvstore.type
            self._left_kvstore = self._kvstore if self._update_on_kvstore else None
            self._kvstore = None
        reset(self)

    def allreduce_same_weights(self: Any) -> None:
        if isinstance(self._kvstore, store_class) and not self._update_on_kvstore:
            self._kvstore.look_for_drift(lambda: _weights_of(self), self._optimizer)
        allreduce(self)

    def init_with_the_old_states(self: Any) -> None:
        init_params(self)
        left, self._left_kvstore = getattr(self, "_left_kvstore", None), None
        if left is not None and left._optimizer is self._optimizer:
            self._kvstore._take_over(left)

    trainer_class._check_and_rescale_grad = rescale_live
    trainer_class._reset_kvstore = reset_with_a_new_store
    trainer_class._init_params = init_with_the_old_states
    trainer_class._allreduce_grads = allreduce_same_weights
    trainer_class._is_adapted = True


def _weights_of(trainer: Any) -> Dict[str, Any]:
    """Those that it updates and that are there yet, on the first device."""
    parameters = [p for p in trainer._params if p.grad_req != "null" and p._data is not None]
    return {parameter.name: parameter.list_data()[0] for parameter in parameters}
