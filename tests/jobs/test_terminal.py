"""Jobs in a terminal with a shell: what is seen of them, and job control."""

import time
from pathlib import Path
from typing import Iterator

import psutil
import pytest

from baryon.scheduler.agent.processes import status_of
from tests.cluster import Cluster
from tests.terminal import LAUNCH, Terminal
from tests.waiting import wait_until

pytestmark = pytest.mark.jobs


@pytest.fixture
def terminal(cluster: Cluster) -> Iterator[Terminal]:
    terminal = Terminal(cluster.cwd)
    yield terminal
    terminal.close()


STEPS = """
import os, sys, time
import mxnet as mx
kv = mx.kv.create("dist_sync")
kv.init("w", mx.nd.zeros(3))
out = mx.nd.zeros(3)
for step in range(10**9):
    kv.pushpull("w", mx.nd.ones(3), out=out)
    out.wait_to_read()
    if step % 20 == 0:
        print("step", step, flush=True)
    if os.path.exists("end"):
        break
    time.sleep(0.01)
"""


def num_running(cluster: Cluster) -> int:
    """How many tasks of the jobs of this terminal run and are not stopped."""
    tasks = [process for process in psutil.process_iter() if is_task(process, cluster.cwd)]
    return sum(status_of(process) != psutil.STATUS_STOPPED for process in tasks)


def is_task(process: psutil.Process, cwd: Path) -> bool:
    try:
        return process.cwd() == str(cwd) and "BARYON_TASK" in process.environ()
    except psutil.Error:
        return False


def test_ctrl_z_stops_the_job_and_fg_and_bg_let_it_go_on(
    cluster: Cluster, terminal: Terminal
) -> None:
    cluster.script(STEPS)
    terminal.type(f"{LAUNCH} -q -n 2 --heartbeat-timeout 2 script.py\n")
    terminal.wait_for("worker 1 | step")
    terminal.type("\x1a")
    terminal.wait_for("[1]+  Stopped")
    assert num_running(cluster) == 0
    before = terminal.lines
    end = time.monotonic() + 5.0  # more than twice what would be a silence
    wait_until(lambda: time.monotonic() > end, "it")
    assert terminal.lines == before
    terminal.type("bg\n")
    terminal.wait_for_more("worker 1 | step")
    assert num_running(cluster) == 3
    terminal.type("fg\n")
    terminal.wait_for_more("worker 1 | step")
    terminal.type("\x1a")
    terminal.wait_for("[1]+  Stopped", 2)
    assert num_running(cluster) == 0
    terminal.type("touch end; fg; echo code $?\n")
    terminal.wait_for("code ")
    assert terminal.lines[-2:] == ["code 0", "$"]
    assert not any(line.startswith("baryon: ") for line in terminal.lines)


LABEL = "an epoch whose description is longer than the terminal is wide, at its widest"
BARS = (
    f"label = {LABEL!r}"
    + """
import os, sys, time
columns = "TQDM_NCOLS", "COLUMNS", "LINES"
for step in range(100):
    sys.stderr.write(f"\\r{step}% {label}")
    while step == 50 and not os.path.exists("go"):
        time.sleep(0.01)
    time.sleep(0.001)
sys.stderr.write(f"\\r{[int(os.environ[name]) for name in columns]}\\n")
"""
)


@pytest.mark.parametrize("columns", [80, 40])
def test_bars_of_four_workers_stay_in_place(cluster: Cluster, columns: int) -> None:
    cluster.script(BARS, "bars.py")
    terminal = Terminal(cluster.cwd, columns)
    try:
        terminal.type(f"alias launch='{LAUNCH} -q'\nclear; launch -n 4 bars.py; echo code $?\n")
        for rank in range(4):
            terminal.wait_for(f"worker {rank} | 50% an epoch")
        bars = [f"worker {rank} | 50% {LABEL}"[: columns - 1].rstrip() for rank in range(4)]
        assert terminal.lines[-4:] == bars
        assert sum("epoch" in line for line in terminal.lines) == 4
        cluster.script("", "go")
        terminal.wait_for("code 0")
        shown = terminal.lines
    finally:
        terminal.close()
    lines = [f"worker {rank} | [{columns - 11}, {columns - 11}, 24]" for rank in range(4)]
    assert sorted(line for line in shown if line.startswith("worker")) == lines
    assert not [line for line in shown if "epoch" in line], "nothing is left of them"
