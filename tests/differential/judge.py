"""Compares what became of a case on both stores, and with the right answer."""

import math
from typing import Any, NamedTuple, Optional

from .case import RTOL, Case
from .runner import Outcome

__all__ = ["Verdict", "agree", "is_right", "judge"]

HALF_RTOL = 2e-3  # two neighbours in half precision


class Verdict(NamedTuple):
    """Who is right, and whether both stores did the same."""

    native: bool
    ours: bool
    same: bool

    def __str__(self) -> str:
        if self.native and self.ours:
            return "both"
        return "native" if self.native else "ours" if self.ours else "neither"


def judge(case: Case, native: Outcome, ours: Outcome) -> Verdict:
    return Verdict(is_right(case, native), is_right(case, ours), agree(case, native, ours))


def is_right(case: Case, outcome: Outcome) -> bool:
    """Whether every worker got the right answer, or was told no where that is the answer."""
    if case.is_refused:
        return outcome.is_refused
    return not outcome.failure and all(
        "got" in r and is_close(r["got"], r["right"], case.rtol) for r in outcome.records
    )


def agree(case: Case, one: Outcome, other: Outcome) -> bool:
    """Whether both stores did the same: the same values, or both said no."""
    if one.is_refused or other.is_refused:
        return one.is_refused and other.is_refused
    if one.failure or other.failure:
        return bool(one.failure and other.failure)
    return all(is_close(a["got"], b["got"], case.rtol) for a, b in zip(one.records, other.records))


def is_close(one: Any, other: Any, rtol: float = RTOL) -> bool:
    """Whether two JSON values are the same up to rounding; near zero, up to a tenth of ``rtol``."""
    if isinstance(one, dict) and isinstance(other, dict):
        if one.get("dtype") == "float16":
            rtol = HALF_RTOL
        return one.keys() == other.keys() and all(
            is_close(one[name], other[name], rtol) for name in one
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(is_close(a, b, rtol) for a, b in zip(one, other))
    is_number = _number(one) is not None and _number(other) is not None
    if is_number and (isinstance(one, float) or isinstance(other, float)):
        both_nan = math.isnan(one) and math.isnan(other)
        return both_nan or math.isclose(one, other, rel_tol=rtol, abs_tol=rtol / 10)
    return type(one) is type(other) and bool(one == other)


def _number(value: Any) -> Optional[float]:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else None
