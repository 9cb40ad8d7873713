"""How training scales over hosts of 16 GPUs: speed-up and communication that compute cannot hide.

    sudo python -m benchmarks.scaling                         (hours: 1 2 4 8 hosts, batch 2 4 8 16)
    sudo python -m benchmarks.scaling --hosts 1 8 --batches 2 16 --steps 3 --systems baryon

The arrays, the stores and the bytes on the wire are real; the GPUs are emulated (emulated_device),
and all is slower by the same factor, 10: 10 Gbit Ethernet is a link shaped to 1 Gbit/s, and compute
takes 10 times what was published for it. Seconds are shown divided by 10, as if on the real thing.

What is not real: a worker process stands for a host's 16 GPUs, so their sum inside it is left out,
which the published figures include (14.3 of 16 on one host); the servers add and do not run an
optimizer; a layer's share of the time is its share of the convolutions' and dense layers'
multiplications; all hosts share this machine's cores, which are not slower by any factor: "busy"
says how much of them was used, and near 100% it is they who set the pace, not the wire. Then make
all else slower still (--slower 40).
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List

from rich.table import Table

from benchmarks.models import FP32_NBYTES, trainable_arrays
from benchmarks.on_hosts import hosts_up, wire_seconds
from benchmarks.processes import exit_on_sigterm
from benchmarks.report import RESULTS, console, machine_facts, turns
from benchmarks.scaling_plot import PUBLISHED_SPEEDUP, draw
from benchmarks.systems import Run, RunFailed

WORKER = Path(__file__).with_name("scaling_worker.py")
GPUS = 16  # a host's
ETHERNET_BITS_PER_S = 10e9
SYSTEMS = ("baryon", "native")

# Images a second on one K80 GPU, by batch. ResNet-50 as MXNet published it (docs/faq/perf.md,
# "Training results"); for ResNet-152 there is one batch only, 32: 20.8 (MXNet, "Scalability" of
# example/image-classification: p2.16xlarge). Small batches use a GPU badly, ResNet-152's as much as
# ResNet-50's: the one's shape at the other's speed. It gives 19.9 at batch 16, where
# 20 was measured (github.com/beeva-enriqueotero/beeva-poc-mxnet, README_caltech256.md).
_RESNET50 = {1: 13.83, 2: 21.85, 4: 29.58, 8: 36.83, 16: 43.60, 32: 45.52}
_RESNET152_AT_32 = 20.8

Record = Dict[str, Any]


def compute_seconds(batch: int) -> float:
    """Forward and backward of ResNet-152 on one K80 GPU."""
    return batch / (_RESNET152_AT_32 * _RESNET50[batch] / _RESNET50[32])


def measure(options: argparse.Namespace, nbytes: int, count: int) -> Iterator[Record]:
    """A record for each batch and system on `count` hosts; one job measures all batches."""
    rate = f"{ETHERNET_BITS_PER_S / options.slower / 1e6:g}mbit"
    flags = ["--no-encryption"] if options.no_encryption else []
    compute = [f"{compute_seconds(batch) * options.slower:.6f}" for batch in options.batches]
    script = [str(WORKER), "--model", options.model, "--compute", *compute]
    script += ["--steps", str(options.steps), "--warm-up", str(options.warm_up)]
    with hosts_up(count, rate, flags) as hosts:
        link_bytes_per_s = ETHERNET_BITS_PER_S / 8
        raw = hosts.tcp_bytes_per_s() * options.slower if count > 1 else link_bytes_per_s
        systems = {"baryon": hosts.baryon, "native": hosts.native}
        samples = {
            name: functools.partial(systems[name], script, count, count, options.timeout)
            for name in options.systems
        }
        failures: List[str] = []
        rounds = list(turns(f"{count} hosts", samples, options.runs, failures))
    for position, batch in enumerate(options.batches):
        for name in options.systems:
            figures = _figures([taken[name] for taken in rounds], position, options.slower)
            compute_s = compute_seconds(batch)
            yield {
                "hosts": count,
                "batch": batch,
                "system": name,
                "compute_s": compute_s,
                "speedup": GPUS * count * compute_s / figures["step_s"],
                "exposed_s": figures["step_s"] - compute_s,
                "wire_s": wire_seconds(nbytes, count, link_bytes_per_s),
                "raw_tcp_s": wire_seconds(nbytes, count, raw),
                "failures": failures,
                **figures,
            }


def _figures(runs: List[Run], position: int, slower: float) -> Record:
    """Seconds are as on the real thing; a step takes as long as the slowest worker's mean."""
    steps_s: List[float] = []
    busy: List[float] = []
    for run in runs:
        measured = [report["measured"][position] for report in run.reports]
        steps_s.append(max(statistics.mean(one["steps_s"]) for one in measured) / slower)
        busy.append(statistics.mean(one["busy"] for one in measured))
    return {"step_s": statistics.median(steps_s), "runs_s": steps_s, "busy": max(busy)}


def table(records: List[Record]) -> Table:
    result = Table(title="ResNet-152 on emulated hosts of 16 K80 GPUs, 10 Gbit Ethernet")
    for heading in ("hosts", "batch", "system", "step s (compute)", "speed-up", "exposed s"):
        result.add_column(heading, justify="right")
    result.add_column("wire s (raw TCP)", justify="right")
    result.add_column("busy", justify="right")
    for record in records:
        result.add_row(
            *(str(record[name]) for name in ("hosts", "batch", "system")),
            f"{record['step_s']:.3f} ({record['compute_s']:.3f})",
            f"{record['speedup']:.1f}/{GPUS * record['hosts']}",
            f"{record['exposed_s']:.3f}",
            f"{record['wire_s']:.3f} ({record['raw_tcp_s']:.3f})",
            f"{record['busy']:.0%}",
        )
    for hosts in sorted({record["hosts"] for record in records} & {*PUBLISHED_SPEEDUP}):
        speedup = f"{PUBLISHED_SPEEDUP[hosts]}/{GPUS * hosts}"
        result.add_row(str(hosts), "32", "published", "", speedup)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 4, 8, 16], choices=_RESNET50)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--steps", type=int, default=5, help="that count (default 5)")
    parser.add_argument("--warm-up", type=int, default=2, help="steps before those (default 2)")
    parser.add_argument("--runs", type=int, default=1, help="jobs of each system (default 1)")
    parser.add_argument("--slower", type=float, default=10.0, help="than the real thing")
    parser.add_argument("--model", default="resnet152", help="another one's arrays, for a trial")
    parser.add_argument("--no-encryption", action="store_true", help="launch.py's own flag")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds a job may take")
    parser.add_argument("--output", type=Path, default=RESULTS / "scaling.json")
    options = parser.parse_args()
    exit_on_sigterm()
    facts = machine_facts()
    nbytes = FP32_NBYTES * sum(array.size for array in trainable_arrays(options.model))
    records: List[Record] = []
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for count in options.hosts:
        try:
            records += measure(options, nbytes, count)
        except RunFailed as failure:
            console.print(f"{count} hosts: given up: {failure}", markup=False)
            return 1
        setting = {name: value for name, value in vars(options).items() if name != "output"}
        content = {"machine": facts, "setting": setting, "records": records}
        options.output.write_text(json.dumps(content, indent=2) + "\n")  # also if the next fails
        console.print(table(records))
    if draw(options.output.with_suffix(".png"), records):
        console.print(f"written: {options.output.name} and its drawing")
    return 0


if __name__ == "__main__":
    sys.exit(main())
