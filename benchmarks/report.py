"""What all benchmarks share: taking turns, statistics, the table, the JSON file and the plot.

A shared machine drifts by more than the differences that matter, so the systems take turns and
each round yields one ratio of ours to each peer, measured within seconds of each other. The
median of those ratios is the figure; the seconds are there to show what it is made of.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Sequence, Tuple, TypeVar

from rich.console import Console
from rich.table import Table

from benchmarks import plot
from benchmarks.plot import OURS
from benchmarks.processes import exit_on_sigterm
from benchmarks.systems import SYSTEMS, Run, RunFailed, System

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("baryon", "mxnet", "numpy", "pyzmq", "msgspec")
MAX_FAILED_ROUNDS = 3

console = Console()
Sample = Callable[[], Tuple[float, Run]]
Taken = TypeVar("Taken")


@dataclass(frozen=True)
class Stats:
    median: float
    minimum: float
    maximum: float
    values: List[float]

    @classmethod
    def of(cls, values: Sequence[float]) -> Stats:
        return cls(statistics.median(values), min(values), max(values), list(values))


@dataclass
class Case:
    """One row of a table: one setting, the seconds of each system, and ours against each peer."""

    name: str
    setting: Dict[str, Any]
    seconds: Dict[str, Stats] = field(default_factory=dict)
    ratios: Dict[str, Stats] = field(default_factory=dict)  # peer -> ours divided by the peer
    bad_exits: Dict[str, int] = field(default_factory=dict)  # reported, then aborted or hung
    failures: List[str] = field(default_factory=list)
    limits: Dict[str, float] = field(default_factory=dict)  # seconds that nobody can go below


def take_turns(case: Case, samples: Mapping[str, Sample], rounds: int) -> Case:
    """Fill `case` from `rounds` rounds in which each system runs once, after one to warm up."""
    seconds: Dict[str, List[float]] = {name: [] for name in samples}
    case.bad_exits = dict.fromkeys(samples, 0)
    for number, taken in enumerate(turns(case.name, samples, rounds + 1, case.failures)):
        shown = "  ".join(f"{name} {taken[name][0]:.4f} s" for name in taken)
        console.print(f"{case.name}: {f'round {number}' if number else 'warm-up'}: {shown}")
        for name, (value, run) in taken.items():
            case.bad_exits[name] += any(code != 0 for code in run.exit_codes)
            if number > 0:
                seconds[name].append(value)
    case.seconds = {name: Stats.of(values) for name, values in seconds.items()}
    case.ratios = ratios_of_ours(seconds)
    return case


def turns(
    what: str, samples: Mapping[str, Callable[[], Taken]], rounds: int, failures: List[str]
) -> Iterator[Dict[str, Taken]]:
    """Yield `rounds` rounds in which each system runs once.

    A round in which a system fails is added to `failures` and repeated; RunFailed after
    MAX_FAILED_ROUNDS.
    """
    number = 0
    while number < rounds:
        try:
            taken = {name: sample() for name, sample in samples.items()}
        except RunFailed as failure:
            failures.append(str(failure))
            console.print(f"{what}: round {number} failed: {failure}", markup=False)
            if len(failures) >= MAX_FAILED_ROUNDS:
                raise
            continue
        yield taken
        number += 1


def ratios_of_ours(seconds: Mapping[str, Sequence[float]]) -> Dict[str, Stats]:
    """Ours divided by each peer, round by round."""
    if OURS not in seconds:
        return {}
    return {
        peer: Stats.of([ours / theirs for ours, theirs in zip(seconds[OURS], values)])
        for peer, values in seconds.items()
        if peer != OURS
    }


def table(title: str, cases: Sequence[Case], unit: str = "s") -> Table:
    result = Table(title=title)
    limits = list(dict.fromkeys(limit for case in cases for limit in case.limits))
    values = [f"median {unit}", f"min {unit}", f"max {unit}"]
    headings = ["case", "system", *values, "ours / it (min-max)"]
    for heading in headings + [f"it / {limit}" for limit in limits]:
        result.add_column(heading, justify="left" if heading in ("case", "system") else "right")
    for case in cases:
        for name, stats in case.seconds.items():
            ratio = case.ratios.get(name)
            result.add_row(
                case.name,
                name,
                *(f"{value:.4f}" for value in (stats.median, stats.minimum, stats.maximum)),
                f"{ratio.median:.2f} ({ratio.minimum:.2f}-{ratio.maximum:.2f})" if ratio else "",
                *(f"{stats.median / case.limits[limit]:.2f}" for limit in limits),
            )
        for limit, seconds in case.limits.items():
            result.add_row(case.name, limit, f"{seconds:.4f}")
        result.add_section()
    return result


def markdown(cases: Sequence[Case], unit: str = "s") -> str:
    """The table as Markdown, for a page or an issue."""
    lines = [f"| case | system | median {unit} | min-max | ours / it |", "|---|---|---|---|---|"]
    for case in cases:
        for name, stats in case.seconds.items():
            ratio = case.ratios.get(name)
            shown = f"{ratio.median:.2f} ({ratio.minimum:.2f}-{ratio.maximum:.2f})" if ratio else ""
            seconds = f"{stats.median:.4f} | {stats.minimum:.4f}-{stats.maximum:.4f}"
            lines.append(f"| {case.name} | {name} | {seconds} | {shown} |")
        for limit, value in case.limits.items():
            lines.append(f"| {case.name} | *{limit}* | {value:.4f} | | |")
    return "\n".join(lines) + "\n"


def machine_facts() -> Dict[str, Any]:
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def write(
    output: Path,
    benchmark: str,
    facts: Mapping[str, Any],
    cases: Sequence[Case],
    unit: str = "s",
) -> None:
    """Write `output` as JSON, and beside it a Markdown table and, with matplotlib, a picture."""
    output.parent.mkdir(parents=True, exist_ok=True)
    content: Dict[str, Any] = {
        "benchmark": benchmark,
        "machine": dict(facts),
        "unit": unit,
        "ratio": f"{unit} of {OURS} divided by {unit} of the peer, per round",
        "cases": [asdict(case) for case in cases],
    }
    output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    output.with_suffix(".md").write_text(markdown(cases, unit), encoding="utf-8")
    console.print(f"written: {output.name}, {output.with_suffix('.md').name}")
    picture = output.with_suffix(".png")
    if plot.draw(picture, benchmark, content["cases"], unit):
        console.print(f"written: {picture.name}")


def show_and_write(
    output: Path,
    title: str,
    content: Mapping[str, Any],
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    num_labels: int,
) -> None:
    """Print a table, and write ``content`` as JSON with the table beside it as Markdown: for what
    is no `Case`. The first ``num_labels`` columns are words."""
    shown = Table(title=title)
    for number, heading in enumerate(headings):
        shown.add_column(heading, justify="left" if number < num_labels else "right")
    for row in rows:
        shown.add_row(*row)
    console.print(shown)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    lines = [headings, ["---"] * len(headings), *rows]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    output.with_suffix(".md").write_text(text, encoding="utf-8")
    console.print(f"written: {output.name}, {output.with_suffix('.md').name}")


def run_command(
    parser: argparse.ArgumentParser,
    benchmark: str,
    systems: Sequence[str],
    measure: Callable[[argparse.Namespace, Mapping[str, System]], List[Case]],
    unit: str = "s",
) -> int:
    """The body of a benchmark's `main`: shared options, measuring, and all outputs."""
    parser.add_argument("--runs", type=int, default=7, help="rounds (default 7, at least 5)")
    parser.add_argument("--systems", nargs="+", choices=systems, default=list(systems))
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds a run may take")
    parser.add_argument("--output", type=Path, default=RESULTS / f"{benchmark}.json")
    options = parser.parse_args()
    if options.runs < 5:
        parser.error("--runs: fewer than 5 rounds make no figure")

    exit_on_sigterm()
    facts = machine_facts()
    try:
        cases = measure(options, {name: SYSTEMS[name] for name in options.systems})
    except RunFailed as failure:
        console.print(f"given up after {MAX_FAILED_ROUNDS} failed rounds: {failure}", markup=False)
        return 1
    console.print(table(parser.description or benchmark, cases, unit))
    write(options.output, benchmark, facts, cases, unit)
    return 0


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
