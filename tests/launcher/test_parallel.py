"""The same with many at once."""

import signal
import subprocess
import sys
import threading

import pytest

from baryon.launcher.parallel import side_by_side
from tests.waiting import LIMIT_S


def test_all_are_done_at_the_same_time():
    barrier = threading.Barrier(8)
    assert side_by_side(lambda item: barrier.wait(LIMIT_S), range(8))


def test_more_than_fit_at_once_are_done_in_turn():
    done = []
    assert side_by_side(done.append, range(1000))
    assert sorted(done) == list(range(1000))


def test_nothing_to_do():
    assert side_by_side(lambda item: None, [])


def test_what_one_raises_is_raised_when_the_others_are_done():
    done = []

    def work(item):
        if item == 3:
            raise ValueError(item)
        done.append(item)

    with pytest.raises(ValueError, match="3"):
        side_by_side(work, range(10))
    assert len(done) == 9


def test_time_that_is_over():
    release = threading.Event()
    assert not side_by_side(lambda item: release.wait(LIMIT_S), [1, 2], limit_s=0.2)
    release.set()


def test_an_interrupt_waits_for_nobody():
    # Through no stream of Python's, which the thread that is left behind might hold at the end.
    code = (
        "import os, threading\n"
        "from baryon.launcher.parallel import side_by_side\n"
        "def work(item):\n"
        "    os.write(1, b'working\\n')\n"
        "    threading.Event().wait()\n"
        "try: side_by_side(work, [1])\n"
        "except KeyboardInterrupt:\n"
        "    os.write(1, b'interrupted\\n')\n"
        "    os._exit(0)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline() == b"working\n"
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=LIMIT_S)
    assert (out, errors, process.returncode) == (b"interrupted\n", b"", 0)
