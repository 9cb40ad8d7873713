"""The same script on MXNet's own store and on ours: the same results, or a reason why not."""

from typing import Dict

import pytest

from .case import CASES
from .expectations import NATIVE_RACES, NATIVE_WRONG, NOT_SERVED, OURS_DIFFERS
from .judge import judge
from .runner import Outcome, run_native, run_ours
from .themes import load

load()


@pytest.fixture(scope="module")
def ours() -> Dict[str, Outcome]:
    return run_ours(CASES.values())


@pytest.fixture(scope="module")
def native() -> Dict[str, Outcome]:
    return run_native(CASES.values())


def test_every_expectation_is_of_a_case_and_there_is_one_of_each() -> None:
    tables = (NATIVE_WRONG, NATIVE_RACES, NOT_SERVED, OURS_DIFFERS)
    named = [name for table in tables for name in table]
    assert set(named) <= set(CASES)
    assert len(named) == len(set(named))


@pytest.mark.jobs
def test_every_case_is_run_on_ours(ours: Dict[str, Outcome]) -> None:
    """Takes minutes, and so does the next one; the others only compare."""
    assert set(ours) == set(CASES)


@pytest.mark.native
def test_every_case_is_run_on_mxnets(native: Dict[str, Outcome]) -> None:
    assert set(native) == set(CASES)


@pytest.mark.jobs
@pytest.mark.native
@pytest.mark.parametrize("name", list(CASES))
def test_case(ours: Dict[str, Outcome], native: Dict[str, Outcome], name: str) -> None:
    verdict = judge(CASES[name], native[name], ours[name])
    told = f"{CASES[name].what}\nnative: {native[name]}\nours: {ours[name]}\nright: {verdict}"
    if name in NOT_SERVED:
        assert not verdict.ours, f"it is served by now: take it out of NOT_SERVED\n{told}"
    elif name in NATIVE_WRONG:
        assert verdict.ours, told
        assert not verdict.native, f"both are right: take it out of NATIVE_WRONG\n{told}"
    elif name in NATIVE_RACES:
        assert verdict.ours, told
    elif name in OURS_DIFFERS:
        assert not verdict.ours, f"it is right: take it out of OURS_DIFFERS\n{told}"
    else:
        assert verdict.ours, told
        assert verdict.native, f"a reason is missing in NATIVE_WRONG\n{told}"
        assert verdict.same, told
