"""`baryon doctor` and what every job looks at first, on real hosts with real faults."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest

from tests.cluster import REPOSITORY
from tests.waiting import LIMIT_S

from .conftest import SshCluster

pytestmark = pytest.mark.hosts

COMMAND = "import sys; from baryon.launcher import baryon; sys.exit(baryon())"


def doctor(cluster: SshCluster, *args: object) -> Tuple[int, str, str]:
    given: List[object] = [] if "-H" in args else ["-H", cluster.bed.hostfile]
    if "--ssh-config" not in args:
        given += ["--ssh-config", cluster.bed.ssh_config]
    ended = subprocess.run(
        [sys.executable, "-c", COMMAND, "doctor", *map(str, [*given, *args])],
        cwd=cluster.cwd, env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S,
    )  # fmt: skip
    return ended.returncode, ended.stdout.decode(), ended.stderr.decode()


def test_hosts_that_are_well(cluster: SshCluster) -> None:
    code, out, err = doctor(cluster)
    assert (code, err) == (0, "")
    assert "no problem was found" in out
    for host in cluster.bed.hosts:
        (row,) = [line for line in out.splitlines() if f" {host.name} " in line]
        assert f" {host.address} " in row and " 1.9.1 " in row and " none " in row


def test_it_is_json_for_programs(cluster: SshCluster) -> None:
    code, out, _ = doctor(cluster, "--json")
    told: Dict[str, Any] = json.loads(out)
    assert (code, told["findings"]) == (0, [])
    assert [host["name"] for host in told["hosts"]] == [h.name for h in cluster.bed.hosts]
    assert [h["found"]["address"] for h in told["hosts"]] == [h.address for h in cluster.bed.hosts]


def test_all_that_is_wrong_is_told_at_once(cluster: SshCluster) -> None:
    """A host that is off, two that do not reach each other, and a directory that one lacks."""
    bed = cluster.bed
    bed.cut(bed.hosts[3])
    bed.block(bed.hosts[0], bed.hosts[1])
    empty = cluster.cwd / "empty"
    empty.mkdir()
    mount = bed.run(bed.hosts[2], ["mount", "--bind", empty, cluster.cwd])
    assert mount.wait() == 0
    cluster.script("", "train.py")
    code, out, _ = doctor(cluster, "train.py")
    assert bed.run(bed.hosts[2], ["umount", "-l", cluster.cwd]).wait() == 0
    assert code == 1
    assert "error: node4: root@" in out
    assert "error: node1: cannot reach node2; open all TCP ports between the hosts" in out
    assert "error: node2: cannot reach node1" in out, "no answer comes back"
    assert "error: node3: train.py is not in" in out
    assert "4 problems" in out


def test_a_job_that_would_fail_is_not_begun(cluster: SshCluster) -> None:
    cluster.bed.split([cluster.bed.hosts[0]], [cluster.bed.hosts[1]])
    run = cluster.run("-n", 3, cluster.script("print('ran')"), code=1)
    assert "error: node1: cannot reach node2" in run.err
    assert "ran" not in run.out
    assert not (cluster.cwd / "baryon-logs").exists()


def test_hosts_that_cannot_reach_this_machine_use_their_ssh_connection(
    cluster: SshCluster,
) -> None:
    """As behind NAT: no connection from a host gets here."""
    syn = ["OUTPUT", "-p", "tcp", "--syn", "-d", cluster.bed.driver_address, "-j", "DROP"]
    for host in cluster.bed.hosts[:2]:
        assert cluster.bed.run(host, ["iptables", "-A", *syn]).wait() == 0
    script = cluster.script("import mxnet as mx\nprint('rank', mx.kv.create('dist_sync').rank)\n")
    try:
        run = cluster.run("-n", 3, script)
    finally:
        for host in cluster.bed.hosts[:2]:
            assert cluster.bed.run(host, ["iptables", "-D", *syn]).wait() == 0
    assert run.out.count("rank") == 3
    assert "node1, node2: cannot reach this machine (NAT or a firewall)" in run.err


def test_tunnels_can_be_asked_for(cluster: SshCluster) -> None:
    script = cluster.script("import mxnet as mx\nprint('rank', mx.kv.create('dist_sync').rank)\n")
    run = cluster.start("-n", 2, "--tunnel", script)
    assert run.end() == 0, run.err
    assert run.out.count("rank") == 2


def test_addresses_of_version_6(cluster: SshCluster) -> None:
    """``[address]:port``, as whom and with what key the configuration says."""
    bed = cluster.bed
    if bed.hosts[0].address6 is None:
        pytest.skip("this kernel has no IPv6")
    config = cluster.cwd / "config"
    config.write_text(
        f"Host *\n    User root\n    IdentityFile {bed.client_key}\n"
        f"    UserKnownHostsFile {bed.known_hosts}\n"
    )
    hosts = cluster.cwd / "hosts"
    hosts.write_text(f"[{bed.hosts[0].address6}]:22\nroot@{bed.hosts[1].address6}\n")
    script = cluster.script(
        "import mxnet as mx\n"
        "kv = mx.kv.create('dist_sync')\n"
        "kv.init('w', mx.nd.ones(3))\n"
        "out = mx.nd.zeros(3)\n"
        "kv.pushpull('w', mx.nd.ones(3), out=out)\n"
        "print('sum', out.asnumpy())\n"
    )
    run = cluster.run("-n", 2, "-H", hosts, "--ssh-config", config, script)
    assert run.out.count("sum [2. 2. 2.]") == 2


def test_interface_by_name(cluster: SshCluster) -> None:
    code, out, _ = doctor(cluster, "--interface", "nowhere0")
    assert code == 1
    assert "no interface nowhere0 with an address; there are eth0 (10.77." in out
    assert doctor(cluster, "--interface", "nowhere0,eth0")[0] == 0


def test_a_host_that_lies_behind_another(cluster: SshCluster) -> None:
    """node2 is reached through node1 alone, and cannot reach this machine."""
    bed = cluster.bed
    config = cluster.cwd / "config"
    given = bed.ssh_config.read_text()
    config.write_text(given.replace("Host node2\n", "Host node2\n    ProxyJump node1\n"))
    bed.split(["driver"], [bed.hosts[1]])
    script = cluster.script("import mxnet as mx\nprint('rank', mx.kv.create('dist_sync').rank)\n")
    run = cluster.run("-n", 2, "--ssh-config", config, script)
    assert run.out.count("rank") == 2
    assert "node2: cannot reach this machine" in run.err


def known_hosts(cluster: SshCluster, text: str) -> Tuple[Path, Path]:
    """(an ssh configuration with known hosts of its own, that file)."""
    known, config = cluster.cwd / "known_hosts", cluster.cwd / "config"
    known.write_text(text)
    given = cluster.bed.ssh_config.read_text()
    config.write_text(given.replace(str(cluster.bed.known_hosts), str(known)))
    return config, known


def test_a_host_key_that_is_not_known(cluster: SshCluster) -> None:
    config, known = known_hosts(cluster, "# mine")
    script = cluster.script("print('ran')")
    run = cluster.run("-n", 2, "--ssh-config", config, script, code=1)
    assert run.err.count("key SHA256:") == 2
    assert "--accept-new-host-keys" in run.err
    assert known.read_text() == "# mine"
    cluster.run("-n", 2, "--ssh-config", config, "--accept-new-host-keys", script)
    assert known.read_text().startswith("# mine\n")
    assert known.read_text().count("ssh-ed25519 ") == 2
    cluster.run("-n", 2, "--ssh-config", config, script)


def test_a_host_key_that_has_changed_always_stops(cluster: SshCluster) -> None:
    lines = cluster.bed.known_hosts.read_text().splitlines()
    keys = [line.split()[2] for line in lines]
    text = "\n".join([lines[0].replace(keys[0], keys[1]), *lines[1:]])
    config, known = known_hosts(cluster, text)
    script = cluster.script("print('ran')")
    run = cluster.run("-n", 2, "--ssh-config", config, "--accept-new-host-keys", script, code=1)
    assert "node1: root@" in run.err and "host key has CHANGED" in run.err
    assert "node2" not in run.err
    assert "ran" not in run.out
    assert known.read_text() == text


def test_a_password_is_not_asked_for_without_a_terminal(cluster: SshCluster) -> None:
    config = cluster.cwd / "config"
    config.write_text(cluster.bed.ssh_config.read_text().replace("client_key", "no_key"))
    run = cluster.run("-n", 2, "--ssh-config", config, cluster.script(""), code=1)
    assert "none of your keys is accepted" in run.err
    assert "ssh-copy-id" in run.err
