"""The KVStore that a script gets from `mx.kv.create('dist_sync')` in a job.

This file is what the script calls. keys.py queues the steps of each key, which MXNet's engine runs
once the arrays are ready; remote_optimizer.py has what concerns the servers' optimizer. Only calls
whose docstring says so wait. Gradients are only read.
"""

import pickle
from typing import Any, Callable, Dict, List, Optional

import mxnet as mx
import numpy as np

from baryon.ps import StoreClient, UsageError, compression_of
from baryon.scheduler.control import KVSTORE_TYPES

from ..advice import reader
from ..collectives import Collectives
from ..files import replacing
from ..reduction import check_op
from ..session import session
from . import engine, metrics
from .arguments import first_values, is_sparse, pairs
from .drift import Drift, is_comparable
from .keys import Keys
from .module import adapt_modules
from .pushes import Pushes
from .remote_optimizer import RemoteOptimizer
from .sparse import with_row_ids
from .states import read_states
from .statistics import average
from .trainer import adapt
from .updater import is_elementwise

__all__ = ["KVStore", "create"]

_TOO_MANY = (
    "A Trainer creates another one after each set_data or load_parameters: do not set parameters "
    "in every step, as to clip them. Let the optimizer do it, or give Trainer "
    "update_on_kvstore=False and change p.data() in place on all workers"
)


def create(name: str) -> "KVStore":
    """A new store of type ``name``; raises UsageError for types that are not served."""
    if name not in KVSTORE_TYPES:
        known = ", ".join(KVSTORE_TYPES)
        raise UsageError(f"the kvstore type {name!r} is not served; there are {known}")
    adapt(KVStore)
    adapt_modules(KVStore)
    return KVStore(name)


class KVStore(mx.kvstore.KVStore):
    """A synchronous store: every push waits for all workers' pushes of the same round.

    With ``async`` or ``ssp`` in its type the servers apply each push as it arrives. With ``ssp`` no
    worker gets further ahead of another than the job's ``--staleness``.

    It is a subclass of MXNet's class, because Trainer and Module require one, and shares none of
    its code. Keys are ints or strings. An array argument may be a list with one array per device.
    Lists of keys go with lists of such values. All workers create the same stores and initialise
    the same keys in the same order.
    """

    def __init__(self, name: str) -> None:
        self._type = name
        self._session = session()
        self._session.attach(engine)
        self._remote = RemoteOptimizer(self.rank == 0, self.is_async, self._session.direct_client)
        store = self._open(has_whole_keys=False)
        self._track = self._session.track(store.number, self.is_async)
        self._pushes = Pushes(self._session, self._track, self._remote)
        self._keys = Keys(store, self._pushes)
        self._collectives = Collectives(
            self._session.control,
            self.rank,
            self.num_workers,
            store.number,
            on_call=self._track.meet,
        )
        self._drift = Drift(self._collectives.digests, self._collectives.findings)
        self._means: Optional[KVStore] = None  # a store for `sync_aux`
        self._updater = None
        self._is_p3 = False

    def _open(self, has_whole_keys: bool) -> StoreClient:
        kind = "sync" if not self.is_async else "async"
        staleness = self._session.credentials.staleness if "ssp" in self._type else None
        self._client, store = self._session.open(kind, has_whole_keys, staleness, _TOO_MANY)
        return store

    def __del__(self) -> None:
        pass  # there is no native handle to free

    def __repr__(self) -> str:
        return f"<baryon KVStore {self._type} {self.store.number}: {len(self._keys)} keys>"

    # -- what it is ---------------------------------------------------------------------------

    @property
    def type(self) -> str:
        return self._type

    @property
    def rank(self) -> int:
        reader()
        return self._session.credentials.rank

    @property
    def is_async(self) -> bool:
        """Whether the servers apply each push as it arrives."""
        return "async" in self._type or "ssp" in self._type

    @property
    def optimizer(self) -> Any:
        """The optimizer that the servers apply, as given to `set_optimizer`; None without one."""
        return self._remote.optimizer

    @property
    def store(self) -> StoreClient:
        """The store as the servers know it."""
        return self._keys.store

    @property
    def num_workers(self) -> int:
        return self._session.credentials.num_workers

    @property
    def local_rank(self) -> int:
        """This worker's number among those of its host."""
        return self._session.credentials.local_rank

    @property
    def num_local_workers(self) -> int:
        return self._session.credentials.num_local_workers

    @property
    def host_rank(self) -> int:
        """The number of this worker's host, in host-file order."""
        return self._session.credentials.host_rank

    # -- values -------------------------------------------------------------------------------

    def init(self, key: Any, value: Any) -> None:
        """Initialise keys with rank 0's values. Returns at once; pushes and pulls wait for it.

        Raises UsageError for a key that exists, and for dtypes, shapes or storage not supported.
        """
        self._client.raise_if_failed()
        for name, array in first_values(key, value):
            self._keys.declare(name, array)
            self._track.event(f"initialised key {name!r}")
            if self.rank == 0:
                self._keys.fill(name, array)

    def push(self, key: Any, value: Any, priority: int = 0) -> None:
        """Contribute the sum over the devices to each key's next round.

        The round's sum over all workers replaces the stored value or, with an optimizer, updates
        it. Of a row_sparse array only the rows that it has travel, whatever the key was initialised
        with; this call then waits until they are computed.
        """
        self._client.raise_if_failed()
        for name, arrays in pairs(key, value):
            if is_sparse(arrays[0]):
                self._keys.push_rows(name, arrays, priority)
            else:
                self._keys.exchange("push", name, arrays, None, priority)

    def pull(
        self, key: Any, out: Any = None, priority: int = 0, ignore_sparse: bool = True
    ) -> None:
        """Copy each key's value, as of this worker's last push, to ``out``, cast to its dtype.

        Row_sparse arrays are left as they are, or with ``ignore_sparse=False`` get all rows as by
        `row_sparse_pull`.
        """
        self._client.raise_if_failed()
        if out is None:
            raise UsageError("pull needs the arrays to write to: pull(key, out=...)")
        for name, arrays in pairs(key, out):
            dense = [array for array in arrays if not is_sparse(array)]
            if dense:
                self._keys.exchange("pull", name, None, dense, priority)
            if len(dense) < len(arrays) and not ignore_sparse:
                sparse = [array for array in arrays if is_sparse(array)]
                self._keys.pull_rows(name, sparse, None, priority).wait()

    def pushpull(self, key: Any, value: Any, out: Any = None, priority: int = 0) -> None:
        """`push` and then `pull` to ``out`` (by default to ``value``) in one round trip."""
        self._client.raise_if_failed()
        outs = dict(pairs(key, value if out is None else out))
        for name, arrays in pairs(key, value):
            if any(map(is_sparse, (arrays[0], *outs[name]))):
                self.push(name, arrays, priority)
                self.pull(name, outs[name], priority, ignore_sparse=False)
            else:
                self._keys.exchange("push", name, arrays, outs[name], priority)

    def broadcast(self, key: Any, value: Any, out: Any, priority: int = 0) -> None:
        """`init`, then `pull` to ``out``."""
        self.init(key, value)
        self.pull(key, out, priority, ignore_sparse=False)

    def row_sparse_pull(
        self, key: Any, out: Any = None, priority: int = 0, row_ids: Any = None
    ) -> None:
        """Make ``out`` the rows ``row_ids`` of each key's value, as of this worker's last push.

        ``out`` is a row_sparse array or a list of them. ``row_ids`` is an array of any shape and
        numeric dtype for all of them, or a list with one for each. Lists of keys go with lists of
        these. ``row_ids`` may be in any order, and repeat. Waits for the rows, and casts them to
        the dtype of ``out``. Raises UsageError for rows that a key does not have.
        """
        self._client.raise_if_failed()
        if out is None or row_ids is None:
            raise UsageError("row_sparse_pull needs arrays to write to (out) and row_ids")
        pulls = [
            self._keys.pull_rows(name, outs, ids, priority)
            for name, outs, ids in with_row_ids(key, out, row_ids)
        ]
        for pull in pulls:
            pull.wait()

    # -- the servers --------------------------------------------------------------------------

    def join(self) -> None:
        """End this worker's epoch, and wait until all workers have ended theirs.

        A worker that runs out of data calls it; from then on rounds are complete without that
        worker. At the end each worker takes the values of the last rounds: the arrays that each key
        was pulled to last are written again. All workers call it once an epoch. Raises UsageError
        without an optimizer on the servers: this worker would miss the updates of the others.
        """
        if self.optimizer is None:
            raise UsageError(
                "join needs an optimizer on the servers: gluon.Trainer(..., kvstore='dist_sync') "
                "without update_on_kvstore=False, or set_optimizer"
            )
        self._client.raise_if_failed()
        self._track.join()
        self.store.wait_for_others()
        self._remote.count_missed(self.allgather)
        self._keys.pull_again()
        if self.is_async:  # a faster worker must not push in the next epoch yet
            self._settle("the values of the epoch")

    def set_optimizer(self, optimizer: Any) -> None:
        """Have the servers update the values with ``optimizer``; rank 0's counts.

        It applies to every push after this call, and to none before. In an asynchronous store that
        already has an optimizer, all workers wait for each other.

        Hyper-parameters stay live. What the script later changes in ``optimizer`` (or through
        Trainer) on rank 0, a parameter's ``lr_mult`` and the schedule included, applies to every
        later push of rank 0, and so to the rounds of all workers. On each worker the optimizer
        counts the pushes as it would count updates.
        """
        self._client.raise_if_failed()
        if not isinstance(optimizer, mx.optimizer.Optimizer):
            raise UsageError(f"set_optimizer needs an optimizer, not a {type(optimizer).__name__}")
        # Asynchronous pushes before the first optimizer wait for it on the servers.
        is_change = self.is_async and self.optimizer is not None
        if is_change:
            self._settle("the last push by the old optimizer")
        if not is_elementwise(optimizer) and not self.store.has_whole_keys:
            self._keep_keys_whole()
        if self.rank == 0:
            self._client.drain()
        with self._keys.lock:
            self._remote.set(optimizer, self.store)
        if is_change:
            self._settle("the new optimizer is there")

    def set_gradient_compression(self, compression_params: Dict[str, Any]) -> None:
        """Send fewer bytes of gradients and values where they travel between hosts.

        ``compression_params`` has the ``type`` of the codec and its options
        (baryon.ps.compression). ``min_size`` is optional: a key with fewer elements stays exact
        (4096). So is ``answers``: whether values are compressed, too (True, except for 2bit and in
        asynchronous stores). All workers make the same call before the first push; gluon.Trainer
        does so with its own ``compression_params``. Raises UsageError that lists every mistake.
        """
        self._client.raise_if_failed()
        compression = compression_of(compression_params, self.is_async)
        if self._pushes.compression is not None:
            if str(self._pushes.compression) == str(compression):
                return
            before = str(self._pushes.compression)
        elif self._pushes.have_begun:
            before = "none, and something has been pushed"
        else:
            self._pushes.compression = compression
            self.store.set_compression(compression)
            return
        raise UsageError(
            f"gradient compression of this kvstore is {before}; set it once, before the first "
            "push, or create another store"
        )

    def save_optimizer_states(self, fname: str, dump_optimizer: bool = False) -> None:
        """Write the servers' optimizer states to ``fname``, in the format of MXNet's local store.

        They contain what this worker has pushed so far, and in a synchronous store no later round.
        Every worker that calls this writes a file of its own. Raises UsageError without an
        optimizer.
        """
        states = self.dump_states(dump_optimizer)
        with replacing(fname) as path, open(path, "wb") as file:
            file.write(states)

    def load_optimizer_states(self, fname: str) -> None:
        """Have the servers go on from the states in ``fname``; rank 0's count, and all wait for it.

        Any number of servers and workers may have saved them, and so may MXNet on one machine.
        Raises UsageError, and changes nothing, if the file is damaged or belongs to other keys or
        another optimizer.
        """
        states, optimizer = read_states(fname)
        self._remote.check_there_is_one()
        optimizer = self.optimizer if optimizer is None else optimizer
        self._remote.check_states(self.store, states, optimizer)
        self.load_states(states, optimizer)

    def dump_states(self, with_optimizer: bool) -> bytes:
        """What `save_optimizer_states` writes."""
        self._remote.check_there_is_one()
        self.drain()
        return self._remote.dump_states(self.store, with_optimizer)

    def load_states(self, states: Dict[Any, Any], optimizer: Any) -> None:
        """Have the servers go on from checked ``states``; all workers call it."""
        self.set_optimizer(optimizer)  # whose states are new
        if self.rank == 0:
            self.drain()
        self._remote.load_states(self.store, states, optimizer)
        self.barrier("the optimizer's states are there")
        self._updater = mx.optimizer.get_updater(optimizer)  # as Trainer expects it

    def take_over(self, other: "KVStore") -> None:
        """Have the servers go on from the states of the same keys in another store of the same
        optimizer. All workers call it once the keys are initialised, before any push."""
        if self.rank == 0:
            self.drain()
        self._remote.take_over(self.store, other.store)
        self.barrier("the optimizer's states are there")

    def drain(self) -> None:
        """Wait until everything that this worker has pushed is answered."""
        self._client.raise_if_failed()
        self._client.drain()

    def _settle(self, what: str) -> None:
        """Wait until the servers have done what all workers have asked for; ``what`` names it.

        Only asynchronous stores need it: a synchronous round is not complete without rank 0.
        """
        self._client.drain()
        self.barrier(what)

    def _set_updater(self, updater: Any) -> None:
        """Keep ``updater``, as MXNet's dist stores do; the servers use `set_optimizer`'s."""
        self._updater = updater

    def _keep_keys_whole(self) -> None:
        """Move to a store that keeps each key on one server, for an optimizer that needs that.

        All workers do so at the same point of the script; rank 0 takes the values along.
        """
        values = {
            name: mx.nd.empty(place.key.shape, dtype=place.key.dtype)
            for name, place in self._keys.places().items()
        }
        if self.rank == 0:
            for name, value in values.items():
                self.pull(name, out=value)
        self._client.drain()
        store = self._open(has_whole_keys=True)
        if self._pushes.compression is not None:
            store.set_compression(self._pushes.compression)
        self._keys = Keys(store, self._pushes)
        self._remote.leave_store()
        for name, value in values.items():
            self.init(name, value)

    def replaced(self) -> None:
        """A Trainer's parameters have been set, and the Trainer goes on with a new store."""
        self._track.event("set or loaded a Trainer's parameters")

    # -- the other workers --------------------------------------------------------------------
    # These wait until all workers that have not ended make the same call. A value is None, a bool,
    # number, str, bytes, list, tuple, dict or set, a dense array of NumPy or MXNet, or any nesting
    # of these. UsageError names what else a value contains, and says when a value is too large.

    def barrier(self, name: Optional[str] = None) -> None:
        """Wait until every worker has called this; ``name`` is for messages."""
        self._others().barrier(name)

    def _barrier(self) -> None:
        self.barrier()

    def allgather(self, value: Any) -> List[Any]:
        """The values of all workers that have not ended, in rank order."""
        return self._others().allgather(value)

    def broadcast_object(self, value: Any, root: int = 0) -> Any:
        """Worker ``root``'s value, for all workers; the other workers' values are ignored.

        Raises PeerError if worker ``root`` has ended.
        """
        return self._others().broadcast(value, root)

    def allreduce(self, value: Any, op: str = "sum") -> Any:
        """The "sum", "mean", "max" or "min" over all workers of a number or an array.

        In a list, tuple or dict each number and array is reduced. The result is of the kind of
        ``value``. Values are combined in rank order, floating ones in float64, so all workers get
        the same bits.

        An `mx.metric.EvalMetric` is changed to count all workers' samples, and returned; reset it
        before it counts on.
        """
        others = self._others()
        if not isinstance(value, mx.metric.EvalMetric):
            return others.allreduce(value, op)
        check_op(op)
        states = others.exchange("allreduce of a metric", metrics.state_of(value))
        metrics.merge(value, states, self.rank)
        return value

    def sync_aux(self, net: Any) -> None:
        """Make ``net``'s running statistics (batch normalisation's) the mean over all workers.

        All workers call it, with a Gluon block or a Module, for example before a checkpoint or an
        evaluation. Each worker has statistics of its own data, and no step combines them.
        """
        self._client.raise_if_failed()
        average(net, self._mean)

    def _mean(self, vector: np.ndarray) -> np.ndarray:
        """The mean over all workers that have not ended, by a store without an optimizer."""
        if self._means is None:
            self._means = KVStore("dist_sync")
        total = mx.nd.array(np.append(vector, 1.0), dtype="float64")
        if vector.size not in self._means._keys:
            self._means.init(vector.size, total)
        self._means.pushpull(vector.size, total, out=total)
        sums = total.asnumpy()
        return sums[:-1] / sums[-1]

    def look_for_drift(self, weights: Callable[[], Dict[str, Any]], optimizer: Any) -> None:
        """Now and then compare ``weights()``, which each worker updates itself by ``optimizer``.

        All workers call it once a step. Raises UsageError if the weights differ; see drift.py.
        """
        if not self.is_async and self.num_workers > 1 and is_comparable(optimizer):
            self._drift.step(weights)

    def _others(self) -> Collectives:
        self._client.raise_if_failed()
        return self._collectives

    # -- what MXNet asks of a store -----------------------------------------------------------

    def _send_command_to_servers(self, head: int, body: str) -> None:
        """MXNet's commands: 0 is `set_optimizer` with an optimizer that the script has pickled; 1
        and 3 (multiple precision, synchronous mode) do nothing, since our servers know both. Raises
        UsageError for others.
        """
        if head == 0:
            self.set_optimizer(pickle.loads(body.encode("latin-1")))
        elif head not in (1, 3):
            raise UsageError(f"servers know no command {head}; there are 0 (an optimizer), 1 and 3")

    def get_num_dead_node(self, node_id: int = 0, timeout: int = 60) -> int:
        """Always 0: a job ends when one of its tasks dies."""
        self._client.raise_if_failed()
        return 0

    @property
    def handle(self) -> Any:
        """Raises UsageError: MXNet's profiler asks for it, to profile MXNet's own servers."""
        raise UsageError(
            "MXNet's profiler cannot profile Baryon's servers, which are Python processes; use "
            "py-spy record --pid instead"
        )
