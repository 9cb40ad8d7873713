"""What ``baryon status`` says of a job that does not answer."""

import socket
import subprocess

import psutil
import pytest

from baryon.launcher import baryon
from baryon.launcher.records import Record, save


@pytest.mark.hosts
@pytest.mark.parametrize(
    ("before", "words"),
    [
        ([], "it has not answered yet; it may be starting"),
        (
            ["unshare", "-n"],
            "it answers only in its own container (network namespace)",
        ),
    ],
)
def test_why_a_job_does_not_answer(monkeypatch, tmp_path, capsys, before, words):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    command = [*before, "sh", "-c", "echo; exec cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        save(
            Record(
                job="silent", command=["cat"], launcher="local", machine=socket.gethostname(),
                pid=process.pid, pid_time=psutil.Process(process.pid).create_time(),
                output="", run="silent", log_dir="",
            )
        )  # fmt: skip
        assert baryon(["status", "silent"]) == 0
        process.stdin.close()
    assert capsys.readouterr().out.splitlines()[-1] == words
