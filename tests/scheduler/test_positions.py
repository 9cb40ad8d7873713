"""Keys that one worker initialises and another leaves out are named; who is only late is not."""

from typing import Tuple

from baryon.scheduler.control import Position
from baryon.scheduler.positions import MAX_STORES, Positions


def position(events: int, at: int, now: int, joins: int = 0, store: int = 0) -> Tuple[Position]:
    return (Position(store, events, f"initialised key {events - 1}", (joins, at), (joins, now)),)


def test_who_goes_on_without_a_key_is_named_whoever_is_heard_first() -> None:
    for order in ((0, 1), (1, 0)):
        positions, said = Positions(), []
        for rank in order:
            there = position(5, 0, 11) if rank == 0 else position(6, 10, 10)
            said.append(positions.take(rank, there))
        assert said[0] == ""
        assert said[1].startswith(
            "worker 1 has initialised key 5 in store 0, but worker 0 has gone on without it; "
        )


def test_several_keys_are_counted() -> None:
    positions = Positions()
    positions.take(1, position(8, 10, 10))
    said = positions.take(0, position(5, 0, 11))
    assert said.startswith("worker 1 has initialised key 7 (and 2 others before it) in store 0")


def test_who_is_only_late_is_not_named() -> None:
    positions = Positions()
    for rank, there in (
        (0, position(5, 0, 9)),
        (1, position(6, 10, 14)),
        (0, position(5, 0, 10)),  # is about to
        (0, position(6, 10, 12)),
        (2, position(6, 10, 20)),
    ):
        assert positions.take(rank, there) == ""


def test_workers_with_fewer_batches_have_fewer_calls_until_they_join() -> None:
    positions = Positions()
    assert positions.take(0, position(5, 0, 100)) == ""
    assert positions.take(1, position(5, 0, 7)) == ""
    assert positions.take(1, position(6, 2, 2, joins=1)) == ""
    assert positions.take(0, position(5, 0, 120)) == ""
    assert positions.take(0, position(6, 2, 9, joins=1)) == ""
    assert positions.take(1, position(7, 4, 4, joins=1)) != ""


def test_stores_are_compared_by_themselves_and_forgotten() -> None:
    positions = Positions()
    for store in range(3 * MAX_STORES):
        assert positions.take(0, position(1, 0, 50, store=store)) == ""
        assert positions.take(1, position(1, 0, 2, store=store)) == ""
    assert positions.take(1, position(9, 0, 0)) == ""  # of a store that is forgotten
    assert positions.take(0, position(0, 0, 50, store=3 * MAX_STORES - 1)) != ""
