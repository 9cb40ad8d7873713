"""What a process's session refuses before it says anything."""

import pytest

from baryon.ps import MAX_STORES, UsageError
from baryon.worker.session import Session


def test_a_store_too_many_is_refused_with_what_makes_them() -> None:
    session = Session.__new__(Session)
    session._num_stores = MAX_STORES
    for _ in range(2):
        with pytest.raises(UsageError, match=r"8192 kvstores at most.*set_data or load_parameters"):
            session.open("sync", False, None)
