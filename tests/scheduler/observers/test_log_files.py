"""Logs on a file system that stalls: a named pipe that nobody reads stands for it."""

import os
import threading

import pytest

from baryon.scheduler.observers import log_files
from baryon.scheduler.observers.log_files import LogFiles

LIMIT_S = 20.0


@pytest.fixture
def stalled(tmp_path):
    """(log files of which worker 0's does not open, a function that lets it and returns all)."""
    pipe = tmp_path / "worker-0.log"
    os.mkfifo(pipe)
    logs = LogFiles(os.fspath(tmp_path))
    got = []

    def read():
        with open(pipe, "rb") as file:
            got.append(file.read())

    reader = threading.Thread(target=read, daemon=True)

    def go_on():
        reader.start()
        said = logs.close()
        reader.join(LIMIT_S)
        return got[0], said

    yield logs, go_on
    if not reader.ident:
        reader.start()
        logs._thread.join(LIMIT_S)


def test_who_writes_logs_does_not_wait_for_the_disk(stalled, tmp_path):
    logs, go_on = stalled
    for number in range(1000):
        logs.write("worker-0", b"%d\n" % number)
        logs.write("worker-1", b"%d\n" % number)
    everything = b"".join(b"%d\n" % number for number in range(1000))
    assert go_on() == (everything, [])
    assert (tmp_path / "worker-1.log").read_bytes() == everything


def test_a_stall_is_told_of_once_and_so_is_its_end(stalled, monkeypatch, tmp_path, wait_until):
    logs, go_on = stalled
    assert logs.news() == []
    logs.write("worker-0", b"a\n")
    wait_until(lambda: logs._busy_since is not None)
    assert logs.news() == []
    monkeypatch.setattr(log_files, "_STALL_S", 0.0)
    (said,) = logs.news()
    assert said.startswith(f"the log directory {tmp_path} has taken nothing for ")
    assert logs.news() == []
    assert go_on() == (b"a\n", [])
    assert logs.news() == [f"the log directory {tmp_path} takes the logs again"]
    assert logs.news() == []


def test_what_waits_is_bounded_and_what_is_left_out_is_counted(stalled, monkeypatch):
    monkeypatch.setattr(log_files, "_MAX_WAITING_NBYTES", 100)
    logs, go_on = stalled
    for _ in range(50):
        logs.write("worker-0", b"123456789\n")
    written, said = go_on()
    lines = written.splitlines()
    assert (len(lines), said) == (12, [])
    assert lines[-1] == b"[39 lines are missing here: the disk was too slow]"


def test_the_end_of_a_job_does_not_wait_for_ever(stalled, monkeypatch, tmp_path):
    monkeypatch.setattr(log_files, "_CLOSE_S", 0.05)
    logs, _ = stalled
    logs.write("worker-0", b"lost\n")
    (said,) = logs.close()
    assert said.startswith(f"the log directory {tmp_path} has taken nothing")
    assert "the last 5 bytes are not written" in said
