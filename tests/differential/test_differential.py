"""The same script on MXNet's own store and on ours: the same results, or a reason why not.

What MXNet's own store does wrong, mostly by hanging until it is ended, is looked at again only by
``python -m tests.differential``: MXNet is retired, and will do the same for ever.
"""

from typing import Dict

import pytest

from .case import CASES
from .expectations import NATIVE_RACES, NATIVE_WRONG, NOT_SERVED, OURS_DIFFERS, problem
from .judge import Verdict, is_right, judge
from .runner import OUR_LIMIT_S, Outcome, run_native, run_ours
from .themes import load

load()
TABLES = (NATIVE_WRONG, NATIVE_RACES, NOT_SERVED, OURS_DIFFERS)
KNOWN = {name for table in TABLES for name in table}
BOTH_RIGHT = [name for name in CASES if name not in KNOWN]


@pytest.fixture(scope="module")
def ours() -> Dict[str, Outcome]:
    return run_ours(CASES.values())


@pytest.fixture(scope="module")
def native() -> Dict[str, Outcome]:
    found = run_native(CASES[name] for name in BOTH_RIGHT)
    for name in BOTH_RIGHT:
        if not is_right(CASES[name], found[name]):
            # On a busy machine it has not always hung when its time is over.
            found.update(run_native([CASES[name]], limit_s=OUR_LIMIT_S))
    return found


def test_every_expectation_is_of_a_case_and_there_is_one_of_each() -> None:
    assert set(CASES) >= KNOWN
    assert len(KNOWN) == sum(map(len, TABLES))


@pytest.mark.jobs
def test_every_case_is_run_on_ours(ours: Dict[str, Outcome]) -> None:
    """Takes a minute or two, and so does the next one; the others only compare."""
    assert set(ours) == set(CASES)


@pytest.mark.native
def test_the_others_are_run_on_mxnets(native: Dict[str, Outcome]) -> None:
    assert set(native) == set(BOTH_RIGHT)


@pytest.mark.jobs
@pytest.mark.parametrize("name", sorted(KNOWN))
def test_ours(ours: Dict[str, Outcome], name: str) -> None:
    """MXNet's own store is taken at the tables' word."""
    is_ours_right = is_right(CASES[name], ours[name])
    found = problem(name, Verdict(native=False, ours=is_ours_right, same=False))
    assert not found, f"{CASES[name].what}\nours: {ours[name]}"


@pytest.mark.jobs
@pytest.mark.native
@pytest.mark.parametrize("name", BOTH_RIGHT)
def test_both(ours: Dict[str, Outcome], native: Dict[str, Outcome], name: str) -> None:
    found = problem(name, judge(CASES[name], native[name], ours[name]))
    assert not found, f"{CASES[name].what}\nnative: {native[name]}\nours: {ours[name]}"
