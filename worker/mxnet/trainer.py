"""gluon.Trainer on a store of ours: what it may do more, and what a checkpoint needs of it.

MXNet's Trainer refuses what MXNet's own dist stores cannot do. With a store of ours, a new batch
size takes effect in the very step that gets it, and so does another optimizer. Parameters may be
loaded or set after training has begun: Trainer then goes on with a new store, which takes rank 0's
new values and the old store's optimizer states. Trainers on other stores stay as they are.

Only this file uses Trainer's private attributes.
"""

from typing import Any, Dict, List, Type

import mxnet as mx

from baryon.ps import UsageError

from ..session import session

__all__ = ["Training", "adapt"]


def adapt(store_class: Type[Any]) -> None:
    """Change Trainer for stores of ``store_class``; calling it again does nothing."""
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
        if self._update_on_kvstore and self._kvstore.optimizer is not self._optimizer:
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
        if left is not None and left.optimizer is self._optimizer:
            self._kvstore.take_over(left)

    trainer_class._check_and_rescale_grad = rescale_live
    trainer_class._reset_kvstore = reset_with_a_new_store
    trainer_class._init_params = init_with_the_old_states
    trainer_class._allreduce_grads = allreduce_same_weights
    trainer_class._is_adapted = True


def _weights_of(trainer: Any) -> Dict[str, Any]:
    """The weights on the first device that the trainer updates and that exist already."""
    parameters = [p for p in trainer._params if p.grad_req != "null" and p._data is not None]
    return {parameter.name: parameter.list_data()[0] for parameter in parameters}


class Training:
    """A trainer as a checkpoint sees it; raises UsageError unless it is on a dist store."""

    def __init__(self, trainer: Any) -> None:
        given = trainer._kvstore_params["kvstore"]
        if isinstance(given, str):
            given = session().credentials.kvstore or given  # launch.py --kvstore
        if "dist" not in getattr(given, "type", given or ""):
            raise UsageError("a checkpoint needs a Trainer on a dist kvstore: kvstore='dist_sync'")
        self._trainer = trainer

    @property
    def parameters(self) -> List[Any]:
        found: List[Any] = self._trainer._params
        return found

    def store(self) -> Any:
        """The trainer's store with all keys that can be initialised; made if there is none."""
        trainer = self._trainer
        if not trainer._kv_initialized:
            trainer._init_kvstore()
        if trainer._params_to_init:
            trainer._init_params()
        return trainer._kvstore

    def leave_store(self) -> None:
        """Have the trainer go on with a new store, without the states of the old one."""
        if self._trainer._kv_initialized:
            self._trainer._reset_kvstore()
        self._trainer._left_kvstore = None

    def take_present_values(self) -> None:
        """Pull what other workers have pushed to an asynchronous store since the last pull."""
        store = self.store()
        if store.is_async:
            for number, parameter in enumerate(self.parameters):
                if parameter.grad_req != "null":
                    store.pull(number, out=parameter._data)

    def dump_states(self) -> bytes:
        """The optimizer and its states, in MXNet's format."""
        if self._trainer._update_on_kvstore:
            found: bytes = self.store().dump_states(with_optimizer=True)
        else:  # those of all workers and devices are equal: they update by the same sums
            found = self._trainer._updaters[0].get_states(dump_optimizer=True)
        return found

    def load_states(self, pickled: bytes, states: Dict[Any, Any], optimizer: Any) -> None:
        """Go on from ``states`` under ``optimizer``, both of which are also in ``pickled``."""
        trainer, store = self._trainer, self.store()
        if not trainer._update_on_kvstore:
            optimizer = self._load_updaters(pickled)
        trainer._optimizer = optimizer
        optimizer.param_dict = dict(enumerate(self.parameters))
        if trainer._update_on_kvstore:
            store.load_states(states, optimizer)

    def _load_updaters(self, pickled: bytes) -> Any:
        """Load the states into the worker's own updaters, one per device; returns their optimizer.

        Each updater unpickles them, and so has arrays of its own.
        """
        updaters = self._trainer._updaters
        for updater in updaters:
            updater.set_states(pickled)
        optimizer = updaters[0].optimizer
        counts = optimizer._index_update_count  # equal for all devices of the worker that saved
        optimizer._all_index_update_counts = {
            device.device_id: dict(counts) for device in self._trainer._contexts
        }
        for updater in updaters:
            updater.optimizer = optimizer
        return optimizer
