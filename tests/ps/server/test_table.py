"""The table of a server's stores: opened, closed, left; without a server. Pure."""

import numpy as np
import pytest

from baryon.ps import Child, ProtocolError, UsageError
from baryon.ps.plan import Plan
from baryon.ps.server.async_store import AsyncStore
from baryon.ps.server.epochs import Epochs
from baryon.ps.server.sync_store import SyncStore
from baryon.ps.server.table import Opened, StoreTable
from baryon.ps.wire import KeySpec, Open

# Child 0 is a server below, for two workers; child 1 is a worker; child 2 is a guest, worker 0.
CHILDREN = (
    Child("", "server 1", (0, 1)),
    Child("", "worker 2", (2,), is_worker=True),
    Child("", "worker 0", (0,), is_worker=True),
)
SENDERS = {"sync": {0: 0, 1: 0, 2: 1}, "async": {2: 1, 0: 2}}


@pytest.fixture
def table():
    def make(message):
        kind = SyncStore if message.kind == "sync" else AsyncStore
        senders = SENDERS[message.kind]
        children = sorted(set(senders.values()))
        names = [child.name for child in CHILDREN]
        return Opened(kind(0, Plan(1), children, None, names, senders[0]), senders)

    return StoreTable(CHILDREN, make)


def opened(table, number=0, kind="sync"):
    for child in set(SENDERS[kind].values()):
        table.open(child, Open(number, kind))
        table[number].declare(child, 0, [KeySpec("w", (4,), "float32")])
    return table[number]


def push(store, child, round_=1):
    return store.push(child, 0, 0, 1, round_, True, bytes_of(1.0))


def bytes_of(value):
    return np.full(4, value, np.float32).view(np.uint8)


def test_the_first_to_open_makes_the_store(table):
    assert table.open(0, Open(3, "sync")) and not table.open(1, Open(3, "sync"))
    assert list(table) == [3] and table.used_by(1, 3) is table[3]


def test_all_must_open_it_alike(table):
    table.open(0, Open(0, "sync"))
    with pytest.raises(UsageError, match="number 0 is 'sync' on server 1 and 'sync' with whole"):
        table.open(1, Open(0, "sync", True))
    table.open(2, Open(1, "async", False, 2))
    with pytest.raises(UsageError, match="'async' with a staleness of 2 on worker 0 and 'async'"):
        table.open(1, Open(1, "async"))


@pytest.mark.parametrize("number", [-1, 8192, 1 << 60])
def test_a_number_that_cannot_be_is_refused(table, number):
    for event in (lambda: table.open(0, Open(number, "sync")), lambda: table.close(0, number)):
        with pytest.raises(ProtocolError, match=f"no store {number}; their numbers are below 8192"):
            event()
    assert not table and not table.closed


def test_a_store_is_finished_when_every_child_has_closed_it(table):
    store = opened(table)
    table.close(0, 0)
    assert table.take_finished(0) is None
    with pytest.raises(ProtocolError, match="server 1 has closed store 0"):
        table.used_by(0, 0)
    table.close(1, 0)
    assert table.take_finished(0) is store and not table and not table.closed
    assert table.take_finished(0) is None


def test_a_number_is_used_up(table):
    opened(table)
    for child in (0, 1):
        table.close(child, 0)
    table.take_finished(0)
    with pytest.raises(ProtocolError, match="worker 2 opened store 0, now closed"):
        table.open(1, Open(0, "sync"))
    table.close(1, 0)  # a repeat
    assert not table.closed
    with pytest.raises(ProtocolError, match="store 0 has not been opened"):
        table.used_by(0, 0)


def test_a_child_may_close_what_others_have_not_opened(table):
    table.close(1, 0)
    table.open(0, Open(0, "sync"))
    with pytest.raises(ProtocolError, match="worker 2 opened store 0, now closed"):
        table.open(1, Open(0, "sync"))
    assert table.take_finished(0) is None
    table.close(0, 0)
    assert table.take_finished(0) is not None


def test_nothing_is_closed_while_something_is_under_way(table):
    push(opened(table), 1)
    with pytest.raises(ProtocolError, match="worker 2 closed a store and waits for"):
        table.close(1, 0)
    assert not table.closed


def test_a_child_has_left_when_all_of_its_workers_have(table):
    store = opened(table)
    push(store, 1)
    for rank, answered in ((1, []), (0, [1])):
        table.leave(rank)
        assert [reply.child for reply in table.without(0, rank)] == answered
        assert table.has_left(0) == (rank == 0)
    table.close(1, 0)
    assert table.take_finished(0) is store


def test_an_asynchronous_store_knows_the_workers_themselves(table):
    opened(table, kind="async")
    table.leave(1)  # who is no child here
    assert table.without(0, 1) == [] and not table.has_left(0)
    table.leave(0)
    assert table.without(0, 0) == [] and table.has_left(2)
    table.close(1, 0)
    assert table.take_finished(0) is not None


# -- epochs ---------------------------------------------------------------------------------------


def test_an_epoch_ends_once_when_all_have_joined(table):
    store, epochs = opened(table), Epochs()
    store.join(0, 1)
    epochs.join(0, 0, 7)
    assert not epochs.must_end(0, store)
    store.join(1, 1)
    epochs.join(0, 1, 4)
    assert epochs.must_end(0, store)
    assert not epochs.must_end(0, store)  # those above have been asked
    assert epochs.end(0, store) == {0: 7, 1: 4}
    assert store.epoch == 1 and not epochs.must_end(0, store)
    for child in (0, 1):
        store.join(child, 2)
        epochs.join(0, child, 9)
    assert epochs.must_end(0, store) and epochs.end(0, store) == {0: 9, 1: 9}


def test_stores_have_epochs_of_their_own(table):
    one, other, epochs = opened(table, 0), opened(table, 1), Epochs()
    for child in (0, 1):
        one.join(child, 1)
        epochs.join(0, child, child)
    epochs.join(1, 0, 5)
    assert epochs.must_end(0, one) and not epochs.must_end(1, other)
    assert epochs.end(0, one) == {0: 0, 1: 1}
    epochs.forget(1)
    assert epochs.end(1, other) == {}
