"""Where gluon.Trainer refuses what MXNet's own dist stores cannot do, and ours can.

With a store of ours, a changed batch size takes effect with the step that it is given to, and
parameters may be loaded or set after training has begun: Trainer then goes on with a new store, as
it does on one machine, to which rank 0's new values go. Trainers on other stores are left alone.
"""

from typing import Any, Type

import mxnet as mx

__all__ = ["adapt"]


def adapt(store_class: Type[Any]) -> None:
    """Change Trainer for stores of ``store_class``; once is enough, and more does no harm."""
    trainer_class = mx.gluon.Trainer
    if getattr(trainer_class, "_is_adapted", False):
        return
    check_and_rescale, reset = trainer_class._check_and_rescale_grad, trainer_class._reset_kvstore

    def rescale_live(self: Any, scale: float) -> None:
        if isinstance(self._kvstore, store_class):
            self._optimizer.rescale_grad = scale
        else:
            check_and_rescale(self, scale)

    def reset_with_a_new_store(self: Any) -> None:
        if isinstance(self._kvstore, store_class):
            self._kvstore.replaced()
            self._kvstore_params["kvstore"] = self._kvstore.type
            self._kvstore = None
        reset(self)

    trainer_class._check_and_rescale_grad = rescale_live
    trainer_class._reset_kvstore = reset_with_a_new_store
    trainer_class._is_adapted = True
