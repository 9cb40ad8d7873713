"""Logs on a file system that stalls: a named pipe that nobody reads stands for it."""

import os
import threading

import pytest

from baryon.scheduler.observers import Notice, TaskOutput, log_files
from baryon.scheduler.observers.log_files import LogFiles
from tests.waiting import LIMIT_S, wait_until


def write(logs, task, data, is_transient=False):
    logs.take(TaskOutput(0.0, task, False, is_transient, data))


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
        logs._backlog._thread.join(LIMIT_S)


def test_who_writes_logs_does_not_wait_for_the_disk(stalled, tmp_path):
    logs, go_on = stalled
    for number in range(1000):
        write(logs, "worker-0", b"%d\n" % number)
        write(logs, "worker-1", b"%d\n" % number)
    everything = b"".join(b"%d\n" % number for number in range(1000))
    assert go_on() == (everything, [])
    assert (tmp_path / "worker-1.log").read_bytes() == everything


def test_a_stall_is_told_of_once_and_so_is_its_end(stalled, monkeypatch, tmp_path, wait_until):
    logs, go_on = stalled
    assert logs.look() == []
    write(logs, "worker-0", b"a\n")
    wait_until(lambda: logs._backlog.busy_s > 0.0)
    assert logs.look() == []
    monkeypatch.setattr(log_files, "_STALL_S", 0.0)
    (said,) = logs.look()
    assert said.startswith(f"the log directory {tmp_path} has taken nothing for ")
    assert logs.look() == []
    assert go_on() == (b"a\n", [])
    assert logs.look() == [f"the log directory {tmp_path} takes the logs again"]
    assert logs.look() == []


def test_what_waits_is_bounded_and_what_is_left_out_is_counted(stalled, monkeypatch):
    monkeypatch.setattr(log_files, "_MAX_WAITING_NBYTES", 100)
    logs, go_on = stalled
    for _ in range(50):
        write(logs, "worker-0", b"123456789\n")
    written, said = go_on()
    lines = written.splitlines()
    assert (len(lines), said) == (12, [])
    assert lines[-1] == b"[39 lines are missing here: the disk was too slow]"


def test_the_end_of_a_job_does_not_wait_for_ever(stalled, monkeypatch, tmp_path):
    monkeypatch.setattr(log_files, "_CLOSE_S", 0.05)
    logs, _ = stalled
    write(logs, "worker-0", b"lost\n")
    (said,) = logs.close()
    assert said.startswith(f"the log directory {tmp_path} has taken nothing")
    assert "the last 5 bytes are not written" in said


@pytest.fixture
def logs(tmp_path):
    logs = LogFiles(os.fspath(tmp_path))
    yield logs
    logs.close()


def wait_until_written(logs, wait_until):
    wait_until(lambda: not logs._backlog.nbytes)


def test_each_task_has_a_log_without_labels(logs, tmp_path, wait_until):
    logs.take(Notice(0.0, "what the scheduler says is not kept"))
    write(logs, "worker-0", b"one\n")
    write(logs, "worker-0", b"caf\xe9 \x00\r \xf0\n")
    write(logs, "worker-0", b"10%", is_transient=True)
    write(logs, "worker-10", b"other\n")
    wait_until_written(logs, wait_until)
    assert sorted(os.listdir(tmp_path)) == ["worker-0.log", "worker-10.log"]
    written = (tmp_path / "worker-0.log").read_bytes()
    assert written == b"one\ncaf\xe9 \x00\r \xf0\n", "and not only once it is closed"
    assert (tmp_path / "worker-10.log").read_bytes() == b"other\n"


def test_logs_that_cannot_be_written_are_mentioned_once(logs, tmp_path, wait_until):
    (tmp_path / "worker-0.log").mkdir()
    write(logs, "worker-0", b"one\n")
    wait_until_written(logs, wait_until)
    (said,) = logs.look()
    assert said.startswith(f"cannot write the logs in {tmp_path}: ")
    write(logs, "worker-0", b"two\n")
    write(logs, "worker-10", b"three\n")
    wait_until_written(logs, wait_until)
    assert logs.look() == []
    assert (tmp_path / "worker-10.log").read_bytes() == b"three\n"


def test_a_disk_that_is_found_full_at_the_end_is_named_and_is_no_bug(tmp_path):
    logs = LogFiles(str(tmp_path))
    write(logs, "worker-0", b"a\n")
    wait_until(lambda: not logs._backlog.nbytes, "the line to be written")
    real = logs._files["worker-0"]

    class Full:
        def close(self):
            real.close()
            raise OSError(122, "Disk quota exceeded")

    logs._files["worker-0"] = Full()
    (said,) = logs.close()
    assert said == f"cannot write the logs in {tmp_path}: [Errno 122] Disk quota exceeded"
