"""Files reach a host whole or not at all, and only those that it lacks; receivers are processes."""

import ast
import contextlib
import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from baryon.launcher.hosts import receiver
from baryon.launcher.hosts.delivery import Progress, deliver, receiver_source
from baryon.launcher.hosts.manifest import Entry, Manifest, scan
from baryon.ps import PeerError, ProtocolError, UsageError
from tests.waiting import LIMIT_S, wait_until


class Pipes:
    """A receiver as a process, and the stream that reaches it."""

    alive: ClassVar[list] = []

    def __init__(self, home, before="", as_user=None):
        source = receiver_source().encode()
        code = f"import sys;exec(sys.stdin.buffer.read({len(source)}))"
        if as_user is not None:
            modules = "contextlib,hashlib,json,os,shutil,signal,struct,tempfile,typing"
            code = f"import {modules};os.setuid({as_user});{code}"  # who may not read Python's
        command = [sys.executable, "-c", code]
        if before:
            command = ["sh", "-c", before + ' exec "$@"', "sh", *command]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={"HOME": str(home), "LC_ALL": "C"},
        )  # fmt: skip
        self.alive.append(self)
        self.write(source)
        self.readline = self.process.stdout.readline

    def write(self, data):
        self.process.stdin.write(data)

    def flush(self):
        self.process.stdin.flush()

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(LIMIT_S)
        self.alive.remove(self)
        complaint = self.process.stderr.read()
        self.process.stdout.close()
        self.process.stderr.close()
        return complaint.decode()


@pytest.fixture(autouse=True)
def no_receiver_is_left():
    yield
    for pipes in list(Pipes.alive):
        pipes.process.kill()
        pipes.close()


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def send(home, root):
    """Delivers ``root`` (or a manifest) to ``dst``; Python on the host must not complain."""

    def send(dst="dst", manifest=None, on_progress=lambda progress: None, **how):
        pipes = Pipes(home, **how)
        try:
            return deliver(pipes, "h1", str(dst), manifest or scan(str(root)), on_progress)
        finally:
            assert pipes.close() == ""

    return send


def tree(folder):
    """All below ``folder``: what a file holds, where a link leads, None for a directory."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = path.read_bytes() if path.is_file() else None
    return found


def fill(folder, **files):
    for name, text in files.items():
        (folder / name).write_text(text)


# -- what arrives ------------------------------------------------------------------------------


def test_everything_arrives_as_it_is(home, root, send):
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "train.py").write_text("print(1)\n")
    (root / "train.py").chmod(0o750)
    (root / "sub" / "data").write_bytes(bytes(range(256)) * 5000)
    (root / "nothing").write_text("")
    (root / "sub" / "link").symlink_to("../train.py")
    os.utime(root / "train.py", ns=(1, 1234567890123456789))
    delivered = send()
    assert delivered.dst == str(home / "dst")
    assert delivered.num_sent == 6
    assert delivered.nbytes == 9 + 256 * 5000
    assert tree(home / "dst") == tree(root)
    status = (home / "dst" / "train.py").stat()
    assert status.st_mode & 0o7777 == 0o750
    assert status.st_mtime_ns == 1234567890123456789


def test_what_is_there_already_is_not_sent_again(home, root, send):
    fill(root, a="a", b="b")
    (root / "sub").mkdir()
    (root / "link").symlink_to("a")
    assert send().num_sent == 4
    assert send() == (str(home / "dst"), 0, 0)


def test_of_a_thousand_files_the_changed_one_is_sent(home, root, send):
    for index in range(1000):
        (root / str(index)).write_text(str(index))
    assert send().num_sent == 1000
    inodes = {path.name: path.stat().st_ino for path in (home / "dst").iterdir()}
    (root / "500").write_text("changed")
    assert send() == (str(home / "dst"), 1, len("changed"))
    assert tree(home / "dst") == tree(root)
    changed = [p.name for p in (home / "dst").iterdir() if p.stat().st_ino != inodes[p.name]]
    assert changed == ["500"]


@pytest.mark.parametrize("change", ["size", "mtime", "mode", "target", "kind"])
def test_each_kind_of_change_is_noticed(home, root, send, change):
    fill(root, a="a", b="b")
    (root / "link").symlink_to("a")
    send()
    if change == "size":
        (root / "a").write_text("longer")
    elif change == "mtime":
        os.utime(root / "a", ns=(5, 5))
    elif change == "mode":
        (root / "a").chmod(0o700)
    else:
        (root / "link").unlink()
        (root / "link").symlink_to("b") if change == "target" else fill(root, link="text")
    assert send().num_sent == 1
    assert tree(home / "dst") == tree(root)
    assert (home / "dst" / "a").stat().st_mode == (root / "a").stat().st_mode
    assert send().num_sent == 0


def test_a_file_system_that_keeps_whole_seconds_does_not_get_all_again(home, root, send):
    fill(root, a="a")
    os.utime(root / "a", ns=(1_700_000_000_123_456_789,) * 2)
    send()
    os.utime(home / "dst" / "a", ns=(1_700_000_000_000_000_000,) * 2)
    assert send().num_sent == 0


def test_a_directory_that_exists_keeps_its_permissions(home, root, send):
    (root / "new").mkdir(mode=0o750)
    (root / "old").mkdir(mode=0o755)
    (home / "dst" / "old").mkdir(parents=True)
    (home / "dst" / "old").chmod(0o2770)
    assert send().num_sent == 1
    assert (home / "dst" / "old").stat().st_mode & 0o7777 == 0o2770
    assert (home / "dst" / "new").stat().st_mode & 0o7777 == 0o750


def test_nothing_on_the_host_is_deleted_and_its_links_do_not_leak_out(home, root, send):
    (home / "dst").mkdir()
    fill(home / "dst", mine="mine")
    fill(home, secret="secret")
    (home / "dst" / "a").symlink_to("../secret")
    fill(root, a="a")
    send()
    assert tree(home / "dst") == {"a": b"a", "mine": b"mine"}
    assert (home / "secret").read_text() == "secret"


WEIRD = [
    "a b", " ", "'", '"', "\\", "$HOME", "`x`", "*", "-n", "~", "a\nb", "\n", "\t", "日本", "%s",
    "ä", "\udcff\udc80", "\x01", "n" * 255, "..a", "...", "CON", "a\rb",
]  # fmt: skip


def test_any_name_arrives(home, root, send):
    deep = root.joinpath(*["d" * 74] * 4)
    deep.mkdir(parents=True)
    (deep / "file").write_text("deep")
    assert len(str((deep / "file").relative_to(root))) > 300
    for name in WEIRD:
        (root / name).write_text(ascii(name))
    (root / "a\n'link").symlink_to("a\nb")
    send(dst="a b'\n日本/c")
    assert tree(home / "a b'\n日本" / "c") == tree(root)
    assert send(dst="a b'\n日本/c").num_sent == 0


@pytest.mark.parametrize(
    ("dst", "place"), [("~/x", "x"), ("~", "."), ("x/../y", "y"), ("./x", "x")]
)
def test_where_dst_is(home, root, send, dst, place):
    fill(root, a="a")
    assert send(dst=dst).dst == str((home / place).resolve())
    assert (home / place / "a").read_text() == "a"


def test_an_absolute_dst(root, tmp_path, send):
    fill(root, a="a")
    assert send(dst=tmp_path / "x" / "y").dst == str(tmp_path / "x" / "y")
    assert tree(tmp_path / "x" / "y") == tree(root)


def test_what_login_scripts_print_is_skipped(root, send):
    fill(root, a="a")
    assert send(before="echo hello; printf 'no newline';").num_sent == 1


def test_progress_is_told(root, send):
    fill(root, a="a" * 1_000_000, b="b")
    told = []
    send(on_progress=told.append)
    assert told[0] == Progress(0, 2, 0, 1_000_001)
    assert told[-1] == Progress(2, 2, 1_000_001, 1_000_001)
    assert told == sorted(told)
    assert len(told) > 4


# -- what cannot be ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "here", "words"),
    [
        ("a/x", "a", "'a' is a directory on the host, and a file here"),
        ("a", "a/x", "'a' is no directory on the host, and a dir here"),
    ],
)
def test_a_file_where_a_directory_must_be(home, root, send, there, here, words):
    for path in (home / "dst" / there, root / here):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    fill(root, b="b")
    before = tree(home)
    with pytest.raises(PeerError, match=words):
        send()
    assert tree(home) == before


def test_a_link_where_a_directory_must_be_is_not_followed(home, send, tmp_path):
    (home / "dst").mkdir()
    (home / "dst" / "sub").symlink_to(tmp_path)
    file = Entry("sub/a", "file", 0, 0, 0o644, source=os.devnull)
    with pytest.raises(PeerError, match="h1: 'sub' is no directory on the host, but must be"):
        send(manifest=Manifest((file,)))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "path", ["../a", "a/../../b", "/etc/x", "", ".", "a//b", "a/", "a/./b", "a\0b", "..", "a/.."]
)
def test_a_manifest_that_leaves_its_directory_is_refused(home, send, path):
    file = Entry(path, "file", 0, 0, 0o644, source=os.devnull)
    with pytest.raises(PeerError, match="impossible path"):
        send(manifest=Manifest((file,)))
    assert tree(home) == {}


@pytest.mark.parametrize("target", ["/etc", "..", "../x", "a/../../x", "//etc"])
def test_a_link_that_leaves_is_refused(home, send, target):
    with pytest.raises(PeerError, match="the link 'a' leads out of the directory"):
        send(manifest=Manifest((Entry("a", "link", target=target),)))
    assert tree(home) == {}


@pytest.mark.parametrize("second", ["a", "a/b"])
def test_a_manifest_that_contradicts_itself_is_refused(home, send, second):
    entries = (Entry("a", "link", target="b"), Entry(second, "dir", mode=0o755))
    with pytest.raises(PeerError, match=r"impossible path|as a link and as a directory"):
        send(manifest=Manifest(entries))
    assert tree(home) == {}


def libc_mount(*arguments):
    if ctypes.CDLL(None, use_errno=True).mount(*arguments) != 0:
        number = ctypes.get_errno()
        if number in (errno.EPERM, errno.EACCES):
            pytest.skip("only root may mount")
        raise OSError(number, os.strerror(number))


@pytest.fixture
def small_disk(home):
    """A file system of 1 MiB, mounted at dst."""
    place = home / "dst"
    place.mkdir()
    libc_mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, b"size=1m")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(root, send, small_disk):
    fill(small_disk, a="old")
    fill(root, a="new", b="b" * (2 << 20))
    with pytest.raises(PeerError) as caught:
        send()
    assert str(caught.value).startswith(f"h1: '{small_disk}/b': the disk is full; free some space")
    assert tree(small_disk) == {"a": b"old"}
    (root / "b").write_text("small")
    assert send().num_sent == 2


def test_a_read_only_disk(root, send, small_disk):
    fill(root, a="a")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(PeerError, match="dst': the file system is read-only; choose another"):
        send()


def test_a_mount_below_the_directory(root, send, small_disk):
    fill(root, a="a")
    (root / "dst").mkdir()
    fill(root / "dst", x="x")
    with pytest.raises(PeerError, match="dst/x': another file system is mounted below"):
        send(dst=small_disk.parent)
    assert not list(small_disk.parent.glob(receiver.STAGING + "*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_directory_that_one_may_not_write(tmp_path_factory, root, send, open_to_all):
    top = tmp_path_factory.mktemp("open")
    open_to_all(top)
    fill(root, a="a")
    with pytest.raises(PeerError, match=f"{top}': you may not write there; choose another dir"):
        send(dst=top, as_user=65534)
    with pytest.raises(PeerError, match=f"{top}/x': you may not write there"):
        send(dst=top / "x", as_user=65534)
    assert tree(top) == {}


def test_a_name_that_is_too_long(home, send):
    file = Entry("n" * 256, "file", 0, 0, 0o644, source=os.devnull)
    with pytest.raises(PeerError, match="the path is too long for the host"):
        send(manifest=Manifest((file,)))
    assert tree(home / "dst") == {}


def test_a_user_that_does_not_exist(home, send):
    with pytest.raises(PeerError, match="'~nobody-here/x': there is no such user on the host"):
        send(dst="~nobody-here/x", manifest=Manifest(()))
    assert tree(home) == {}


# -- what goes wrong on the way ----------------------------------------------------------------


@pytest.mark.parametrize("change", ["grows", "shrinks", "goes", "is rewritten"])
def test_a_file_that_changes_while_it_is_copied(home, root, send, change):
    fill(root, a="a", b="b" * 1000)
    manifest = scan(str(root))
    if change == "goes":
        (root / "b").unlink()
    else:
        size = {"grows": 1001, "shrinks": 999, "is rewritten": 1000}[change]
        (root / "b").write_text("c" * size)
    with pytest.raises(UsageError, match=r"root/b' (changed while it was copied|cannot be read)"):
        send(manifest=manifest)
    assert tree(home / "dst") == {}


class Damaged(Pipes):
    """Changes one byte of the file's data on the way."""

    def write(self, data):
        super().write(data.replace(b"precious", b"Precious"))


def test_damage_on_the_way_is_noticed(home, root):
    fill(root, a="precious")
    pipes = Damaged(home)
    with pytest.raises(PeerError, match="h1: 'a' arrived damaged; try again"):
        deliver(pipes, "h1", "dst", scan(str(root)))
    assert pipes.close() == ""
    assert tree(home / "dst") == {}


def half(home, root):
    """A delivery of which half has come: the receiver waits for more of the second file."""
    fill(root, a="a" * 10, b="b" * 10)
    pipes = Pipes(home)
    files = [entry[:6] for entry in scan(str(root)).entries]
    pipes.write(json.dumps({"dst": "dst", "files": files}).encode() + b"\n")
    pipes.flush()
    while b"need" not in pipes.readline():
        pass
    digest = receiver.hashlib.sha256(b"a" * 10).digest()
    pipes.write(b"\0\0\0\x0a" + b"a" * 10 + b"\0\0\0\0" + digest + b"\0\0\0\x0a" + b"bb")
    pipes.flush()
    staged = receiver.STAGING + "*/*"
    wait_until(lambda: len(list((home / "dst").glob(staged))) == 2, "the second file")
    return pipes


def test_a_sender_that_dies_leaves_nothing(home, root):
    assert half(home, root).close() == ""
    assert tree(home / "dst") == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_receiver_that_is_told_to_end_leaves_nothing(home, root, number):
    pipes = half(home, root)
    pipes.process.send_signal(number)
    assert pipes.process.wait(LIMIT_S) == 128 + number
    assert pipes.close() == ""
    assert tree(home / "dst") == {}


def test_what_a_killed_receiver_leaves_goes_with_the_next_delivery(home, root, send):
    pipes = half(home, root)
    pipes.process.kill()
    pipes.close()
    (left,) = (home / "dst").glob(receiver.STAGING + "*")
    send()
    assert left.exists()  # somebody may be at it
    os.utime(left, (1, 1))
    fill(root, c="c")
    send()
    assert tree(home / "dst") == tree(root)


def test_the_staging_directory_of_a_delivery_under_way_is_left_alone(home, root, send):
    pipes = half(home, root)
    fill(root, c="c")
    send()
    assert list((home / "dst").glob(receiver.STAGING + "*/*"))
    assert pipes.close() == ""
    assert tree(home / "dst") == tree(root)


class Canned:
    """A host that answers with these lines, whatever it is told."""

    def __init__(self, *lines):
        self._lines = list(lines)

    def write(self, data):
        pass

    def flush(self):
        pass

    def readline(self):
        return self._lines.pop(0) if self._lines else b""


@pytest.mark.parametrize(
    ("lines", "error", "words"),
    [
        ([], PeerError, "h1: its Python ended without an answer about the files; check that"),
        ([b"sh: no python3\n", b"\n"], PeerError, "its last line was 'sh: no python3'"),
        ([b"y\n"] * 20_000, ProtocolError, "h1: its login scripts print without end"),
        ([b"BARYON-FILES {\n"], ProtocolError, "h1: garbled answer"),
        ([b"BARYON-FILES []\n"], ProtocolError, "h1: garbled answer"),
        ([b"BARYON-FILES \xff\n"], ProtocolError, "h1: garbled answer"),
        ([b'BARYON-FILES {"need": [5], "dst": "/x"}\n'], ProtocolError, "impossible answer"),
        ([b'BARYON-FILES {"need": [true], "dst": "/x"}\n'], ProtocolError, "impossible answer"),
        ([b'BARYON-FILES {"need": []}\n'], ProtocolError, "impossible answer"),
        ([b'BARYON-FILES {"need": [], "dst": "/x"}\n'], PeerError, "ended without an answer"),
        (
            [b'BARYON-FILES {"need": [], "dst": "/x"}\n', b'BARYON-FILES {"done": 1}\n'],
            ProtocolError,
            "0 files were sent, but it says 1",
        ),
        ([b'BARYON-FILES {"error": "one\\ntwo"}\n'], PeerError, "^h1: one\nh1: two$"),
    ],
)
def test_hosts_that_answer_wrongly(lines, error, words):
    with pytest.raises(error, match=words):
        deliver(Canned(*lines), "h1", "dst", Manifest(()))


def test_a_connection_that_breaks_is_told_with_the_hosts_last_words():
    class Broken(Canned):
        def write(self, data):
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.raises(PeerError, match=r"^h1: the disk is full$"):
        deliver(Broken(b'BARYON-FILES {"error": "the disk is full"}\n'), "h1", "d", Manifest(()))
    with pytest.raises(PeerError, match=r"^h1: its Python ended without an answer"):
        deliver(Broken(), "h1", "d", Manifest(()))


@pytest.mark.parametrize(
    "line", [b"garbage\n", b"[]\n", b"{}\n", b'{"dst": 1, "files": []}\n', b"\xff\n"]
)
def test_a_receiver_that_gets_garbage_says_so(home, line):
    pipes = Pipes(home)
    pipes.write(line)
    pipes.flush()
    assert pipes.readline() == b"\n"
    assert "malformed" in json.loads(pipes.readline()[len(receiver.MARK) :])["error"]
    assert pipes.close() == ""
    assert tree(home) == {}


def test_the_receiver_is_python_3_6_and_needs_nothing_else():
    source = receiver_source()
    ast.parse(source, feature_version=(3, 6))
    # -I and -S leave the standard library only
    done = subprocess.run([sys.executable, "-I", "-S", "-c", source], input=b"", check=False)
    assert done.returncode == 1
