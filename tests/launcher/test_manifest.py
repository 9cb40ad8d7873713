"""What is found in a working directory, and what of Baryon a host needs."""

import os
import socket
import subprocess
import sys

import pytest

from baryon.launcher.hosts.manifest import Entry, Manifest, package_manifest, scan
from baryon.ps import UsageError


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def make(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(os.fsencode(path))


def found(root, **how):
    return {entry.path: entry.target or entry.kind for entry in scan(str(root), **how).entries}


# -- what is copied ----------------------------------------------------------------------------


def test_files_and_directories_with_what_must_be_kept(root):
    make(root, "b/c", "a")
    (root / "a").chmod(0o4750)
    (root / "b").chmod(0o550)
    os.utime(root / "a", ns=(7, 7))
    a, b, c = scan(str(root)).entries
    assert a == Entry("a", "file", 1, 7, 0o750, source=str(root / "a"))
    assert b == Entry("b", "dir", mode=0o750)
    assert (c.path, c.kind, c.size) == ("b/c", "file", 3)


def test_some_things_are_never_copied(root):
    make(
        root, ".git/x", "sub/.git", ".venv/x", "sub/__pycache__/x", "baryon-logs/j/x", ".a.py.swp",
        "sub/.#a.py", ".baryon-incoming-ab/0", "sub/git", ".gitignore", "baryon-logs.txt", "a.swp",
    )  # fmt: skip
    assert sorted(found(root)) == [".gitignore", "a.swp", "baryon-logs.txt", "sub", "sub/git"]


def test_the_ignore_file_is_a_gitignore(root):
    lines = ["# big", "*.rec", "!keep.rec", "/data/", "out/*", "!out/best", "", "sub/**/tmp", "a b"]
    (root / ".baryonignore").write_text("\n".join(lines))
    make(
        root, "x.rec", "keep.rec", "sub/y.rec", "data/x", "sub/data/x", "out/last", "out/best",
        "sub/p/q/tmp", "a b", "sub/tmp/x",
    )  # fmt: skip
    expected = [
        ".baryonignore", "keep.rec", "out", "out/best", "sub", "sub/data", "sub/data/x", "sub/p",
        "sub/p/q",
    ]  # fmt: skip
    assert sorted(found(root)) == expected


def test_what_is_always_ignored_may_be_taken_back(root):
    make(root, ".venv/x", ".git/x")
    (root / ".baryonignore").write_text("!.venv\n")
    assert sorted(found(root)) == [".baryonignore", ".venv", ".venv/x"]


def test_more_patterns_may_be_given(root):
    make(root, "logs/x", "a")
    assert found(root, also_ignored=["/logs"]) == {"a": "file"}


def test_bad_patterns_are_told_with_their_lines(root):
    (root / ".baryonignore").write_text("*.rec\n!\n# x\na[z-a]\n")
    with pytest.raises(UsageError) as caught:
        scan(str(root))
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{root}/.baryonignore:2: '!' is no pattern; write it as in")
    assert second.startswith(f"{root}/.baryonignore:4: 'a[z-a]' is no pattern")


def test_names_that_are_no_text_are_found(root):
    (root / ".baryonignore").write_bytes(b"*.rec\n\xff.x\n")
    make(root, "\udcff", "\udcff.rec", "a\nb", "日本")
    assert sorted(found(root)) == [".baryonignore", "a\nb", "日本", "\udcff"]


# -- links -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        ("../a", "../a"),
        ("nothing", "nothing"),
        ("link", "link"),
        ("{root}/a", "../a"),
        ("../../root/a", "../a"),
        ("..", ".."),
    ],
)
def test_a_link_that_stays_inside_is_kept(root, target, kept):
    make(root, "a", "sub/b")
    (root / "sub" / "link").symlink_to(target.format(root=root))
    assert found(root)["sub/link"] == kept


def test_what_a_link_leads_to_outside_is_copied(root, tmp_path):
    make(tmp_path, "out/f", "out/g/h", "one")
    (tmp_path / "out" / "inner").symlink_to("f")
    (root / "folder").symlink_to(tmp_path / "out")
    (root / "file").symlink_to("../one")
    assert found(root) == {
        "file": "file",
        "folder": "dir",
        "folder/f": "file",
        "folder/g": "dir",
        "folder/g/h": "file",
        "folder/inner": "file",
    }
    (entry,) = (entry for entry in scan(str(root)).entries if entry.path == "file")
    assert entry.size == 3


def test_a_link_to_nothing_outside_is_skipped_and_told(root):
    (root / "link").symlink_to("/nowhere/at/all")
    assert scan(str(root)) == Manifest(
        (), (f"'{root}/link' is a link to '/nowhere/at/all': No such file or directory",)
    )


@pytest.mark.parametrize("target", ["{root}/..", "/", "{root}/../out"])
def test_a_link_that_leads_to_itself_is_a_fault(root, tmp_path, target):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "again").symlink_to(tmp_path / "out")
    (root / "up").symlink_to(target.format(root=root))
    with pytest.raises(UsageError, match=r"root/up\S* leads to a directory that it lies in"):
        scan(str(root))
    (root / ".baryonignore").write_text("up\n")
    assert found(root) == {".baryonignore": "file"}


# -- what cannot be copied ---------------------------------------------------------------------


def test_what_is_no_file_is_skipped_and_told(root, tmp_path, monkeypatch):
    os.mkfifo(root / "fifo")
    monkeypatch.chdir(root)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        (root / "device").symlink_to("/dev/null")
        entries, skipped = scan(str(root))
    assert entries == ()
    assert skipped == tuple(
        f"'{root}/{name}' is neither a file nor a directory"
        for name in ("device", "fifo", "socket")
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_all_that_cannot_be_read_is_told_at_once(root, open_to_all):
    make(root, "a", "b", "sub/c", "ignored")
    (root / ".baryonignore").write_text("ignored\n")
    for path in ("a", "b", "sub", "ignored"):
        (root / path).chmod(0)
    (root / ".baryonignore").chmod(0o644)
    open_to_all(root)
    os.seteuid(65534)
    try:
        with pytest.raises(UsageError) as caught:
            scan(str(root))
    finally:
        os.seteuid(0)
    assert str(caught.value).splitlines() == [
        f"'{root}/{name}' cannot be read: Permission denied; make it readable or exclude it in "
        ".baryonignore"
        for name in ("a", "b", "sub")
    ]


def test_a_directory_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere' cannot be read: No such file or directory"):
        scan(str(tmp_path / "nowhere"))


# -- Baryon itself -----------------------------------------------------------------------------


def test_baryon_itself_runs_where_it_was_delivered(tmp_path):
    manifest = package_manifest(["pyzmq", "msgspec", "psutil"])
    paths = [entry.path for entry in manifest.entries]
    assert len(set(paths)) == len(paths)
    assert not [path for path in paths if "__pycache__" in path or ".." in path]
    assert not [path for path in paths if path.startswith("baryon/launcher")]
    assert "baryon/worker/hook/sitecustomize.py" in paths
    for entry in manifest.entries:
        place = tmp_path / entry.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(entry.source)
    code = (
        "import baryon.ps.transport.security, zmq, msgspec, psutil, importlib.metadata;"
        "print(baryon.__file__, zmq.__file__, msgspec.__file__, psutil.__file__);"
        "importlib.metadata.version('pyzmq'); assert zmq.curve_keypair()"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, check=False, cwd="/",
        env={"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert out.returncode == 0
    assert out.stdout.decode().split() == [
        f"{tmp_path}/{name}/__init__.py" for name in ("baryon", "zmq", "msgspec", "psutil")
    ]


def test_what_is_not_installed_is_told_at_once():
    with pytest.raises(UsageError) as caught:
        package_manifest(["no-such-thing", "psutil", "nor-this"])
    assert [line.split()[0] for line in str(caught.value).splitlines()] == [
        "no-such-thing",
        "nor-this",
    ]
