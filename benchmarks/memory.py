"""What a store takes of memory, in multiples of the model's parameters (resnet152: 241 MB).

    python -m benchmarks.memory --model resnet152 -n 2 -s 1

All processes of the job are looked at ten times a second. What counts is the proportional share of
anonymous and shared memory (Pss_Anon and Pss_Shmem, from Linux 5.9 on): of a page that K processes
share, each has a K-th part, so memory shared by workers and servers is counted once, and a copy
that is not shared counts in full. Files that are mapped, such as libraries, are left out: their
share depends on what else runs on the machine. From the peak is taken off what the same process
had just before the first key, when the script's own arrays were filled (a gradient and a weight
for each parameter) and the servers had their optimizer:

    server  all servers together, less the momentum that SGD keeps there (once the parameters)
    worker  a worker, on average
    job     the highest sum of all processes of the job at one time, less the momentum

The least that a server can do with is 1: its weights. A page that one process has used and another
not yet counts in full in the first, so the first two rows may add up to more than the third. The
JSON file has each process's megabytes in the last run, and its peak resident size as the kernel
counts it.
"""

from __future__ import annotations

import argparse
import functools
import re
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Tuple

import psutil

from benchmarks.report import Case, Stats, console, ratios_of_ours, run_command, turns
from benchmarks.systems import LINKS, Run, System, over

WORKER = Path(__file__).with_name("memory_worker.py")
UNIT = "x parameters"
ROLES = ("server", "worker", "job")
PERIOD_S = 0.1
# What is kept of each process: from /proc/PID/smaps_rollup, and from /proc/PID/status.
FIELDS = {
    "smaps_rollup": ("Pss_Anon", "Pss_Shmem"),
    "status": ("RssAnon", "RssShmem", "VmHWM"),
}

Memory = Dict[str, int]  # field -> bytes


class Sweep(NamedTuple):
    """One look at all processes, over at `at_s` on the clock of `time.time`."""

    at_s: float
    processes: Dict[int, Memory]  # by PID
    servers: List[int]


class Watch:
    """A `with` block in which a thread looks at all descendants of this process again and again."""

    def __init__(self) -> None:
        self.sweeps: List[Sweep] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="memory-watch")

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._is_over.wait(PERIOD_S):
            processes, servers = {}, []
            for process in psutil.Process().children(recursive=True):
                try:
                    processes[process.pid] = _memory(process.pid)
                    if _is_server(process):
                        servers.append(process.pid)
                except (psutil.Error, OSError):
                    processes.pop(process.pid, None)  # it has ended meanwhile
            self.sweeps.append(Sweep(time.time(), processes, servers))


def _memory(pid: int) -> Memory:
    result = {}
    for file, names in FIELDS.items():
        text = Path(f"/proc/{pid}/{file}").read_text()
        for name in names:
            found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
            result[name] = int(found[1]) * 1024 if found else 0  # a zombie has none
    return result


def _is_server(process: psutil.Process) -> bool:
    is_ours = any("baryon.scheduler.server_task" in word for word in process.cmdline())
    return is_ours or process.environ().get("DMLC_ROLE") == "server"


def used(run: Run, sweeps: List[Sweep]) -> Tuple[Dict[str, float], List[Dict[str, Any]]]:
    """What each of ROLES has used, in multiples of the parameters, and each process's figures."""
    first_key_s = min(report["first_key_at_s"] for report in run.reports)
    ended_s = max(report["ended_at_s"] for report in run.reports)
    parameters = momentum = run.reports[0]["nbytes"]
    workers = [report["pid"] for report in run.reports]
    before = [sweep for sweep in sweeps if sweep.at_s < first_key_s][-1]
    after = [sweep for sweep in sweeps if first_key_s <= sweep.at_s <= ended_s]

    more: Dict[str, List[int]] = {"server": [], "worker": [], "other": []}
    processes = []
    for pid, memory in before.processes.items():
        role = "worker" if pid in workers else "server" if pid in before.servers else "other"
        seen = [sweep.processes[pid] for sweep in after if pid in sweep.processes]
        if not seen:
            continue
        peak = {name: max(one[name] for one in seen) for name in memory}
        more[role].append(max(map(_share, seen)) - _share(memory))
        processes.append({
            "role": role,
            **{f"{name}_before_mb": round(value / 1e6, 1) for name, value in memory.items()},
            **{f"{name}_peak_mb": round(value / 1e6, 1) for name, value in peak.items()},
        })  # fmt: skip
    job = max(_sum(sweep) for sweep in after) - _sum(before)
    figures = {
        "server": (sum(more["server"]) - momentum) / parameters,
        "worker": statistics.mean(more["worker"]) / parameters,
        "job": (job - momentum) / parameters,
    }
    return figures, processes


def _share(memory: Memory) -> int:
    return memory["Pss_Anon"] + memory["Pss_Shmem"]


def _sum(sweep: Sweep) -> int:
    return sum(map(_share, sweep.processes.values()))


def measure(options: argparse.Namespace, systems: Mapping[str, System]) -> List[Case]:
    script = [str(WORKER), "--model", options.model, "--repetitions", str(options.repetitions)]
    systems = over(options.link, systems)

    def sample(system: System) -> Tuple[Run, Dict[str, float], List[Dict[str, Any]]]:
        with Watch() as watch:
            run = system(script, options.workers, options.servers, options.timeout)
        return (run, *used(run, watch.sweeps))

    setting: Dict[str, Any] = {
        "model": options.model,
        "link": options.link,
        "workers": options.workers,
        "servers": options.servers,
        "repetitions": options.repetitions,
    }
    failures: List[str] = []
    bad_exits = dict.fromkeys(systems, 0)
    values: Dict[str, Dict[str, List[float]]] = {
        role: {name: [] for name in systems} for role in ROLES
    }
    samples = {name: functools.partial(sample, system) for name, system in systems.items()}
    for number, taken in enumerate(turns("memory", samples, options.runs, failures), 1):
        for name, (run, figures, _) in taken.items():
            shown = "  ".join(f"{role} {figures[role]:.2f}" for role in ROLES)
            console.print(f"round {number}: {name}: {shown}")
            bad_exits[name] += any(code != 0 for code in run.exit_codes)
            for role in ROLES:
                values[role][name].append(figures[role])
        setting["processes"] = {name: processes for name, (_, _, processes) in taken.items()}
    where = f"{options.model} -n {options.workers} -s {options.servers}, {options.link}"
    return [
        Case(
            f"{role}: {where}",
            setting,
            {name: Stats.of(taken) for name, taken in values[role].items()},
            ratios_of_ours(values[role]),
            bad_exits,
            failures,
        )
        for role in ROLES
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory", description="Memory that a store takes"
    )
    parser.add_argument("--model", default="resnet152")
    parser.add_argument("-n", "--workers", type=int, default=2)
    parser.add_argument("-s", "--servers", type=int, default=1)
    parser.add_argument("--link", choices=LINKS, default="shm", help="for ours (default shm)")
    parser.add_argument("--repetitions", type=int, default=5, help="within a run (default 5)")
    return run_command(parser, "memory", ["baryon", "native"], measure, UNIT)


if __name__ == "__main__":
    sys.exit(main())
