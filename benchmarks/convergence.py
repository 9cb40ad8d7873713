"""Test accuracy, and bytes sent a step, of the digits example with each compressor.

    sudo python -m benchmarks.convergence
    sudo python -m benchmarks.convergence --stores dist_sync --compression none 2bit,threshold=2

Two workers and two servers, all links over TCP, in a network namespace of their own, so that its
loopback interface carries the job's bytes and nothing else. What that has sent is read when the
first epoch's line appears and when the last one's does: between them the kernel has counted every
step's gradients, values, headers, encryption, acknowledgements and heartbeats. A worker may be in
its next step by then, at either end.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple

from baryon.ps.compression import CODECS
from benchmarks.processes import exit_on_sigterm
from benchmarks.report import RESULTS, console, machine_facts, show_and_write
from benchmarks.systems import ENVIRONMENT, RunFailed

SCRIPT = Path(__file__).resolve().parent.parent / "examples" / "train_digits.py"
STORES = ("dist_sync", "dist_async", "dist_ssp")
WORKERS, SERVERS = 2, 2
IMAGES, BATCH = 1437, 64
STEPS = IMAGES // WORKERS // BATCH  # an epoch
_INSIDE = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
_EPOCH = re.compile(r"Epoch (\d+)\. .*Test_acc ([\d.]+)")

Record = Dict[str, Any]


def measure(store: str, compression: str, epochs: int, timeout_s: float) -> Record:
    """Run the example once; raises RunFailed if it does not get to its end."""
    with tempfile.TemporaryDirectory() as folder:
        launch = [sys.executable, "-m", "baryon.launcher", "--launcher", "local"]
        launch += ["-n", str(WORKERS), "-s", str(SERVERS), "--no-shared-memory"]
        launch += ["--log-dir", f"{folder}/logs"]
        script = [str(SCRIPT), "--kvstore", store, "--epochs", str(epochs)]
        script += ["--batch-size", str(BATCH), "--export", f"{folder}/digits"]
        command = [*_INSIDE, *launch, *script]
        if compression != "none":
            command += ["--compression", compression]
        seen = list(_epochs(command, timeout_s))
    if len(seen) != epochs:
        raise RunFailed(f"{store} {compression}: {len(seen)} of {epochs} epochs")
    nbytes = seen[-1][1] - seen[0][1]
    return {
        "store": store,
        "compression": compression,
        "test_accuracy": [accuracy for accuracy, _ in seen],
        "bytes_per_step": nbytes / (STEPS * (epochs - 1)),
    }


def _epochs(command: Sequence[str], timeout_s: float) -> Iterator[Tuple[float, int]]:
    """Of each epoch, when its line comes: the accuracy, and the bytes sent since the beginning."""
    command = ["timeout", "--signal=TERM", str(timeout_s), *command]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **ENVIRONMENT},
    ) as job:
        assert job.stdout is not None
        for line in job.stdout:
            found = _EPOCH.search(line)
            if found:
                yield float(found.group(2)), sent_nbytes(_only_child(job.pid))
    if job.returncode:
        raise RunFailed(f"exit code {job.returncode}; its output is above")


def _only_child(pid: int) -> int:
    """launch.py, which ``timeout`` has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return int(children.split()[0])


def sent_nbytes(pid: int) -> int:
    """What the loopback interface of a process's network namespace has sent."""
    for line in Path(f"/proc/{pid}/net/dev").read_text(encoding="ascii").splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            return int(counters.split()[8])
    raise RunFailed(f"process {pid} has no loopback interface")


def headings_and_rows(records: Sequence[Record]) -> Tuple[List[str], List[List[str]]]:
    plain = {r["store"]: r["bytes_per_step"] for r in records if r["compression"] == "none"}
    rows = []
    for record in records:
        nbytes, accuracy = record["bytes_per_step"], record["test_accuracy"]
        share = f"{nbytes / plain[record['store']]:.1%}" if record["store"] in plain else ""
        best = f"{max(accuracy):.3f}"
        shown = [f"{nbytes / 1e6:.3f}", share, f"{accuracy[-1]:.3f}", best]
        rows.append([record["store"], record["compression"], *shown])
    return ["store", "compression", "MB a step", "of none", "test accuracy", "best epoch"], rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.convergence", description=__doc__)
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument(
        "--compression", nargs="+", default=["none", *CODECS], help="as the example's own flag"
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds a run may take")
    parser.add_argument("--output", type=Path, default=RESULTS / "convergence.json")
    options = parser.parse_args()
    if options.epochs < 2:
        parser.error("--epochs: bytes are counted from the first one's end to the last one's")
    if os.geteuid() != 0:
        parser.error("a network namespace needs root: use sudo")
    exit_on_sigterm()
    facts = machine_facts()
    records: List[Record] = []
    try:
        for store in options.stores:
            for compression in options.compression:
                records.append(measure(store, compression, options.epochs, options.timeout))
                console.print(*headings_and_rows(records)[1][-1])
    except RunFailed as failure:
        console.print(f"given up: {failure}", markup=False)
        return 1
    title = f"Digits, {WORKERS} workers, {SERVERS} servers, {options.epochs} epochs"
    setting = {"workers": WORKERS, "servers": SERVERS, "epochs": options.epochs, "batch": BATCH}
    content = {
        "benchmark": "convergence",
        "machine": facts,
        "setting": setting,
        "cases": records,
    }
    show_and_write(options.output, title, content, *headings_and_rows(records), num_labels=2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
