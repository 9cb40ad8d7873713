"""The check for what tests leave behind finds what is theirs, by name, and nothing of others."""

import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.leaks import Files, Leaks, check

HOLDS = """
import mmap, os, sys
path, how = sys.argv[1:]
if how == "inside":
    os.mkdir(path)
    held = open(path + "/file", "w")
else:
    held = open(path, "w+b")
    held.write(bytes(4096))
    held.flush()
if how == "mapped":
    mapped = mmap.mmap(held.fileno(), 4096)
    held.close()
print("made", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["open", "mapped", "inside"])
def test_a_file_is_another_jobs_while_that_has_it_and_ours_once_nobody_has(
    tmp_path: Path, how: str
) -> None:
    path, patterns = tmp_path / "baryon-1", [f"{tmp_path}/baryon-*"]
    files = Files(patterns)
    argv = [sys.executable, "-c", HOLDS, str(path), how]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"made\n"
        assert files.found() == []
    assert files.found() == [f"file {path}"]
    assert Files(patterns).found() == []  # it was there before
    with pytest.raises(AssertionError, match=f"left behind: file {path}"):
        check(files)


def test_a_thread_a_socket_and_a_process_are_named() -> None:
    leaks = Leaks()
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="straggler")
    thread.start()
    with subprocess.Popen(["sleep", "1000"]) as process, socket.socket() as left:
        found = leaks.found()
        end.set()
        process.kill()
        assert "thread straggler" in found
        assert f"process {process.pid} (sleep 1000)" in found
        assert any(name.startswith(f"descriptor {left.fileno()} of socket:") for name in found)
    thread.join()
    assert leaks.found() == []
