"""Results come back from hosts whole, into a directory for each; senders are processes."""

import ast
import hashlib
import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from baryon import launcher
from baryon.launcher.hosts import collect as collecting
from baryon.launcher.hosts import sender
from baryon.launcher.hosts.collect import collect
from baryon.launcher.ssh import remote
from baryon.ps import PeerError, ProtocolError
from tests.waiting import LIMIT_S

ODD = 'it\'s "odd" $HOME ü\n*'


@pytest.fixture
def dst(tmp_path):
    """The directory on the host, with results in it."""
    folder = tmp_path / "home" / "job"
    for path in ("out/a.params", "out/deep/b.params", "out/log.txt", f"out/{ODD}", "train.py"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(path.encode() * 100_000)
    return folder


@pytest.fixture
def fetch(tmp_path, dst):
    """Fetches from a sender that runs as on a host; Python there must not complain."""

    def fetch(*patterns, where="job", before=""):
        process = subprocess.Popen(
            ["sh", "-c", before + ' exec "$@"', "sh", sys.executable, sender.__file__],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={"HOME": os.fspath(tmp_path / "home"), "LC_ALL": "C"},
        )  # fmt: skip
        try:
            return collect(Pipes(process), where, patterns, os.fspath(tmp_path / "here"))
        finally:
            assert process.communicate(timeout=LIMIT_S)[1] == b""

    return fetch


class Pipes:
    def __init__(self, process):
        self.write, self.flush = process.stdin.write, process.stdin.flush
        self.readline, self.read = process.stdout.readline, process.stdout.read


def tree(folder):
    return {os.fspath(p.relative_to(folder)) for p in Path(folder).rglob("*") if not p.is_dir()}


@pytest.mark.parametrize(
    ("patterns", "paths"),
    [
        (["out/*.params"], {"out/a.params"}),
        (["out/**/*.params"], {"out/a.params", "out/deep/b.params"}),
        (["out"], {"out/a.params", "out/deep/b.params", "out/log.txt", f"out/{ODD}"}),
        (["*.py", "out/a*", "out/a*"], {"train.py", "out/a.params"}),
        (["out/[l]og.txt"], {"out/log.txt"}),
        (["nothing"], set()),
    ],
)
@pytest.mark.parametrize("where", ["job", "~/job", None])
def test_what_matches_comes_as_it_is(fetch, dst, tmp_path, patterns, paths, where):
    os.utime(dst / "out" / "a.params", (1, 1))
    (dst / "out" / "a.params").chmod(0o640)
    collected = fetch(*patterns, where=where or os.fspath(dst), before="echo noise;")
    assert (set(collected.paths), collected.problems) == (paths, [])
    here = tmp_path / "here"
    assert tree(here) == paths
    for path in paths:
        assert (here / path).read_bytes() == (dst / path).read_bytes()
        assert (here / path).stat().st_mtime == (dst / path).stat().st_mtime
        assert (here / path).stat().st_mode == (dst / path).stat().st_mode


def test_links_are_followed_inside_and_left_out_otherwise(fetch, dst, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (dst / "out" / "latest").symlink_to("a.params")
    (dst / "out" / "outside").symlink_to(tmp_path / "secret")
    (dst / "out" / "gone").symlink_to("nothing")
    (dst / "up").symlink_to(tmp_path)
    os.mkfifo(dst / "out" / "fifo")
    collected = fetch("out/*", "up/*")
    assert "out/latest" in collected.paths
    assert not (tmp_path / "here" / "out" / "latest").is_symlink()
    told = " ".join(collected.left_out)
    for name in ("out/outside", "out/gone", "out/fifo", "up"):
        assert repr(name) in told
    assert "secret" not in "".join(tree(tmp_path / "here"))


@pytest.mark.parametrize("pattern", ["*", "**", "**/*.params", "data/*/*", "data/1.params", "data"])
def test_a_data_set_behind_a_link_is_not_walked(fetch, dst, tmp_path, pattern):
    (tmp_path / "set").mkdir()
    for number in range(3):
        (tmp_path / "set" / f"{number}.params").write_text("")
    (dst / "data").symlink_to(tmp_path / "set")
    (dst / "round").symlink_to(dst)
    collected = fetch(pattern)
    assert collected.left_out == [f"'data' leads out of {os.fspath(dst)!r}"]
    assert len(collected.paths) == len(set(collected.paths)) >= (0 if "data" in pattern else 2)


def test_of_many_that_are_left_out_some_are_told(fetch, dst):
    for number in range(30):
        (dst / "out" / f"gone{number:02}").symlink_to("nothing")
    told = fetch("out/*").left_out
    assert told[0] == "'out/gone00': No such file or directory"
    assert told[19:] == ["'out/gone19': No such file or directory", "and 10 more"]


def test_a_file_that_cannot_be_read_does_not_keep_the_others(tmp_path):
    reason = b"Permission denied"
    aborted = sender.LENGTH.pack(sender.ABORT) + sender.LENGTH.pack(len(reason)) + reason
    files = [["a", 1, 1, 0o644], ["b", 4, 1, 0o644]]
    stream = answered(files, aborted + whole(b"good"))
    collected = collect(stream, "job", ["*"], os.fspath(tmp_path / "here"))
    assert collected.problems == ["'a' cannot be read: Permission denied"]
    assert tree(tmp_path / "here") == {"b"}


def test_the_sender_says_what_it_cannot_read(dst):
    told = io.BytesIO()
    sender._send(told, os.fsencode(dst / "none"))
    assert told.getvalue().endswith(b"No such file or directory")


def test_a_directory_that_is_not_there(fetch):
    with pytest.raises(PeerError, match="none' is not there any more"):
        fetch("*", where="none")


# -- a host that says what is not so ----------------------------------------------------------


def answered(files, rest=b"", **more):
    line = sender.MARK + json.dumps({"files": files, "left_out": [], **more}).encode()
    stream = io.BytesIO(line + b"\n" + rest)
    stream.write = lambda data: None
    return stream


def whole(data):
    return (
        sender.LENGTH.pack(len(data)) + data + sender.LENGTH.pack(0) + hashlib.sha256(data).digest()
    )


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x", "a/../../x", "a//b", "", ".", "a/.", "x\0y", "\ud800"]
)
def test_no_path_leads_out_of_the_directory(tmp_path, path):
    stream = answered([[path, 1, 1, 0o644]], whole(b"x"))
    with pytest.raises(ProtocolError, match="none below a directory"):
        collect(stream, "job", ["*"], os.fspath(tmp_path / "here"))
    assert tree(tmp_path) == set()


@pytest.mark.parametrize("files", [None, [None], [["a", 1, 1]], [["a", "1", 1, 1]], [[1, 1, 1, 1]]])
def test_a_list_that_is_none(tmp_path, files):
    with pytest.raises(ProtocolError, match="impossible list of files"):
        collect(answered(files), "job", ["*"], os.fspath(tmp_path / "here"))


@pytest.mark.parametrize("sign", [1, -1])
def test_times(tmp_path, sign):
    here = os.fspath(tmp_path / "here")
    with pytest.raises(ProtocolError, match="'a' with an impossible time"):
        collect(answered([["a", 1, sign * 10**30, 0o644]], whole(b"x")), "job", ["*"], here)
    stream = answered([["a", 1, sign * collecting._MAX_TIME_NS, 0o644]], whole(b"x"))
    assert collect(stream, "job", ["*"], here).paths == ["a"], "what utime can set, it may be"


@pytest.mark.parametrize("garbage", [b"[" * 100_000, b"\xff", b"1" * 10_000])
def test_an_answer_that_is_none(tmp_path, garbage):
    stream = io.BytesIO(sender.MARK + garbage + b"\n")
    stream.write = lambda data: None
    with pytest.raises(ProtocolError, match="garbled answer"):
        collect(stream, "job", ["*"], os.fspath(tmp_path / "here"))


def test_a_hosts_words_move_no_cursor(tmp_path):
    evil, here = "\x1b[2J\nnote: all well", os.fspath(tmp_path / "here")
    shown = r"\x1b[2J\nnote: all well"
    reason = sender.LENGTH.pack(sender.ABORT) + sender.LENGTH.pack(len(evil)) + evil.encode()
    collected = collect(answered([["a", 1, 1, 0]], reason, left_out=[evil]), "job", ["*"], here)
    assert collected.left_out == [shown]
    assert collected.problems == [f"'a' cannot be read: {shown}"]
    with pytest.raises(PeerError) as caught:
        collect(answered([], error=evil), "job", ["*"], here)
    assert str(caught.value) == shown
    with pytest.raises(ProtocolError) as caught:
        collect(answered([evil]), "job", ["*"], here)
    assert shown in str(caught.value)


def test_a_line_without_end(monkeypatch):
    monkeypatch.setattr(remote, "_MAX_LINE_NBYTES", 1000)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = object.__new__(remote.RemoteProcess)
        process._channel, process._rest = ours, b""
        theirs.sendall(b"x" * 999 + b"\n" + b"y" * 1001)
        assert process.readline() == b"x" * 999 + b"\n"
        with pytest.raises(OSError, match="a line of more than 1000 bytes"):
            process.readline()


@pytest.mark.parametrize("error", [PeerError("gone\nfor good"), OSError("gone\nfor good")])
def test_fetching_that_fails_does_not_hide_how_the_job_ended(monkeypatch, error):
    def finish(*_):
        raise error

    said = []
    monkeypatch.setattr(launcher, "finish", finish)
    assert launcher._finish(None, None, None, said.append) == 1
    assert said == ["error: gone", "error: for good"]


def test_damage_and_a_broken_connection(tmp_path):
    here, good = os.fspath(tmp_path / "here"), whole(b"good")
    bad = whole(b"bad")[:-1] + b"?"
    files = [["bad", 3, 1, 0o4644], ["good", 4, 1, 0o4644], ["a/b", 1, 1, 0o644]]
    collected = collect(answered(files[:2], bad + good), "job", ["*"], here)
    assert (collected.paths, collected.problems) == (["good"], ["'bad' arrived damaged"])
    assert os.stat(tmp_path / "here" / "good").st_mode & 0o7777 == 0o644
    with pytest.raises(PeerError, match="ended before all had come"):
        collect(answered(files, bad + good + sender.LENGTH.pack(1)), "job", ["*"], here)
    assert tree(tmp_path / "here") == {"good"}, "no part is left"


def test_a_file_where_a_directory_must_be(tmp_path):
    files = [["a", 1, 1, 0o644], ["a/b", 1, 1, 0o644]]
    with pytest.raises(PeerError, match=r"results were not all fetched: /.*/a: "):
        collect(answered(files, whole(b"x") * 2), "job", ["*"], os.fspath(tmp_path / "here"))


def test_old_pythons_understand_the_sender():
    ast.parse(Path(sender.__file__).read_text(encoding="utf-8"), feature_version=(3, 6))
