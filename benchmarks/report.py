"""What all benchmarks share: taking turns, statistics, tables, the JSON file and the plot.

A shared machine drifts by more than the differences that matter, so the systems take turns and
each round yields one ratio of systems that were measured within seconds of each other. The median
of those ratios is the figure; the values are there to show what it is made of.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import sys
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Sequence, Tuple

from rich.console import Console
from rich.table import Table

from benchmarks.processes import exit_on_sigterm
from benchmarks.systems import SYSTEMS, CannotRun, Run, RunFailed, System

OURS = "baryon"
RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("baryon", "mxnet", "numpy", "pyzmq", "msgspec")
MAX_FAILED_ROUNDS = 3

console = Console(width=None if sys.stdout.isatty() else 120)
Sample = Callable[[], Tuple[float, Run]]


class Figure(NamedTuple):
    """What is measured, and which ratio of the systems is the figure.

    By default ours divided by each peer; with a `base`, each other system divided by that one.
    """

    unit: str = "s"
    base: str = ""

    @property
    def ratio(self) -> str:
        return f"it / {self.base}" if self.base else "ours / it"

    def ratios(self, values: Mapping[str, Sequence[float]]) -> Dict[str, Stats]:
        """For each system but the one that all are compared with, the ratios of the rounds."""
        fixed = self.base or OURS
        if fixed not in values:
            return {}
        result = {}
        for name in values:
            if name != fixed:
                upper, lower = (name, fixed) if self.base else (fixed, name)
                result[name] = Stats.of([a / b for a, b in zip(values[upper], values[lower])])
        return result


SECONDS = Figure()


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
    """One row of a table: one setting, the values of each system, and the ratios between them."""

    name: str
    setting: Dict[str, Any]
    values: Dict[str, Stats] = field(default_factory=dict)
    ratios: Dict[str, Stats] = field(default_factory=dict)  # see Figure
    bad_exits: Dict[str, int] = field(default_factory=dict)  # reported, then aborted or hung
    failures: List[str] = field(default_factory=list)


class Grid(NamedTuple):
    """A table as text: shown on the terminal, and kept as Markdown."""

    title: str
    headings: Sequence[str]  # the first is that of the row's name
    rows: Sequence[Sequence[str]]

    def show(self) -> None:
        shown = Table(title=self.title)
        for heading in self.headings:
            shown.add_column(heading, justify="right" if shown.columns else "left")
        for row in self.rows:
            shown.add_row(*row)
        console.print(shown)

    def markdown(self) -> str:
        rule = ["---"] + ["---:"] * (len(self.headings) - 1)
        rows = [self.headings, rule, *self.rows]
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        return "\n".join([f"**{self.title}**", "", *lines, ""])


def take_turns(
    case: Case, samples: Mapping[str, Sample], rounds: int, figure: Figure = SECONDS
) -> Case:
    """Fill `case` from `rounds` rounds in which each system runs once, after one to warm up.

    A round in which a system fails is recorded and repeated; RunFailed after MAX_FAILED_ROUNDS.
    """
    values: Dict[str, List[float]] = {name: [] for name in samples}
    case.bad_exits = dict.fromkeys(samples, 0)
    number = 0
    while number <= rounds:
        try:
            taken = {name: sample() for name, sample in samples.items()}
        except RunFailed as failure:
            case.failures.append(str(failure))
            console.print(f"{case.name}: round {number} failed: {failure}", markup=False)
            if len(case.failures) >= MAX_FAILED_ROUNDS:
                raise
            continue
        shown = "  ".join(f"{name} {taken[name][0]:.4g} {figure.unit}" for name in taken)
        console.print(f"{case.name}: {f'round {number}' if number else 'warm-up'}: {shown}")
        for name, (value, run) in taken.items():
            case.bad_exits[name] += any(code != 0 for code in run.exit_codes)
            if number > 0:
                values[name].append(value)
        number += 1
    case.values = {name: Stats.of(taken) for name, taken in values.items()}
    case.ratios = figure.ratios(values)
    return case


def grid_of(title: str, cases: Sequence[Case], figure: Figure = SECONDS) -> Grid:
    unit = figure.unit
    headings = ("case", "system", f"median {unit}", f"min {unit}", f"max {unit}")
    rows = []
    for case in cases:
        for name, stats in case.values.items():
            ratio = case.ratios.get(name)
            rows.append((
                case.name,
                name,
                *(f"{value:.4g}" for value in (stats.median, stats.minimum, stats.maximum)),
                f"{ratio.median:.2f} ({ratio.minimum:.2f}-{ratio.maximum:.2f})" if ratio else "",
            ))  # fmt: skip
    return Grid(title, (*headings, f"{figure.ratio} (min-max)"), rows)


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


def write(output: Path, content: Mapping[str, Any], grid: Grid) -> None:
    """Show `grid`; write `content` to `output` as JSON, and the grid beside it as Markdown."""
    grid.show()
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    output.with_suffix(".md").write_text(grid.markdown(), encoding="utf-8")
    console.print(f"written: {output.name}, {output.with_suffix('.md').name}")


def write_cases(
    output: Path,
    title: str,
    facts: Mapping[str, Any],
    cases: Sequence[Case],
    figure: Figure = SECONDS,
) -> None:
    """Write what turns have given, and beside it a bar plot if matplotlib is installed."""
    content = {
        "benchmark": output.stem,
        "machine": dict(facts),
        "unit": figure.unit,
        "ratio": f"{figure.ratio}, per round; ours: {OURS}",
        "cases": [asdict(case) for case in cases],
    }
    write(output, content, grid_of(title, cases, figure))
    picture = output.with_suffix(".png")
    if _plot(picture, title, cases, figure):
        console.print(f"written: {picture.name}")


def run_command(
    parser: argparse.ArgumentParser,
    benchmark: str,
    systems: Sequence[str],
    measure: Callable[[argparse.Namespace, Mapping[str, System]], List[Case]],
    figure: Figure = SECONDS,
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
        console.print(f"given up: {failure}", markup=False)
        return 1
    except CannotRun as fault:
        parser.error(str(fault))
    write_cases(options.output, parser.description or benchmark, facts, cases, figure)
    return 0


def _plot(picture: Path, title: str, cases: Sequence[Case], figure: Figure) -> bool:
    try:
        from matplotlib.figure import Figure as Canvas  # no pyplot: no display, no global state
    except ImportError:
        return False
    names = list(dict.fromkeys(name for case in cases for name in case.values))
    width = 0.8 / len(names)
    canvas = Canvas(figsize=(2.5 + 1.2 * len(cases) * len(names), 4.0), layout="constrained")
    axes = canvas.add_subplot()
    for position, name in enumerate(names):
        places = [index + (position - (len(names) - 1) / 2) * width for index in range(len(cases))]
        stats = [case.values[name] for case in cases]
        medians = [one.median for one in stats]
        spread = [
            [one.median - one.minimum for one in stats],
            [one.maximum - one.median for one in stats],
        ]
        bars = axes.bar(places, medians, width, yerr=spread, capsize=4, label=name)
        ratios = [case.ratios.get(name) for case in cases]
        labels = [f"{figure.ratio}\n{ratio.median:.2f}" if ratio else "" for ratio in ratios]
        axes.bar_label(bars, labels=labels, label_type="center", color="white")
    axes.set_xticks(range(len(cases)), [case.name.replace(" ", "\n", 1) for case in cases])
    axes.set_ylabel(f"{figure.unit} (median; bars: min to max)")
    axes.set_title(title)
    axes.legend()
    canvas.savefig(picture, dpi=120)
    return True


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
