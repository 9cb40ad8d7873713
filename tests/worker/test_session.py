"""What a process's session refuses before it says anything."""

from typing import List

import pytest

from baryon.ps import MAX_STORES, UsageError
from baryon.worker.session import Session


def test_a_store_too_many_is_refused_with_what_makes_them() -> None:
    session = Session.__new__(Session)
    session._num_stores = MAX_STORES
    for _ in range(2):
        with pytest.raises(UsageError, match=r"8192 kvstores at most.*set_data or load_parameters"):
            session.open("sync", False, None, "Do not call set_data or load_parameters")


class Engine:
    """Says that it is idle, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: List[str] = []

    def shut(self) -> None:
        self.asked.append("shut")


def test_an_engine_is_attached_once_and_shut_at_once_after_the_end() -> None:
    session, early, late = Session.__new__(Session), Engine(), Engine()
    session._engines, session._has_left = [], False
    session.attach(early)
    session.attach(early)
    session._has_left = True
    session.attach(late)
    assert session._engines == [early, late]
    assert (early.asked, late.asked) == ([], ["shut"])
