"""Both stores, case by case: runs them, and prints the comparison as Markdown."""

import json
from typing import Any, Dict, Iterable, List, NamedTuple

from .case import Case
from .expectations import reason_of
from .judge import Verdict, judge
from .runner import Outcome, run_native, run_ours

__all__ = ["Row", "as_markdown", "compare"]

_WIDTH = 70  # characters of a value

_HEAD = """\
# Compatibility

This page compares MXNet's own `dist` stores with Baryon's. To make it anew, run
`python -m tests.differential --output FILE`. It runs the same script on both stores in {count}
cases, mostly with two workers and two servers. "Right" names the store whose result agrees, within
1e-5, with a computation without a store, or that rightly refuses. The results are rank 0's.

| who is right | cases |
|---|---|
{counts}
"""


class Row(NamedTuple):
    """One case, what became of it on both sides, and who is right."""

    case: Case
    native: Outcome
    ours: Outcome
    verdict: Verdict


def compare(cases: Iterable[Case]) -> Dict[str, Row]:
    """Run the cases on both stores. Takes some minutes for all of them."""
    cases = list(cases)
    ours, native = run_ours(cases), run_native(cases)
    return {
        case.name: Row(
            case,
            native[case.name],
            ours[case.name],
            judge(case, native[case.name], ours[case.name]),
        )
        for case in cases
    }


def as_markdown(rows: Iterable[Row]) -> str:
    rows = list(rows)
    counts: Dict[str, int] = {}
    for row in rows:
        counts[str(row.verdict)] = counts.get(str(row.verdict), 0) + 1
    lines = [f"| {who} | {count} |" for who, count in sorted(counts.items())]
    parts = [_HEAD.format(count=len(rows), counts="\n".join(lines))]
    for theme in dict.fromkeys(row.case.theme for row in rows):
        parts.append(f"\n## {theme.capitalize()}\n\n")
        parts.append("| case | what it does | native | ours | right? |\n|---|---|---|---|---|\n")
        parts += [_line(row) for row in rows if row.case.theme == theme]
    return "".join(parts)


def _line(row: Row) -> str:
    name = row.case.name
    why = reason_of(name)
    cells = [
        f"`{name}`",
        row.case.what,
        _shown(row.native),
        _shown(row.ours),
        f"{row.verdict}{': ' if why else ''}{why}",
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _shown(outcome: Outcome) -> str:
    if outcome.failure:
        return _cut(outcome.failure)
    for record in outcome.records:
        if "raised" in record:
            return _cut(f"{record['raised']}: {record['text']}")
    return _cut(_short(outcome.records[0]["got"]))


def _short(value: Any) -> str:
    if isinstance(value, dict) and "dtype" in value:
        elements: List[Any] = value.get("values") or value.get("samples") or []
        shown = ", ".join(f"{one:.5g}" if isinstance(one, float) else str(one) for one in elements)
        shape = "x".join(str(size) for size in value["shape"])
        return f"{value['dtype']} {shape}: {shown}"
    if isinstance(value, list):
        return "; ".join(_short(one) for one in value)
    return value if isinstance(value, str) else json.dumps(value)


def _cut(text: str) -> str:
    text = " ".join(text.split()).replace("`", "'")
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
