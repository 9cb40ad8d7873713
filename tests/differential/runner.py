"""Runs cases on MXNet's own store and on ours, and says what became of each.

A case may hang, or end a process. So cases.py tells when a case starts and ends, and ends itself
when a case takes too long; whatever came after that case is then run in a new job.
"""

import json
import queue
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from benchmarks import native
from tests.cluster import Cluster
from tests.waiting import wait_until

from .case import Case

__all__ = ["Outcome", "run_native", "run_ours"]

SCRIPT = Path(__file__).resolve().parent / "cases.py"
SERVERS = 2
NATIVE_LIMIT_S = 8.0  # for a case, most of which take milliseconds
OUR_LIMIT_S = 30.0
START_LIMIT_S = 30.0
JOB_ENDS = "the job ends with "
MAX_FALSE_STARTS = 2  # MXNet does not survive every fork

Record = Dict[str, Any]


class Outcome(NamedTuple):
    """What became of a case: one record of each worker, or what happened to the job instead."""

    records: Tuple[Record, ...]  # by rank: "got" and "right", or "raised" and "text"
    failure: str = ""

    @property
    def is_refused(self) -> bool:
        """Whether the script was told: by an exception, or by a job that ends and says why."""
        is_raised = any("raised" in record for record in self.records)
        return is_raised or self.failure.startswith(JOB_ENDS)


# Runs cases in one job; returns what workers recorded, and why the first unfinished one was not.
Job = Callable[[Sequence[Case]], Tuple[List[Record], str]]


def run_native(
    cases: Iterable[Case], at_once: int = 3, limit_s: float = NATIVE_LIMIT_S
) -> Dict[str, Outcome]:
    """MXNet's own store, each case within ``limit_s``. Cases that need a job of their own run
    ``at_once`` side by side."""
    groups: Dict[Any, List[Case]] = {}
    for number, case in enumerate(cases):
        mark = number if case.group is None else case.group
        groups.setdefault((mark, case.workers), []).append(case)
    idle: queue.SimpleQueue[_NativeJobs] = queue.SimpleQueue()

    def run(group: Sequence[Case]) -> Dict[str, Outcome]:
        jobs = idle.get()
        try:
            return _run(group, jobs.run)
        finally:
            idle.put(jobs)

    with ExitStack() as stack, ThreadPoolExecutor(at_once) as pool:
        for _ in range(at_once):
            idle.put(stack.enter_context(_NativeJobs(limit_s)))
        found = list(pool.map(run, groups.values()))
    return dict(chain.from_iterable(one.items() for one in found))


def run_ours(cases: Iterable[Case]) -> Dict[str, Outcome]:
    """Baryon, with as many cases in a job as there can be."""
    groups: Dict[Any, List[Case]] = {}
    for number, case in enumerate(cases):
        groups.setdefault((number if case.ends_job else -1, case.workers), []).append(case)
    return dict(chain.from_iterable(_run(group, _our_job).items() for group in groups.values()))


def _run(cases: Sequence[Case], job: Job) -> Dict[str, Outcome]:
    """Run ``cases``, which have the same number of workers, in as few jobs as it takes."""
    found: Dict[str, Outcome] = {}
    rest = list(cases)
    false_starts = 0
    while rest:
        records, why = job(rest)
        begun = {record["case"] for record in records}
        false_starts += not begun
        if false_starts > MAX_FALSE_STARTS:
            raise RuntimeError(f"{false_starts} jobs of {rest[0].name} did not begin: {why}")
        unfinished = []
        for case in list(rest):
            own = [r for r in records if r["case"] == case.name and "started" not in r]
            if len(own) == case.workers:
                found[case.name] = Outcome(tuple(sorted(own, key=lambda r: r["rank"])))
                rest.remove(case)
            elif case.name in begun:
                unfinished.append(case)
        # One of these has ended the job. Workers go on to the next case without each other, so it
        # need not be the first.
        for case in unfinished:
            rest.remove(case)
            if len(unfinished) == 1:
                found[case.name] = Outcome((), why)
            else:
                found.update(_run([case], job))
    return found


class _NativeJobs:
    """A process that has imported MXNet, and runs one native job after another."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s  # for a case
        self._process: Optional[subprocess.Popen[str]] = None

    def __enter__(self) -> "_NativeJobs":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end()

    def run(self, cases: Sequence[Case]) -> Tuple[List[Record], str]:
        with tempfile.TemporaryDirectory(prefix="differential-") as folder:
            flags = ["--servers", str(SERVERS), *_arguments(cases, folder, self._limit_s)]
            codes = Path(folder, "codes")
            process = self._process = self._process or self._start()
            assert process.stdin is not None
            process.stdin.write(json.dumps(flags) + "\n")
            process.stdin.flush()
            try:
                wait_until(
                    lambda: codes.exists() or process.poll() is not None,
                    "a native job",
                    START_LIMIT_S + self._limit_s * len(cases),
                )
            except AssertionError:
                pass  # it hangs, and ends with its parent
            if not codes.exists():
                self._end()
            ended = json.loads(codes.read_text()) if codes.exists() else []
            killed = [code for code in ended if code and code < 0]
            why = f"a worker ends by signal {-killed[0]}" if killed else "hangs"
            return _read(folder), why

    def _start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "tests.differential.native_job"],
            env=native.clean_environment({"OMP_NUM_THREADS": "1"}),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def _our_job(cases: Sequence[Case]) -> Tuple[List[Record], str]:
    with tempfile.TemporaryDirectory(prefix="differential-") as folder:
        flags: List[object] = ["-n", cases[0].workers, "-s", SERVERS, "--launcher", "local"]
        run = Cluster(Path(folder)).start(*flags, SCRIPT, *_arguments(cases, folder, OUR_LIMIT_S))
        try:
            code = run.end(START_LIMIT_S + OUR_LIMIT_S * len(cases))
            run.wait_until_gone()
        finally:
            run.kill()
        told = [line for line in run.err.splitlines() if line.startswith("baryon")]
        is_hung = "Timeout (" in run.err + run.out
        why = "hangs" if is_hung else f"{JOB_ENDS}{code}: {' '.join(told[:1])}"
        return _read(folder), why


def _arguments(cases: Sequence[Case], folder: str, limit_s: float) -> List[str]:
    return [
        *("--workers", str(cases[0].workers)),
        *("--results", folder),
        *("--limit", str(limit_s)),
        *("--cases", *(case.name for case in cases)),
    ]


def _read(folder: str) -> List[Record]:
    """All complete lines that the workers have written."""
    records = []
    for path in sorted(Path(folder).glob("worker-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                pass  # the process was ended in the middle of a line
    return records
