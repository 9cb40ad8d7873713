"""The KVStore that a script gets from `mx.kv.create('dist_sync')` in a job.

It checks what the script gives and turns it into exchanges (exchange.py), one for each key, which
MXNet's engine runs when the arrays are ready. Nothing blocks, and gradients are only read.
"""

import pickle
import threading
from typing import Any, Callable, Dict, List, Optional

import mxnet as mx
import numpy as np

from baryon.ps import Compression, UsageError, compression_of, rows_in
from baryon.scheduler.control import KVSTORE_TYPES

from ..advice import advice, reader
from ..collectives import Collectives
from ..reduction import check_op
from ..session import session
from . import engine, metrics
from .arguments import KeyName, first_values, fitting, pairs
from .drift import Drift, is_comparable
from .exchange import Exchange, Place
from .hyper import LiveHyper
from .module import adapt_modules
from .pickled import dump_optimizer
from .sparse import RowPull, is_sparse, push_rows, rows_of_all, with_row_ids
from .states import States, check_states, read_states, write_atomically
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

    With ``async`` or ``ssp`` in its type, the servers apply each push as it arrives, and with
    ``ssp`` no worker gets further ahead of another than by the job's ``--staleness``.

    A subclass of MXNet's own, because Trainer and Module ask for one, that shares none of its
    code. Keys are ints or strings; an array argument may be a list with one array per device;
    lists of keys go with lists of such values. All workers create the same stores and initialise
    the same keys in the same order.
    """

    def __init__(self, name: str) -> None:
        self._type = name
        self._session = session()
        self._session.attach(engine)
        self._compression: Optional[Compression] = None
        self._open(has_whole_keys=False)
        self._track = self._session.track(self._store.number, self._is_async)
        self._collectives = Collectives(
            self._session.control,
            self.rank,
            self.num_workers,
            self._store.number,
            on_call=self._track.meet,
        )
        self._drift = Drift(self._collectives.digests, self._collectives.findings)
        self._means: Optional[KVStore] = None  # a store for `sync_aux`
        self._places: Dict[KeyName, Place] = {}
        # The last of each key, likely to be the next. A place does not refer to it: both would then
        # wait for the garbage collector, and the store with them, which is closed when they end.
        self._exchanges: Dict[KeyName, Exchange] = {}
        self._lock = threading.Lock()  # held while a key's steps are queued, which belong together
        self._optimizer: Any = None
        self._hyper: Optional[LiveHyper] = None
        self._has_pushed = False
        self._updater = None
        self._is_p3 = False
        self._is_advised = False

    def _open(self, has_whole_keys: bool) -> None:
        kind = "sync" if not self._is_async else "async"
        staleness = self._session.credentials.staleness if "ssp" in self._type else None
        self._client, self._store = self._session.open(kind, has_whole_keys, staleness, _TOO_MANY)
        if self._compression is not None:
            self._store.set_compression(self._compression)

    @property
    def _is_async(self) -> bool:
        return "async" in self._type or "ssp" in self._type

    def __del__(self) -> None:
        pass  # there is no native handle to free

    def __repr__(self) -> str:
        return f"<baryon KVStore {self._type} {self._store.number}: {len(self._places)} keys>"

    # -- what it is ---------------------------------------------------------------------------

    @property
    def type(self) -> str:
        return self._type

    @property
    def rank(self) -> int:
        reader()
        return self._session.credentials.rank

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

        Raises UsageError for a key that exists and for dtypes, shapes or storage not supported.
        """
        self._client.raise_if_failed()
        for name, array in first_values(key, value):
            declared = self._store.declare(name, array.shape, np.dtype(array.dtype).name)
            self._places[name] = Place(self._store, declared)
            self._track.event(f"initialised key {name!r}")
            if self.rank == 0:
                dense = array.tostype("default") if is_sparse(array) else array
                self._exchange("init", name, [dense], None, 0)
                if dense is not array:
                    del self._exchanges[name]  # which would keep the copy

    def push(self, key: Any, value: Any, priority: int = 0) -> None:
        """Contribute the sum over the devices to each key's next round.

        The round's sum over all workers replaces the stored value or, with an optimizer, updates
        it. Of row_sparse arrays only the rows that they have travel, whatever the key was
        initialised with; this waits until they are computed.
        """
        self._client.raise_if_failed()
        for name, arrays in pairs(key, value):
            if is_sparse(arrays[0]):
                self._push_rows(name, arrays, priority)
            else:
                self._exchange("push", name, arrays, None, priority)

    def pull(
        self, key: Any, out: Any = None, priority: int = 0, ignore_sparse: bool = True
    ) -> None:
        """Copy each key's value, as of this worker's last push, to ``out``, cast to its dtype.

        To row_sparse arrays all rows are pulled as by `row_sparse_pull`, unless ``ignore_sparse``:
        then these are left as they are.
        """
        self._client.raise_if_failed()
        if out is None:
            raise UsageError("pull needs the arrays to write to: pull(key, out=...)")
        for name, arrays in pairs(key, out):
            dense = [array for array in arrays if not is_sparse(array)]
            if dense:
                self._exchange("pull", name, None, dense, priority)
            if len(dense) < len(arrays) and not ignore_sparse:
                sparse = [array for array in arrays if is_sparse(array)]
                all_rows = np.arange(self._place(name).key.shape[0])
                self.row_sparse_pull(name, sparse, priority, all_rows)

    def pushpull(self, key: Any, value: Any, out: Any = None, priority: int = 0) -> None:
        """`push` and then `pull` to ``out`` (by default to ``value``) in one round trip."""
        self._client.raise_if_failed()
        outs = dict(pairs(key, value if out is None else out))
        for name, arrays in pairs(key, value):
            if any(map(is_sparse, (arrays[0], *outs[name]))):
                self.push(name, arrays, priority)
                self.pull(name, outs[name], priority, ignore_sparse=False)
            else:
                self._exchange("push", name, arrays, outs[name], priority)

    def broadcast(self, key: Any, value: Any, out: Any, priority: int = 0) -> None:
        """`init`, then `pull` to ``out``."""
        self.init(key, value)
        self.pull(key, out, priority, ignore_sparse=False)

    def row_sparse_pull(
        self, key: Any, out: Any = None, priority: int = 0, row_ids: Any = None
    ) -> None:
        """Make ``out`` the rows ``row_ids`` of each key's value, as of this worker's last push.

        ``out`` is a row_sparse array or a list of them, ``row_ids`` an array of any shape and
        numeric dtype for all of them or a list with one for each; lists of keys go with lists of
        such. A row may be named more than once, in any order. Waits until the rows are there, cast
        to the dtype of ``out``. Raises UsageError for rows that a key has not.
        """
        self._client.raise_if_failed()
        if out is None or row_ids is None:
            raise UsageError("row_sparse_pull needs arrays to write to (out) and row_ids")
        pulls = []
        for name, outs, ids in with_row_ids(key, out, row_ids):
            place = self._place(name)
            with self._lock:
                pulls.append(RowPull(place, outs, ids, priority))
        for pull in pulls:
            pull.wait()

    # -- the servers --------------------------------------------------------------------------

    def join(self) -> None:
        """Say that this worker has no more data in this epoch, and wait until all have said so.

        Meanwhile rounds are complete without it. Then it takes the values of the others' last
        rounds: the arrays that each key was pulled to last are written again. All workers call it,
        once an epoch. Raises UsageError if it is not the servers that update the weights, since
        those of this worker would stay behind.
        """
        if self._optimizer is None:
            raise UsageError(
                "join needs an optimizer on the servers: gluon.Trainer(..., kvstore='dist_sync') "
                "without update_on_kvstore=False, or set_optimizer"
            )
        self._client.raise_if_failed()
        self._track.join()
        self._store.wait_for_others()
        self._count_others_rounds()
        for name, place in self._places.items():
            if place.outs:
                self._exchange("pull", name, None, place.outs, 0)
        if self._is_async:  # or some would have what others push in the next epoch already
            self._settle("the values of the epoch")

    def _count_others_rounds(self) -> None:
        """Count the rounds of the epoch that were complete without this worker."""
        if self._hyper is None or self._is_async:  # in which nobody's rounds are another's
            return
        for counts in self.allgather(self._hyper.counts):
            self._hyper.count_up_to(counts)

    def set_optimizer(self, optimizer: Any) -> None:
        """Have the servers update the values with ``optimizer``; rank 0's counts.

        It applies to every push after this call, and to none before: in an asynchronous store that
        has one already, all workers wait for each other. Its hyper-parameters stay live: what the
        script changes in ``optimizer`` later (or through Trainer) on rank 0, also a parameter's
        ``lr_mult`` or the schedule, applies to every push of rank 0 that comes after, and so to the
        rounds of all. On each worker the optimizer counts the pushes as it would count updates.
        """
        self._client.raise_if_failed()
        if not isinstance(optimizer, mx.optimizer.Optimizer):
            raise UsageError(f"set_optimizer needs an optimizer, not a {type(optimizer).__name__}")
        # Before there is any, asynchronous pushes wait for it on the servers.
        is_change = self._is_async and self._optimizer is not None
        if is_change:
            self._settle("the last push by the old optimizer")
        if not is_elementwise(optimizer) and not self._store.has_whole_keys:
            self._keep_keys_whole()
        if self.rank == 0:
            self._client.drain()
        with self._lock:
            version = 0 if self._hyper is None else self._hyper.version
            self._optimizer, self._hyper = optimizer, LiveHyper(optimizer, version)
            if self.rank == 0:
                blob = dump_optimizer(optimizer, *self._hyper.multipliers)
                self._store.set_updater("mxnet", blob)
        if is_change:
            self._settle("the new optimizer is there")

    def set_gradient_compression(self, compression_params: Dict[str, Any]) -> None:
        """Send fewer bytes of gradients and values where they travel between hosts.

        ``compression_params`` has the ``type`` of the codec, its options (baryon.ps.compression),
        and perhaps ``min_size``, below which number of elements a key stays exact (4096), and
        ``answers``, whether values are sent compressed, too (True, but for 2bit and asynchronous
        stores). The same on all workers, before the first push; gluon.Trainer does so with its
        own ``compression_params``. Raises UsageError with all that is wrong.
        """
        self._client.raise_if_failed()
        compression = compression_of(compression_params, self._is_async)
        if self._compression is not None and str(self._compression) == str(compression):
            return
        if self._compression is not None or self._has_pushed:
            before = self._compression or "none, and something has been pushed"
            raise UsageError(
                f"gradient compression of this kvstore is {before}; set it once, before the first "
                "push, or create another store"
            )
        self._compression = compression
        self._store.set_compression(compression)

    def save_optimizer_states(self, fname: str, dump_optimizer: bool = False) -> None:
        """Write the servers' optimizer states to ``fname``, as MXNet does on one machine.

        Of what this worker has pushed so far, and in a synchronous store of no later round. Every
        worker that calls it writes a file of its own. Raises UsageError without an optimizer.
        """
        write_atomically(fname, self._states().dump(self._optimizer, dump_optimizer))

    def load_optimizer_states(self, fname: str) -> None:
        """Have the servers go on from the states in ``fname``; rank 0's count, and all wait for it.

        They may come from any number of servers and workers, or from MXNet on one machine. Raises
        UsageError, and changes nothing, if the file is damaged or is of other keys or another
        optimizer.
        """
        states, optimizer = read_states(fname)
        self._states()  # which there are none of without an optimizer
        optimizer = self._optimizer if optimizer is None else optimizer
        keys = {key.name: (key.shape, key.dtype.name) for key in self._store.keys}
        check_states(states, optimizer, keys)
        self._go_on_from(states, optimizer)

    def _go_on_from(self, states: Dict[Any, Any], optimizer: Any) -> None:
        """Have the servers go on from states that `check_states` has seen, all workers at once."""
        self.set_optimizer(optimizer)  # whose states are new
        if self.rank == 0:
            self._states().load(states, optimizer)
        self.barrier("the optimizer's states are there")
        self._updater = mx.optimizer.get_updater(optimizer)  # as Trainer expects it

    def _take_over(self, other: "KVStore") -> None:
        """Have the servers go on from the states of the same keys in another store, of the same
        optimizer. All workers call it, when the keys are initialised and nothing is pushed."""
        if self.rank == 0:
            self._states().load(*other._states().collect(self._optimizer))
        self.barrier("the optimizer's states are there")

    def _settle(self, what: str) -> None:
        """Wait until the servers have done what all workers have asked for; ``what`` names it.

        For asynchronous stores: a round of a synchronous one is not complete without rank 0.
        """
        self._client.drain()
        self.barrier(what)

    def _states(self) -> States:
        if self._optimizer is None:
            raise UsageError("the servers have no optimizer, whose states there could be")
        self._client.raise_if_failed()
        self._client.drain()
        return States(self._session.direct_client(), self._store, self._is_async)

    def _set_updater(self, updater: Any) -> None:
        """Take note of it, as MXNet's dist stores do, whose servers have `set_optimizer`'s."""
        self._updater = updater

    def _keep_keys_whole(self) -> None:
        """Move to a store that has every key on one server, for an optimizer that needs that.

        All workers do so at the same point of the script; rank 0 takes the values along.
        """
        places = list(self._places.items())
        values = [mx.nd.empty(place.key.shape, dtype=place.key.dtype) for _, place in places]
        if self.rank == 0:
            for (name, _), value in zip(places, values):
                self.pull(name, out=value)
        self._client.drain()
        self._open(has_whole_keys=True)
        self._hyper = None
        self._places, self._exchanges = {}, {}
        for (name, _), value in zip(places, values):
            self.init(name, value)

    def _count(self, name: KeyName) -> Optional[int]:
        """Count a push that comes now; returns the version of the optimizer's attributes by which
        it is to be applied, if that is this worker's to say: the servers have been told of it.
        """
        self._has_pushed = True
        if self._hyper is None:
            return None
        self._hyper.count(name)
        if self.rank != 0:
            return None
        change = self._hyper.take_change(name)
        if change is not None:
            self._store.set_hyper(*change)
        return self._hyper.version

    def replaced(self) -> None:
        """Take note that a Trainer, whose parameters have been set, goes on with a new store."""
        self._track.event("set or loaded a Trainer's parameters")

    # -- the other workers --------------------------------------------------------------------
    # These wait until all workers that have not ended make the same call. A value is None, a bool,
    # number, str, bytes, list, tuple, dict or set, a dense array of NumPy or MXNet, or made of
    # these; UsageError says what else is in it, and when it is too large.

    def barrier(self, name: Optional[str] = None) -> None:
        """Wait until every worker has called this; ``name`` is for messages."""
        self._others().barrier(name)

    def _barrier(self) -> None:
        self.barrier()

    def allgather(self, value: Any) -> List[Any]:
        """The values of all workers that have not ended, in rank order."""
        return self._others().allgather(value)

    def broadcast_object(self, value: Any, root: int = 0) -> Any:
        """Worker ``root``'s value, for all workers; those of the others do not count.

        Raises PeerError if worker ``root`` has ended.
        """
        return self._others().broadcast(value, root)

    def allreduce(self, value: Any, op: str = "sum") -> Any:
        """The "sum", "mean", "max" or "min" over all workers of a number or an array.

        Also of all those in a list, tuple or dict. The result is of the kind of ``value``, taken in
        rank order and, where floating, in float64, so that all get the same bits.

        An `mx.metric.EvalMetric` is changed, and returned, to be that over all workers' samples;
        reset it before it counts on.
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

        All workers call it, with a Gluon block or a Module, say before a checkpoint or an
        evaluation: each has statistics of its own data, and no step brings these together.
        """
        self._client.raise_if_failed()
        average(net, self._mean)

    def _mean(self, vector: np.ndarray) -> np.ndarray:
        """Over all workers that have not ended, by a store without an optimizer."""
        if self._means is None:
            self._means = KVStore("dist_sync")
        total = mx.nd.array(np.append(vector, 1.0), dtype="float64")
        if vector.size not in self._means._places:
            self._means.init(vector.size, total)
        self._means.pushpull(vector.size, total, out=total)
        sums = total.asnumpy()
        return sums[:-1] / sums[-1]

    def look_for_drift(self, weights: Callable[[], Dict[str, Any]], optimizer: Any) -> None:
        """Now and then compare ``weights()`` with the other workers', which update their own, too,
        by ``optimizer``.

        All workers call it, once a step. Raises UsageError if they differ; see drift.py.
        """
        if not self._is_async and self.num_workers > 1 and is_comparable(optimizer):
            self._drift.step(weights)

    def _others(self) -> Collectives:
        self._client.raise_if_failed()
        return self._collectives

    # -- one key's steps ----------------------------------------------------------------------

    def _exchange(
        self,
        kind: str,
        name: KeyName,
        arrays: Optional[List[Any]],
        outs: Optional[List[Any]],
        priority: int,
    ) -> None:
        """Queue one key's exchange; the same arrays as the last time need no second look."""
        place = self._place(name)
        exchange = self._exchanges.get(name)
        if exchange is None or not exchange.is_for(kind, arrays, outs):
            arrays = None if arrays is None else fitting(place.key, arrays)
            outs = None if outs is None else fitting(place.key, outs, is_cast=True)
            exchange = self._exchanges[name] = Exchange(kind, place, arrays, outs)
        if outs is not None:
            place.outs = outs
        with self._lock:
            if kind == "push":
                self._count_push()
            exchange.enqueue(priority, self._count(name) if kind == "push" else None)

    def _push_rows(self, name: KeyName, arrays: List[Any], priority: int) -> None:
        place = self._place(name)
        rows = rows_in(place.key, rows_of_all(place.key, arrays))
        with self._lock:
            self._count_push()
            push_rows(place, rows, priority, self._count(name))

    def _count_push(self) -> None:
        self._track.push()
        if not self._is_advised:
            self._is_advised = True
            self._session.say_once(
                *advice(self._session.credentials, self._compression, self._store.keys)
            )

    def _place(self, name: KeyName) -> Place:
        place = self._places.get(name)
        if place is None:
            raise UsageError(
                f"key {name!r} has not been initialised; call init or broadcast first, on all "
                "workers"
            )
        return place

    # -- what it does not do yet --------------------------------------------------------------

    def _send_command_to_servers(self, head: int, body: str) -> None:
        """MXNet's own: 0, an optimizer as pickled by the script, is `set_optimizer`; 1 and 3 say
        what our servers know (multiple precision, synchronous mode). UsageError for others.
        """
        if head == 0:
            self.set_optimizer(pickle.loads(body.encode("latin-1")))
        elif head not in (1, 3):
            raise UsageError(f"servers know no command {head}; there are 0 (an optimizer), 1 and 3")

    def get_num_dead_node(self, node_id: int = 0, timeout: int = 60) -> int:
        """0: a job does not go on without one of its tasks."""
        self._client.raise_if_failed()
        return 0

    @property
    def handle(self) -> Any:
        """MXNet's profiler asks for it, to profile its own servers; raises UsageError."""
        raise UsageError(
            "MXNet's profiler cannot look into servers of ours, which are Python processes; "
            "py-spy record --pid shows what they do"
        )
