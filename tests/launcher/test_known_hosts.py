"""known_hosts files as OpenSSH has them."""

import base64
import subprocess

import pytest

from baryon.launcher.ssh.known_hosts import KnownHosts

KEY, OTHER = b"\0\0\0\x0bone", b"\0\0\0\x0btwo"
ONE, TWO = (base64.b64encode(key).decode() for key in (KEY, OTHER))


@pytest.fixture
def lookup(tmp_path):
    """The keys that a file gives for a name."""

    def lookup(text, name):
        path = tmp_path / "known_hosts"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return {key for _, key in KnownHosts([str(path)]).lookup(name).keys}

    return lookup


@pytest.mark.parametrize(
    ("names", "name", "is_meant"),
    [
        ("node1", "node1", True),
        ("node1,10.0.0.1", "10.0.0.1", True),
        ("Node1", "node1", True),
        ("node1", "NODE1", True),
        ("node1", "node11", False),
        ("node1", "[node1]:2222", False),
        ("[node1]:2222", "[node1]:2222", True),
        ("*.example", "a.example", True),
        ("*.example,!bad.example", "bad.example", False),
        ("node?", "node7", True),
        ("node.", "node1", False),
    ],
)
def test_names_and_patterns(lookup, names, name, is_meant):
    assert lookup(f"{names} ssh-ed25519 {ONE}\n", name) == ({KEY} if is_meant else set())


def test_hashed_names(tmp_path):
    path = tmp_path / "known_hosts"
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    public = (tmp_path / "key.pub").read_text().split()
    path.write_text(f"node1 {public[0]} {public[1]}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(path)], check=True, capture_output=True)
    assert "node1" not in path.read_text()
    known = KnownHosts([str(path)])
    assert known.lookup("node1").keys == {("ssh-ed25519", base64.b64decode(public[1]))}
    assert not known.lookup("node2").keys


def test_several_keys_of_one_kind(lookup):
    assert lookup(f"a ssh-ed25519 {ONE}\na ssh-ed25519 {TWO} comment here\n", "a") == {KEY, OTHER}


@pytest.mark.parametrize(
    "odd",
    [
        "# a comment\n",
        "\n",
        "a\n",
        "a ssh-ed25519 not*base64\n",
        f"@cert-authority a ssh-ed25519 {TWO}\n",
        f"a  ssh-ed25519 {ONE[:-1]}\n",
        "|1|nonsense ssh-ed25519 " + TWO + "\n",
        b"\xff\xfe a b c\n".decode("latin-1"),
    ],
)
def test_a_line_that_says_nothing_hides_no_other(lookup, odd):
    text = odd.encode("latin-1") + f"a ssh-ed25519 {ONE}\n".encode()
    assert lookup(text, "a") == {KEY}


def test_a_key_that_is_revoked(tmp_path):
    path = tmp_path / "known_hosts"
    path.write_text(f"@revoked * ssh-ed25519 {ONE}\nnode1 ssh-ed25519 {ONE}\n")
    assert KnownHosts([str(path)]).lookup("node1").revoked == {("ssh-ed25519", KEY)}


def test_files_that_are_not_there_know_nothing(tmp_path):
    assert KnownHosts([str(tmp_path / "none"), str(tmp_path)]).lookup("a").keys == frozenset()
