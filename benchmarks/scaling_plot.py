"""Draws what `benchmarks.scaling` has measured, beside what was published for MXNet's own store."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List

# ResNet-152, synchronous, p2.16xlarge hosts of 16 K80 GPUs, batch 32 a GPU, hosts -> speed-up over
# one GPU: images a second of MXNet's example/image-classification, "Scalability", divided by 20.8.
PUBLISHED_SPEEDUP = {1: 14.3, 2: 28.6, 4: 56.7, 8: 112.2}
# Most of what is lost there is lost among the GPUs of one host, which is not measured here.
# The same hosts and 10 Gbit Ethernet in another report: 115 on 128 GPUs; and the seconds of a step
# that communication took and compute did not hide, which grew from the one to the other.
PUBLISHED_AT_128 = 115
PUBLISHED_EXPOSED_S = {1: 0.1, 8: 0.68}
_COLOURS = {"baryon": "tab:blue", "native": "tab:orange"}
_STYLES = ("-", "--", "-.", ":")


def draw(picture: Path, records: List[Dict[str, Any]]) -> bool:
    """Write a PNG of speed-up and of exposed communication; False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(11.0, 4.5), layout="constrained")
    speedup, exposed = figure.subplots(1, 2)
    hosts = sorted({record["hosts"] for record in records})
    batches = sorted({record["batch"] for record in records})
    for system in dict.fromkeys(record["system"] for record in records):
        for number, batch in enumerate(batches):
            line = [r for r in records if (r["system"], r["batch"]) == (system, batch)]
            counts = [record["hosts"] for record in line]
            look = {"color": _COLOURS[system], "linestyle": _STYLES[number % len(_STYLES)]}
            label = f"{system}, batch {batch}"
            shares = [record["speedup"] / (16 * record["hosts"]) for record in line]
            speedup.plot(counts, shares, marker="o", label=label, **look)
            exposed.plot(
                counts, [r["exposed_s"] * 1e3 for r in line], marker="o", label=label, **look
            )
    wire = {record["hosts"]: record["wire_s"] for record in records}
    exposed.plot(
        hosts, [wire[count] * 1e3 for count in hosts], color="black", label="the wire's limit"
    )
    published = [value / (16 * count) for count, value in PUBLISHED_SPEEDUP.items()]
    look = {"color": "grey", "marker": "x", "linestyle": ":"}
    label = "published, batch 32 (with what is lost in a host)"
    speedup.plot(list(PUBLISHED_SPEEDUP), published, label=label, **look)
    speedup.plot([8], [PUBLISHED_AT_128 / 128], color="black", marker="*", linestyle="",
                 label=f"published: {PUBLISHED_AT_128} on 128 GPUs")  # fmt: skip
    exposed.plot(list(PUBLISHED_EXPOSED_S), [s * 1e3 for s in PUBLISHED_EXPOSED_S.values()],
                 label="published (least and most)",
                 **{**look, "linestyle": ""})  # fmt: skip
    figure.suptitle(_finding(records))
    speedup.set_ylabel("speed-up / GPUs (higher is better)")
    speedup.set_ylim(0, 1.05)
    exposed.set_ylabel("communication not hidden, ms a step (lower is better)")
    for axes in (speedup, exposed):
        axes.set_xscale("log", base=2)
        axes.set_xticks(hosts, [str(count) for count in hosts])
        axes.set_xlabel("hosts of 16 GPUs")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(picture, dpi=120)
    return True


def _finding(records: List[Dict[str, Any]]) -> str:
    """Speed-ups where it is hardest: most hosts, and the smallest batch that all systems have."""
    hosts = max(record["hosts"] for record in records)
    there = [record for record in records if record["hosts"] == hosts]
    systems = list(dict.fromkeys(record["system"] for record in there))
    batches = [{r["batch"] for r in there if r["system"] == system} for system in systems]
    batch = min(set.intersection(*batches), default=0)
    told = ", ".join(
        f"{record['system']} {record['speedup']:.0f}"
        for record in there
        if record["batch"] == batch
    )
    return f"ResNet-152 on {16 * hosts} emulated GPUs, speed-up at batch {batch}: {told}"
