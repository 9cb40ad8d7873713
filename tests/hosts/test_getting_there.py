"""How files, Baryon itself and odd names get to hosts, and what a host may be like."""

import os
import re
import sys
from pathlib import Path
from typing import Iterator, List

import pytest

from baryon.launcher.hosts.survey import HOME
from deploy.testbed import Host, Testbed

from .conftest import SshCluster

pytestmark = pytest.mark.hosts

STORE = "import mxnet as mx\nkv = mx.kv.create('dist_sync')\n"
ODD = 'it\'s "odd" $HOME `id` ü 日本\n*'


@pytest.fixture
def hide(cluster: SshCluster, tmp_path: Path) -> Iterator[object]:
    """Make directories look empty to a host, until the test is over."""
    hidden: List[List[object]] = []
    empty = tmp_path / "empty"
    empty.mkdir()

    def hide(host: Host, *paths: object) -> None:
        for path in paths:
            assert cluster.bed.run(host, ["mount", "--bind", empty, str(path)]).wait() == 0
            hidden.append([host, path])

    yield hide
    for host, path in reversed(hidden):
        assert cluster.bed.run(host, ["umount", "-l", str(path)]).wait() == 0


def test_working_directory_is_copied_where_it_is_changed(cluster: SshCluster) -> None:
    cluster.script(STORE + "print(open('data/' + str(kv.rank)).read(), __file__)\n")
    (cluster.cwd / "data").mkdir()
    for rank in range(2):
        (cluster.cwd / "data" / str(rank)).write_text(f"data of {rank}")
    (cluster.cwd / "secrets").write_text("stay here")
    (cluster.cwd / ".baryonignore").write_text("secrets\n")
    flags = ["-n", 2, "--sync-dst-dir", "~/copied here"]
    run = cluster.run(*flags, "script.py")
    assert "worker 0 | data of 0 " in run.out and "worker 1 | data of 1 " in run.out
    assert "copied 10 files and directories" in run.err
    for host in cluster.bed.hosts[:2]:
        there = host.home / "copied here"
        assert not (there / "secrets").exists()
        assert (there / "data" / "1").read_text() == "data of 1"
    (cluster.cwd / "data" / "1").write_text("other data of 1")
    run = cluster.run(*flags, "script.py")
    assert "worker 1 | other data of 1 " in run.out
    assert "copied 2 files and directories" in run.err, "one on each host"


def test_disk_full_while_copying_stops_the_job(cluster: SshCluster) -> None:
    """Nothing is begun, and what was there before is still whole."""
    node2 = cluster.bed.hosts[1]
    small = node2.home / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small]
    assert cluster.bed.run(node2, mount).wait() == 0
    cluster.script("print('ran')")
    (cluster.cwd / "big").write_bytes(os.urandom(1 << 20))
    run = cluster.run("-n", 2, "--sync-dst-dir", "~/small", "script.py", code=1)
    assert "node2: " in run.err and "the disk is full" in run.err
    assert "ran" not in run.out
    assert cluster.bed.run(node2, ["sh", "-c", f'test -z "$(ls -A {small})"']).wait() == 0
    assert cluster.bed.run(node2, ["umount", small]).wait() == 0


def test_baryon_and_its_libraries_are_brought_to_a_host_that_lacks_them(
    cluster: SshCluster, hide: object
) -> None:
    """Which has nothing but Python, NumPy and MXNet."""
    import cloudpickle  # type: ignore[import-untyped]
    import msgspec
    import psutil
    import safetensors
    import zmq

    node2 = cluster.bed.hosts[1]
    needed = (zmq, msgspec, psutil, cloudpickle, safetensors)
    modules = [Path(module.__file__).parent for module in needed]
    hide(node2, Path(HOME) / "baryon", *modules)  # type: ignore[operator]
    script = cluster.script(
        STORE + "import socket\n"
        "kv.init('w', mx.nd.ones(3))\n"
        "out = mx.nd.zeros(3)\n"
        "kv.pushpull('w', mx.nd.ones(3), out=out)\n"
        "import baryon\n"
        "print('sum', out.asnumpy(), baryon.__file__)\n"
    )
    run = cluster.run("-n", 2, script)
    assert run.out.count("sum [2. 2. 2.]") == 2
    assert "copied baryon to node2" in run.err
    (line,) = [line for line in run.out.splitlines() if line.startswith("worker 1 | ")]
    assert f"{node2.home}/.cache/baryon/" in line


@pytest.mark.parametrize("name", [ODD, "deep/" * 20 + "x" * 210], ids=["odd", "300 characters"])
def test_directories_and_scripts_of_any_name(cluster: SshCluster, name: str) -> None:
    folder = cluster.cwd / name
    folder.mkdir(parents=True)
    assert name == ODD or len(str(folder)) > 300
    script = folder / "tr ain\n'.py"
    script.write_text("import os, sys\nprint(ascii([os.getcwd(), *sys.argv]))\n", encoding="utf-8")
    cluster.cwd = folder
    run = cluster.run("-n", 2, script.name, "an argument", "", "'", '"', "$x", "\n")
    expected = ascii([str(folder), script.name, "an argument", "", "'", '"', "$x", "\n"])
    assert run.out.count(expected) == 2
    run = cluster.run("-n", 2, "--sync-dst-dir", "~/a copy " + ODD, script.name)
    assert run.out.count(ascii(script.name)) == 2


@pytest.fixture(scope="module")
def odd_bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    """Hosts whose root has csh, a .bashrc that prints, and a home that cannot be written to."""
    base = tmp_path_factory.getbasetemp()
    with Testbed(
        2,
        tmp_path_factory.mktemp("odd") / "bed",
        shared=[base],
        shell="/bin/tcsh",
        bashrc="echo noise from bashrc; echo more >&2\n",
        read_only_home=True,
    ) as bed:
        for host in bed.hosts:
            (host.home / ".cshrc").write_text("echo noise from cshrc\n")
        yield bed


def test_csh_noise_and_a_read_only_home(odd_bed: Testbed, tmp_path: Path) -> None:
    cluster = SshCluster(tmp_path, odd_bed)
    try:
        script = cluster.script("import os\nprint(os.environ['SHELL'], os.environ['WHAT'])\n")
        setup = ["--setup", 'export WHAT="it\'s set"', "--python", sys.executable]
        run = cluster.run("-n", 2, *setup, script)
        assert run.out.count("/bin/tcsh it's set") == 2
        assert "noise" not in run.out + run.err
        run = cluster.run("-n", 2, "--sync-dst-dir", "~/x", "script.py", code=1)
        assert "the file system is read-only; choose another directory" in run.err
        run = cluster.run("-n", 2, "--sync-dst-dir", "/tmp/x", "--env", "WHAT=x", "script.py")
        assert run.out.count("/bin/tcsh x") == 2
    finally:
        cluster.close()


def test_variables_and_gpus_reach_the_tasks_they_are_for(cluster: SshCluster) -> None:
    hosts = cluster.cwd / "hosts"
    hosts.write_text("node1 slots=2\nnode2\n")
    script = cluster.script(
        "import os\nprint(*(os.environ.get(n) for n in ['A', 'B', 'C', 'MXNET_X', 'UNRELATED']))\n"
    )
    run = cluster.run(
        "-n", 3, "-H", hosts, "--env", "A=it's", "--env", "B", "--env-worker", "C:d e", script,
        env={"B": "here", "MXNET_X": "1", "UNRELATED": "1"},
    )  # fmt: skip
    assert run.out.count("it's here d e 1 None") == 3


def test_script_that_is_not_there(cluster: SshCluster, hide: object) -> None:
    hide(cluster.bed.hosts[1], cluster.cwd)  # type: ignore[operator]
    run = cluster.run("-n", 2, cluster.script("print('ran')").name, code=1)
    assert "node2: script.py is not in" in run.err
    assert "--sync-dst-dir" in run.err
    assert "ran" not in run.out


def test_commands_that_hosts_cannot_run_are_not_begun(cluster: SshCluster) -> None:
    """Neither what is copied, nor a Python that could not import mxnet."""
    cluster.script("print('ran')", "train.py")
    cluster.script("#!/no/such/zsh\n", "zsh").chmod(0o755)
    cluster.script(f'#!/bin/sh\nexec {sys.executable} -IS "$@"\n', "python3").chmod(0o755)
    for flags, words in (
        (["--sync-dst-dir", "~/x", "python3.99", "train.py"], "python3.99 is not on PATH in a"),
        (["--sync-dst-dir", "~/x", "./zsh"], "there is no /no/such/zsh; only what is below"),
        (["./zsh"], "./zsh is to be run by /no/such/zsh, which is not there"),
        (["./python3", "train.py"], "./python3, which is to run the script, has no mxnet; leave"),
    ):
        run = cluster.run("-n", 2, *flags, code=1)
        assert f"node1, node2: {words}" in run.err.replace(f"{cluster.cwd}/", ""), run.err
        assert "ran" not in run.out


RESULTS = """
import os, sys
rank = os.environ["DMLC_WORKER_ID"]
os.makedirs("out", exist_ok=True)
open("out/same name", "w").write("of rank " + rank)
open("out/" + rank + ".log", "w").write("x" * 1000000)
print("WRITTEN", flush=True)
if rank == "1":
    sys.exit(7)
"""


def test_results_are_brought_back_also_of_a_job_that_failed(cluster: SshCluster) -> None:
    """A directory for each host, since names may be the same; a host that is lost keeps nobody."""
    cluster.script(RESULTS, "train.py")
    flags = ["-n", 2, "--sync-dst-dir", "~/job", "--fetch", "out/same*", "--fetch", "out/1.*"]
    run = cluster.run(*flags, "--log-dir", "logs", "train.py", code=7)
    fetched = cluster.cwd / "logs" / "fetched"
    for rank, name in enumerate(["node1", "node2"]):
        assert (fetched / name / "out" / "same name").read_text() == f"of rank {rank}"
    assert not (fetched / "node1" / "out" / "1.log").exists()
    assert (fetched / "node2" / "out" / "1.log").stat().st_size == 1000000
    assert "note: fetched 3 files, 1.0 MB, from 2 hosts into logs/fetched" in run.err
    waits = RESULTS.replace("sys.exit(7)", "pass") + "import signal; signal.pause()\n"
    cluster.script(waits, "train.py")
    run = cluster.start(*flags, "--heartbeat-timeout", 3, "train.py")
    run.wait_for_output("WRITTEN", 2)
    cluster.bed.crash(cluster.bed.hosts[1])
    assert run.end() == 1
    assert "error: --fetch: node2: " in run.err
    assert "note: fetched 1 file, 0.0 kB, from 1 host into baryon-logs" in run.err


def test_a_port_that_was_meant_as_slots(cluster: SshCluster) -> None:
    run = cluster.run("-n", 1, "-H", "node1:2,", cluster.script(""), code=1)
    assert "in node1:2 that is a port: for 2 workers, write 'node1 slots=2' into a h" in run.err


def test_nothing_secret_is_seen_on_a_host(cluster: SshCluster) -> None:
    """Neither in command lines nor in environments, by whoever may list processes there."""
    script = cluster.script(STORE + "print('READY', flush=True)\nimport signal; signal.pause()\n")
    run = cluster.start("-n", 2, script)
    run.wait_for_output("READY", 2)
    seen = ""
    for host in cluster.bed.hosts[:2]:
        for process in cluster.bed.processes(host):
            seen += f"{process.cmdline()} {process.environ()}\n"
    keys = re.findall(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40,}", seen)  # as Z85 has them
    assert [word for word in keys if not re.search(r"/[\w.-]+/", word)] == []
    run.signal(2)
    assert run.end() == 130
