"""A log directory is one job's at a time, and nothing in it is overwritten."""

import os
import signal

import pytest

from baryon.launcher.log_directory import LogDirectory
from baryon.ps import UsageError


@pytest.fixture
def said(folder):
    return []


def test_what_earlier_jobs_have_left_is_kept(folder, said):
    for text in ("first", "second", "third"):
        with LogDirectory("logs", said.append):
            (folder / "logs" / "worker-0.log").write_text(text)
            (folder / "logs" / "slurm-1.out").write_text("a manager's, with the job's own name")
    assert (folder / "logs" / "earlier-1" / "worker-0.log").read_text() == "first"
    assert (folder / "logs" / "earlier-2" / "worker-0.log").read_text() == "second"
    assert (folder / "logs" / "worker-0.log").read_text() == "third"
    assert said == [f"note: logs of an earlier job are in logs/earlier-{n} now" for n in (1, 2)]


def test_it_is_one_jobs_until_that_ends(folder, said):
    first = LogDirectory("logs", said.append)
    (folder / "logs" / "worker-0.log").write_text("first")
    with pytest.raises(UsageError, match="another job writes to logs; choose another --log-dir"):
        LogDirectory("logs", said.append)
    assert os.listdir("logs") == ["worker-0.log"]
    child = os.fork()
    if not child:  # the job goes on behind, as with --detach
        signal.pause()
        os._exit(0)
    first.close()
    with pytest.raises(UsageError, match="another job writes to logs"):
        LogDirectory("logs", said.append)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    LogDirectory("logs", said.append).close()


def test_one_that_cannot_be_made(folder, said):
    with pytest.raises(UsageError, match=r"train\.py/logs cannot be made .*--log-dir"):
        LogDirectory("train.py/logs", said.append)
