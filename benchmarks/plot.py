"""Draws a benchmark's figures: a panel for each case, peers and limits in it, the finding above it.

    python -m benchmarks.plot benchmarks/results/pushpull.json ...

draws again what has been measured, from its JSON file.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, List, Mapping, Sequence, Tuple

from benchmarks import scaling_plot

OURS = "baryon"
COLUMNS = 4  # panels side by side
_OUR_COLOUR, _PEER_COLOURS = "tab:blue", ("tab:orange", "tab:green", "tab:purple", "tab:brown")
_LIMIT_STYLES = ("dashed", "dotted", "dashdot")

Json = Mapping[str, Any]  # as `report.write` writes it


def scaled(values: Sequence[float], unit: str) -> Tuple[float, str]:
    """What to multiply with, and the unit then: seconds are ms or µs where they are so short."""
    if unit != "s" or max(values) >= 1.0:
        return 1.0, unit
    return (1e3, "ms") if max(values) >= 1e-3 else (1e6, "µs")


def finding(benchmark: str, cases: Sequence[Json], unit: str) -> str:
    """The title: what the figures say of us and each peer."""
    what = "time" if unit == "s" else "figure"
    takes, same = [], []
    for peer in dict.fromkeys(peer for case in cases for peer in case["ratios"]):
        ratios = [case["ratios"][peer] for case in cases if peer in case["ratios"]]
        if all(ratio["minimum"] <= 1.0 <= ratio["maximum"] for ratio in ratios):
            same.append(peer)
            continue
        medians = sorted(ratio["median"] for ratio in ratios)
        shown = dict.fromkeys(f"{median:.2f}" for median in (medians[0], medians[-1]))
        takes.append(f"{' to '.join(shown)} of {peer}'s {what}")
    found = [f"{OURS} takes {', '.join(takes)}"] * bool(takes)
    found += [f"no difference from {', '.join(same)}"] * bool(same)
    return f"{benchmark}: {'; '.join(found) or 'no peer was measured'}"


def draw(picture: Path, benchmark: str, cases: Sequence[Json], unit: str = "s") -> bool:
    """Write a PNG; False without matplotlib."""
    try:
        from matplotlib.figure import Figure  # no pyplot: no display, no global state
    except ImportError:
        return False
    columns = min(COLUMNS, len(cases))
    rows = -(-len(cases) // columns)
    size = (max(3.2 * columns, 6.0), 0.8 + 3.4 * rows)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(finding(benchmark, cases, unit), wrap=True)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    peers = dict.fromkeys(name for case in cases for name in case["seconds"] if name != OURS)
    colours = {OURS: _OUR_COLOUR, **dict(zip(peers, _PEER_COLOURS * len(peers)))}
    for axes, case in zip(panels, cases):
        _panel(axes, case, unit, colours)
    for axes in panels[len(cases) :]:
        axes.set_axis_off()
    figure.supxlabel("Lower is better. Bars: median, and from minimum to maximum.", fontsize=9)
    figure.savefig(picture, dpi=120)
    return True


def _panel(axes: Any, case: Json, unit: str, colours: Mapping[str, str]) -> None:
    systems = case["seconds"]
    highest = max([one["maximum"] for one in systems.values()] + [*case["limits"].values()])
    factor, shown = scaled([one["median"] for one in systems.values()], unit)
    for place, (name, one) in enumerate(systems.items()):
        median, low, high = (one[key] * factor for key in ("median", "minimum", "maximum"))
        spread = [[median - low], [high - median]]
        axes.bar(place, median, 0.7, yerr=spread, capsize=4, color=colours[name])
        ratio = case["ratios"].get(name)
        label = f"{median:.3g}" + (f"\nours / it\n{ratio['median']:.2f}" if ratio else "")
        axes.annotate(
            label, (place, high), (0, 4), textcoords="offset points", ha="center", fontsize=8
        )
    for (limit, value), style in zip(case["limits"].items(), _LIMIT_STYLES * len(case["limits"])):
        label = f"limit: {limit}, {value * factor:.3g}"
        axes.axhline(value * factor, color="black", linestyle=style, linewidth=1, label=label)
    if case["limits"]:
        axes.legend(loc="upper left", fontsize=7, frameon=False)
    axes.set_ylim(0, highest * factor * 1.5)  # room for what is written over the bars
    axes.set_xlim(-0.6, len(systems) - 0.4)
    axes.set_xticks(range(len(systems)), list(systems))
    axes.set_ylabel(shown)
    axes.set_title(case["name"], fontsize=9, wrap=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="JSON files of benchmarks")
    drawn: List[bool] = []
    for path in parser.parse_args().results:
        content = json.loads(path.read_text(encoding="utf-8"))
        picture = path.with_suffix(".png")
        if "records" in content:
            drawn.append(scaling_plot.draw(picture, content["records"]))
        else:
            drawn.append(draw(picture, content["benchmark"], content["cases"], content["unit"]))
        if drawn[-1]:
            print(f"written: {picture}")
    if not all(drawn):
        parser.error("matplotlib is not installed: pip install matplotlib")
    return 0


if __name__ == "__main__":
    sys.exit(main())
