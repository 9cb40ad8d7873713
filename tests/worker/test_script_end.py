"""The exit code of a script, known before Python ends: it is what the process then ends with."""

import subprocess
import sys

import pytest

PRELUDE = """
import atexit, multiprocessing, os, sys, threading
from baryon.worker import script_end, startup
startup.install()
from sys import exit as own_exit
end = script_end.ScriptEnd(lambda code, error: print("failed", code, flush=True))
atexit.register(lambda: print("ends", end.code(), flush=True))
"""
FAILURES = {
    "1 / 0": 1,
    "sys.exit(3)": 3,
    "own_exit(3)": 3,
    "exit(3)": 3,
    "raise SystemExit(3)": 3,
    "sys.exit('why')": 1,
    "sys.exit(-1)": 255,
    "sys.exit(True)": 1,
    "os.kill(os.getpid(), 2); import time; time.sleep(60)": 130,
    "sys.excepthook = lambda *error: None; 1 / 0": 1,  # rich and others replace it
    "try: 1 / 0\nexcept Exception: sys.exit(3)": 3,
    "try: sys.exit(3)\nexcept SystemExit as error: error.code = 4; raise": 4,
    "def f(): sys.exit(3)\ntry: f()\nfinally: print('still here')": 3,
}
SUCCESSES = [
    "",
    "sys.exit()",
    "sys.exit(0)",
    "try: sys.exit(3)\nexcept SystemExit as error: assert error.code == 3",
    "try: 1 / 0\nexcept Exception: sys.excepthook(*sys.exc_info())",
    "thread = threading.Thread(target=sys.exit, args=(3,)); thread.start(); thread.join()",
    "thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()",
]


def run(script: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + script], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(("script", "code"), FAILURES.items())
def test_a_failure_is_told_once_with_its_code(script: str, code: int) -> None:
    ended = run(script)
    assert (ended.returncode if ended.returncode >= 0 else 128 - ended.returncode) == code
    told = [line for line in ended.stdout.splitlines() if line != "still here"]
    assert told == [f"failed {code}", f"ends {code}"]


@pytest.mark.parametrize("script", SUCCESSES)
def test_a_success_is_none(script: str) -> None:
    ended = run(script)
    assert (ended.returncode, ended.stdout) == (0, "ends 0\n")


def test_an_end_by_force_lets_others_have_their_turn_first() -> None:
    ended = run("atexit.register(startup.force_exit, 5)")
    assert (ended.returncode, ended.stdout) == (5, "ends 0\n")


def test_a_process_of_multiprocessing_knows_it_in_its_finalizer() -> None:
    ended = run(
        """
from multiprocessing.util import Finalize
def target(code):
    Finalize(None, lambda: print("finalizer", end.code(), flush=True), exitpriority=0)
    sys.exit(code)
for code in (0, 3):
    child = multiprocessing.get_context("fork").Process(target=target, args=(code,))
    child.start()
    child.join()
    print("child", child.exitcode, flush=True)
"""
    )
    told = [line for line in ended.stdout.splitlines() if not line.startswith("ends")]
    assert told == ["finalizer 0", "child 0", "failed 3", "finalizer 3", "child 3"]
