"""The same script on MXNet's own store and on ours: the same results, or a reason why not."""

from typing import Dict

import pytest

from .case import CASES
from .expectations import NATIVE_RACES, NATIVE_WRONG, NOT_SERVED, OURS_DIFFERS
from .table import Row, compare
from .themes import load

load()


@pytest.fixture(scope="module")
def rows() -> Dict[str, Row]:
    return compare(CASES.values())


def test_every_expectation_is_of_a_case_and_there_is_one_of_each() -> None:
    tables = (NATIVE_WRONG, NATIVE_RACES, NOT_SERVED, OURS_DIFFERS)
    named = [name for table in tables for name in table]
    assert set(named) <= set(CASES)
    assert len(named) == len(set(named))


@pytest.mark.native
@pytest.mark.jobs
@pytest.mark.parametrize("name", list(CASES))
def test_case(rows: Dict[str, Row], name: str) -> None:
    row = rows[name]
    told = f"{row.case.what}\nnative: {row.native}\nours: {row.ours}\nright: {row.verdict}"
    if name in NOT_SERVED:
        assert not row.verdict.ours, f"it is served by now: take it out of NOT_SERVED\n{told}"
    elif name in NATIVE_WRONG:
        assert row.verdict.ours, told
        assert not row.verdict.native, f"both are right: take it out of NATIVE_WRONG\n{told}"
    elif name in NATIVE_RACES:
        assert row.verdict.ours, told
    elif name in OURS_DIFFERS:
        assert row.verdict.native, told
        assert not row.verdict.ours, f"both are right: take it out of OURS_DIFFERS\n{told}"
    else:
        assert row.verdict.ours, told
        assert row.verdict.native, f"a reason is missing in NATIVE_WRONG\n{told}"
        assert row.verdict.same, told
