"""~/.ssh/config and the host file together say how a host is reached."""

import pytest

from baryon.launcher.hostfile import HostLine
from baryon.launcher.ssh import SshConfig
from baryon.ps import UsageError

CONFIG = """
Host node1
    HostName 10.0.0.1
    Port 2200
    User alice
    IdentityFile ~/keys/one
    IdentitiesOnly yes
    UserKnownHostsFile /known/a /known/b

Host inner
    ProxyJump bob@gate:2222,middle
Host gate
    HostName gate.example
Host middle
    HostName middle.example
    ProxyJump none
Host a
    ProxyJump b
Host b
    ProxyJump a
Host behind
    ProxyCommand nc %h %p
Host *
    ConnectTimeout 5
"""


@pytest.fixture
def target(tmp_path, monkeypatch):
    """How the host of a line is reached."""
    monkeypatch.setenv("HOME", "/home/carol")
    path = tmp_path / "config"
    path.write_text(CONFIG)
    config = SshConfig(str(path))
    return lambda *line: config.target(HostLine(*line))


def test_the_configuration_says_where_a_name_leads(target):
    made = target("node1")
    assert (made.name, made.hostname, made.port, made.user) == ("node1", "10.0.0.1", 2200, "alice")
    assert made.identity_files == ("/home/carol/keys/one",)
    assert made.identities_only
    assert made.known_hosts[:2] == ("/known/a", "/known/b")
    assert made.key_name == "[10.0.0.1]:2200"


def test_the_host_file_goes_over_it(target):
    made = target("node1", None, "dave", 22)
    assert (made.hostname, made.port, made.user) == ("10.0.0.1", 22, "dave")
    assert made.key_name == "10.0.0.1"


def test_a_host_that_nothing_is_said_of(target, monkeypatch):
    monkeypatch.setenv("LOGNAME", "erin")
    made = target("elsewhere")
    assert (made.hostname, made.port, made.user) == ("elsewhere", 22, "erin")
    assert (made.jumps, made.proxy_command, made.identity_files) == ((), "", ())
    assert made.known_hosts[0] == "/home/carol/.ssh/known_hosts"


def test_jumps_come_in_order(target):
    jumps = target("inner").jumps
    assert [(jump.hostname, jump.port) for jump in jumps] == [
        ("gate.example", 2222),
        ("middle.example", 22),
    ]
    assert jumps[0].user == "bob"


def test_jumps_that_lead_back(target):
    with pytest.raises(UsageError, match="ProxyJump of a leads back to itself"):
        target("a")


def test_a_command_that_carries_the_connection(target):
    assert target("behind").proxy_command == "nc behind 22"


def test_without_a_file_of_ones_own_there_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert SshConfig().target(HostLine("a")).hostname == "a"


def test_a_file_that_is_named_must_be_there(tmp_path):
    with pytest.raises(UsageError, match=r"--ssh-config .*none: No such file or directory"):
        SshConfig(str(tmp_path / "none"))


def test_a_file_that_makes_no_sense(tmp_path):
    (tmp_path / "config").write_text("Host\n  what is this\n\x00")
    with pytest.raises(UsageError, match="ssh_config"):
        SshConfig(str(tmp_path / "config"))


def test_a_port_that_is_no_number(tmp_path):
    (tmp_path / "config").write_text("Host a\n  Port many\n")
    with pytest.raises(UsageError, match="Port many of a is not a number"):
        SshConfig(str(tmp_path / "config")).target(HostLine("a"))
