"""When two results are the same, and who is right."""

from typing import Any

import pytest

from .case import Answer, Case
from .judge import is_close, judge
from .runner import Outcome

CASE = Case("name", "what", lambda job: Answer(1, 1), "theme", None, False, False, 2, 1e-5)
REFUSED = CASE._replace(is_refused=True)


def got(*values: Any, right: Any = 3.0) -> Outcome:
    return Outcome(tuple({"got": value, "right": right} for value in values))


RAISED = Outcome(({"raised": "MXNetError", "text": "no"},) * 2)
HANGS = Outcome((), "hangs")
JOB_ENDS = Outcome((), "the job ends with 1: baryon: server 0 failed")


@pytest.mark.parametrize(
    ("case", "native", "ours", "who", "same"),
    [
        (CASE, got(3.0, 3.0), got(3.0, 3.0), "both", True),
        (CASE, got(3.0, 3.0), got(3.0, 4.0), "native", False),
        (CASE, got(4.0, 4.0), got(3.0, 3.0), "ours", False),
        (CASE, got(4.0, 4.0), got(4.0, 4.0), "neither", True),
        (CASE, HANGS, got(3.0, 3.0), "ours", False),
        (CASE, RAISED, got(3.0, 3.0), "ours", False),
        (CASE, RAISED, RAISED, "neither", True),
        (REFUSED, RAISED, RAISED, "both", True),
        (REFUSED, got(3.0, 3.0), RAISED, "ours", False),
        (REFUSED, HANGS, RAISED, "ours", False),
        (REFUSED, RAISED, JOB_ENDS, "both", True),
        (CASE, got(3.0, 3.0), JOB_ENDS, "native", False),
    ],
)
def test_verdict(case: Case, native: Outcome, ours: Outcome, who: str, same: bool) -> None:
    verdict = judge(case, native, ours)
    assert (str(verdict), verdict.same) == (who, same)


@pytest.mark.parametrize(
    ("one", "other", "close"),
    [
        (1.0, 1.000001, True),
        (1.0, 1.0001, False),
        (1, 1.0, True),
        (1, 2, False),
        (True, 1, False),
        (float("nan"), float("nan"), True),
        (float("nan"), 1.0, False),
        (float("inf"), float("inf"), True),
        ([1.0, 2.0], [1.0, 2.0], True),
        ([1.0, 2.0], [1.0], False),
        ("a", "a", True),
        (None, None, True),
        (None, 0, False),
        ({"dtype": "float16", "values": [1.0]}, {"dtype": "float16", "values": [1.001]}, True),
        ({"dtype": "float32", "values": [1.0]}, {"dtype": "float32", "values": [1.001]}, False),
        ({"dtype": "float32", "values": [1.0]}, {"dtype": "float64", "values": [1.0]}, False),
    ],
)
def test_closeness(one: Any, other: Any, close: bool) -> None:
    assert is_close(one, other) is close
