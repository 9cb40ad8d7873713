"""The optimizer that a store's servers apply, as this worker sees it.

The script's threads call it. `set` and `count` are called under the lock of the store's keys, so
each push is counted for exactly one optimizer.
"""

from typing import Any, Callable, Dict, List, Optional

from baryon.ps import Client, StoreClient, UsageError

from .arguments import KeyName
from .hyper import LiveHyper
from .pickled import dump_optimizer
from .states import States, check_states

__all__ = ["RemoteOptimizer"]


class RemoteOptimizer:
    """``optimizer`` is the script's own object, or None while the servers have none.

    Rank 0 (``is_first``) tells the servers. ``direct_client()`` gives a client that speaks to the
    servers that own the keys.
    """

    def __init__(self, is_first: bool, is_async: bool, direct_client: Callable[[], Client]) -> None:
        self.optimizer: Any = None
        self._is_first = is_first
        self._is_async = is_async
        self._direct_client = direct_client
        self._hyper: Optional[LiveHyper] = None

    def set(self, optimizer: Any, store: StoreClient) -> None:
        """Have the servers of ``store`` apply ``optimizer`` to every later push."""
        version = 0 if self._hyper is None else self._hyper.version
        self.optimizer, self._hyper = optimizer, LiveHyper(optimizer, version)
        if self._is_first:
            store.set_updater("mxnet", dump_optimizer(optimizer, *self._hyper.multipliers))

    def leave_store(self) -> None:
        """Count no more: the next store's servers have no optimizer yet."""
        self._hyper = None

    def count(self, name: KeyName, store: StoreClient) -> Optional[int]:
        """Count a push that is about to be queued.

        Returns the version of the optimizer's attributes to apply the push with, if this worker
        decides that; the servers have been told of that version.
        """
        if self._hyper is None:
            return None
        self._hyper.count(name)
        if not self._is_first:
            return None
        change = self._hyper.take_change(name)
        if change is not None:
            store.set_hyper(*change)
        return self._hyper.version

    def count_missed(self, gather: Callable[[Any], List[Any]]) -> None:
        """Count the rounds of an epoch that were completed without this worker.

        ``gather(counts)`` gives all workers' counts. In an asynchronous store each worker counts
        its own pushes only.
        """
        if self._hyper is None or self._is_async:
            return
        for counts in gather(self._hyper.counts):
            self._hyper.count_up_to(counts)

    # -- states -------------------------------------------------------------------------------
    # The caller has waited for the answers to all that it has pushed.

    def check_there_is_one(self) -> None:
        if self.optimizer is None:
            raise UsageError(
                "the servers have no optimizer, so there are no states; call set_optimizer first"
            )

    def dump_states(self, store: StoreClient, with_optimizer: bool) -> bytes:
        """The states of all keys as the bytes of a file (states.py)."""
        return self._states(store).dump(self.optimizer, with_optimizer)

    def check_states(self, store: StoreClient, states: Dict[Any, Any], optimizer: Any) -> None:
        """Raise UsageError unless ``states`` may be those of ``store`` under ``optimizer``."""
        keys = {key.name: (key.shape, key.dtype.name) for key in store.keys}
        check_states(states, optimizer, keys)

    def load_states(self, store: StoreClient, states: Dict[Any, Any], optimizer: Any) -> None:
        """Have the servers, whose states are new, go on from ``states``; rank 0 does this."""
        if self._is_first:
            self._states(store).load(states, optimizer)

    def take_over(self, store: StoreClient, left: StoreClient) -> None:
        """Have the servers of ``store`` go on from the states of the same keys in ``left``."""
        if self._is_first:
            self.load_states(store, *self._states(left).collect(self.optimizer))

    def _states(self, store: StoreClient) -> States:
        self.check_there_is_one()
        return States(self._direct_client(), store, self._is_async)
