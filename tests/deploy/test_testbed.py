"""The test bed's hosts behave like machines, go wrong as asked, and leave nothing behind."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List, Optional

import psutil
import pytest

from deploy.testbed import DRIVER, Host, Testbed, TestbedError
from tests.cluster import REPOSITORY
from tests.waiting import wait_until

pytestmark = pytest.mark.hosts

RECEIVE = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 5000))
print("bound", flush=True)
while True:
    print(s.recv(100).decode(), flush=True)
"""
SEND = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for word in sys.argv[2:]:
    s.sendto(word.encode(), (sys.argv[1], 5000))
"""


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    """Three hosts; each test leaves them connected and up."""
    with Testbed(3, tmp_path_factory.mktemp("bed") / "bed", extra_ports=[2222]) as bed:
        yield bed


def ssh(bed: Testbed, name: str, command: str, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["ssh", "-F", str(bed.ssh_config), "-o", "BatchMode=yes", *options, name, command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )


def is_open(address: str, port: int = 22, limit_s: float = 0.3) -> bool:
    try:
        socket.create_connection((address, port), limit_s).close()
    except OSError:
        return False
    return True


def output(bed: Testbed, host: Host, *argv: str) -> str:
    process = bed.run(host, argv, stdout=subprocess.PIPE)
    return process.communicate(timeout=60)[0].decode()


def test_ssh_reaches_every_host_by_name_and_passes_the_exit_code_on(bed: Testbed) -> None:
    for host in bed.hosts:
        ended = ssh(bed, host.name, "hostname; exit 7")
        assert (ended.returncode, ended.stdout) == (7, f"{host.name}\n")
    assert bed.hostfile.read_text() == "node1\nnode2\nnode3\n"


def test_extra_ports_and_ipv6_have_known_keys(bed: Testbed) -> None:
    assert ssh(bed, "node1", "hostname", "-p", "2222").stdout == "node1\n"
    address6 = bed.hosts[1].address6
    if address6 is not None:
        assert ssh(bed, "node2", "hostname", "-o", f"HostName={address6}").stdout == "node2\n"


def test_a_host_knows_the_others_and_calls_itself_127_0_1_1(bed: Testbed) -> None:
    first, second, _ = bed.hosts
    lookup = "import socket; print(*map(socket.gethostbyname, ['node1', 'node2', 'driver']))"
    found = output(bed, first, sys.executable, "-c", lookup)
    assert found.split() == ["127.0.1.1", second.address, bed.driver_address]


def test_a_host_has_its_own_temporary_files_home_and_processes(bed: Testbed) -> None:
    name = f"testbed-{os.getpid()}"
    places = ["/tmp", "/dev/shm", "/var/tmp", "/run", "$HOME"]
    for place in places:
        assert ssh(bed, "node1", f"touch {place}/{name}").returncode == 0
        assert ssh(bed, "node1", f"ls {place}/{name}").returncode == 0
        assert ssh(bed, "node2", f"ls {place}/{name}").returncode != 0
        assert not Path(os.path.expandvars(place), name).exists()
    assert (bed.hosts[0].home / name).exists()
    assert "cat" in output(bed, bed.hosts[0], "cat", "/proc/1/comm")


def test_hosts_see_the_directory_and_the_repository(bed: Testbed) -> None:
    (bed.directory.parent / "other").touch()
    for path in (bed.hostfile, REPOSITORY / "README.md"):
        assert ssh(bed, "node1", f"ls {path}").returncode == 0
    assert ssh(bed, "node1", f"ls {bed.directory.parent}/other").returncode != 0


def test_processes_lists_what_a_host_runs_but_not_its_sshd(bed: Testbed) -> None:
    first, second, _ = bed.hosts
    assert bed.processes(first) == []
    with bed.run(first, ["sleep", "1000"]) as sleeper:
        wait_until(lambda: [p.name() for p in bed.processes(first)] == ["sleep"], "sleep")
        assert bed.processes(second) == []
        sleeper.kill()
    wait_until(lambda: not bed.processes(first), "its end, with that of its Popen")


def test_orphans_are_reaped(bed: Testbed) -> None:
    first = bed.hosts[0]
    assert ssh(bed, "node1", "(setsid sleep 1000 >/dev/null 2>&1 &)").returncode == 0
    (orphan,) = bed.processes(first)
    assert orphan.ppid() == first.pid
    orphan.kill()
    listed = ["sh", "-c", "cat /proc/[0-9]*/comm"]  # zombies too
    wait_until(lambda: "sleep" not in output(bed, first, *listed).split(), "the orphan to vanish")


def test_a_crash_is_silent_and_the_host_returns_as_it_was(bed: Testbed) -> None:
    third = bed.hosts[2]
    with socket.create_connection((third.address, 22)) as connection:
        connection.settimeout(30)
        assert connection.recv(100).startswith(b"SSH-")
        pid = third.pid
        bed.crash(third)
        assert not psutil.pid_exists(pid)
        assert not third.is_up and not is_open(third.address)
        connection.settimeout(0.2)
        with pytest.raises(socket.timeout):  # neither an end nor a reset
            connection.recv(100)
    with pytest.raises(TestbedError, match="node3 is down"):
        bed.run(third, ["true"])
    bed.boot(third)
    assert ssh(bed, "node3", "hostname").stdout == "node3\n"  # with the known key
    with pytest.raises(TestbedError, match="is up"):
        bed.boot(third)


def test_a_connection_survives_a_cut_and_its_mending(bed: Testbed) -> None:
    first = bed.hosts[0]
    command = ["ssh", "-F", str(bed.ssh_config), "node1", "cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as session:
        assert session.stdin is not None and session.stdout is not None
        session.stdin.write(b"before\n")
        session.stdin.flush()
        assert session.stdout.readline() == b"before\n"
        bed.cut(first)
        assert not is_open(first.address)
        session.stdin.write(b"meanwhile\n")
        session.stdin.flush()
        bed.mend(first)
        assert session.stdout.readline() == b"meanwhile\n"
        session.stdin.close()
    assert session.returncode == 0


class Listener:
    """Receives datagrams on a host or, for None, on this machine."""

    def __init__(self, bed: Testbed, host: Optional[Host]) -> None:
        # Here, too, at an address of the bed's own: another bed's tests may run beside these.
        argv = [sys.executable, "-c", RECEIVE, host.address if host else bed.driver_address]
        self._process: subprocess.Popen[bytes] = (
            subprocess.Popen(argv, stdout=subprocess.PIPE)
            if host is None
            else bed.run(host, argv, stdout=subprocess.PIPE)
        )
        assert self.next() == "bound"

    def next(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode().strip()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def send(bed: Testbed, source: Optional[Host], target: str, *words: str) -> None:
    argv = [sys.executable, "-c", SEND, target, *words]
    process = subprocess.Popen(argv) if source is None else bed.run(source, argv)
    assert process.wait(60) == 0


def test_a_block_works_one_way_only(bed: Testbed) -> None:
    first, second, third = bed.hosts
    listener = Listener(bed, second)
    try:
        bed.block(first, second)
        send(bed, first, second.address, "blocked")
        send(bed, third, second.address, "from the third")
        assert listener.next() == "from the third"
        back = Listener(bed, first)
        try:
            send(bed, second, first.address, "the other way")
            assert back.next() == "the other way"
        finally:
            back.close()
        bed.unblock_all()
        send(bed, first, second.address, "open again")
        assert listener.next() == "open again"
    finally:
        bed.unblock_all()
        listener.close()


def test_a_block_between_a_host_and_this_machine(bed: Testbed) -> None:
    first = bed.hosts[0]
    here, there = Listener(bed, None), Listener(bed, first)
    try:
        bed.block(first, DRIVER)
        send(bed, first, bed.driver_address, "blocked")
        send(bed, bed.hosts[1], bed.driver_address, "from the second")
        assert here.next() == "from the second"
        send(bed, None, first.address, "towards it")
        assert there.next() == "towards it"
        assert not is_open(first.address)  # its answers are lost
    finally:
        bed.unblock_all()
        here.close()
        there.close()
    with pytest.raises(TestbedError, match="neither"):
        bed.block("node1", DRIVER)


def test_a_split_is_both_ways_and_leaves_this_machine_out(bed: Testbed) -> None:
    first, second, third = bed.hosts
    probe = "import socket, sys; socket.create_connection((sys.argv[1], 22), 0.3)"

    def reaches(source: Host, target: Host) -> bool:
        argv = [sys.executable, "-c", probe, target.address]
        return bool(bed.run(source, argv, stderr=subprocess.DEVNULL).wait(60) == 0)

    try:
        bed.split([first], [second, third])
        for other in (second, third):
            assert not reaches(first, other) and not reaches(other, first)
        assert reaches(second, third)
        assert all(is_open(host.address, limit_s=10) for host in bed.hosts)
    finally:
        bed.unblock_all()
    assert reaches(first, second) and reaches(second, first)


def test_sessions_survive_the_end_of_sshd_unless_asked(bed: Testbed) -> None:
    second = bed.hosts[1]
    command = ["ssh", "-F", str(bed.ssh_config), "node2", "cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as session:
        assert session.stdin is not None and session.stdout is not None
        session.stdin.write(b"one\n")
        session.stdin.flush()
        assert session.stdout.readline() == b"one\n"
        bed.stop_sshd(second)
        assert not is_open(second.address)
        session.stdin.write(b"two\n")
        session.stdin.flush()
        assert session.stdout.readline() == b"two\n"
        bed.start_sshd(second)
        assert is_open(second.address, limit_s=10)
        bed.stop_sshd(second, keep_sessions=False)
        assert session.wait(60) == 255
    bed.start_sshd(second)
    assert ssh(bed, "node2", "true").returncode == 0


def test_odd_hosts(tmp_path: Path) -> None:
    shared = tmp_path / "it's shared"
    shared.mkdir()
    (shared / "file").write_text("seen\n")
    with Testbed(
        1, tmp_path / "a bed", bashrc="echo noise", read_only_home=True, shared=[shared]
    ) as bed:
        assert ssh(bed, "node1", f"cat '{tmp_path}/it'\\''s shared/file'").stdout == "noise\nseen\n"
        assert "Read-only file system" in ssh(bed, "node1", "touch ~/file").stdout
        with Testbed(1, tmp_path / "second") as second:
            assert second.driver_address != bed.driver_address
            assert ssh(second, "node1", "true").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["it's shared"]


def test_another_shell(tmp_path: Path) -> None:
    if "CI" not in os.environ and not os.path.exists("/bin/tcsh"):
        pytest.skip("apt-get install tcsh")
    with Testbed(1, tmp_path, shell="/bin/tcsh") as bed:
        assert ssh(bed, "node1", "echo $shell").stdout == "/bin/tcsh\n"


def test_a_rate_shapes_both_ends(tmp_path: Path) -> None:
    with Testbed(1, tmp_path, rate="100mbit") as bed:
        shown = output(bed, bed.hosts[0], "tc", "qdisc", "show", "dev", "eth0")
        assert "tbf" in shown and "100Mbit" in shown
        link = bed.driver_address.split(".")[2]
        assert "tbf" in subprocess.check_output(
            ["tc", "qdisc", "show", "dev", f"baryon{link}"], text=True
        )


@pytest.mark.parametrize(
    ("num_hosts", "directory", "shared", "message"),
    [
        (0, "bed", [], "not 0"),
        (1, 'b"d', [], "cannot hold"),
        (1, "used", [], "not a test bed's"),
        (1, "bed", ["/tmp"], "hosts have their own"),
        (1, "bed", ["/tmp/no such directory"], "not a directory"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_removed(
    tmp_path: Path, num_hosts: int, directory: str, shared: List[str], message: str
) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "hosts").write_text("mine")
    with pytest.raises(TestbedError, match=message):
        Testbed(num_hosts, tmp_path / directory, shared=shared).start()
    assert (tmp_path / "used" / "hosts").read_text() == "mine"


def test_a_failed_start_is_undone(tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match="rate"):
        Testbed(1, tmp_path / "bed", rate="fast").start()
    assert not traces(tmp_path)


def test_a_killed_owner_leaves_no_process_and_its_directory_can_be_used(tmp_path: Path) -> None:
    directory = tmp_path / "bed"
    code = (
        "import sys, time; from deploy.testbed import Testbed\n"
        "bed = Testbed(2, sys.argv[1]); bed.start()\n"
        "bed.run(bed.hosts[0], ['sleep', '1000'])\n"
        "print(bed.driver_link, flush=True); time.sleep(1000)"
    )
    argv = [sys.executable, "-c", code, str(directory)]
    with subprocess.Popen(
        argv, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        link = owner.stdout.readline().decode().strip()
        number = link_number(link)
        assert len(processes(directory)) >= 4
        with pytest.raises(TestbedError, match="running test bed"):
            Testbed(1, directory).start()
        owner.send_signal(signal.SIGKILL)
    wait_until(lambda: not processes(directory), "the end of all")
    wait_until(lambda: link_number(link) != number, "the end of the link")
    with Testbed(1, directory) as bed:
        assert ssh(bed, "node1", "hostname").stdout == "node1\n"
        assert not (directory / "node2").exists()
    assert not traces(tmp_path)


def test_the_command_line_is_safe_to_repeat_and_leaves_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "bed"

    def testbed(*args: str, code: int = 0) -> str:
        ended = subprocess.run(
            [sys.executable, "-m", "deploy.testbed", *args, "--dir", str(directory)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert ended.returncode == code, ended.stdout
        return ended.stdout

    try:
        text = testbed("up", "2")
        assert f"launch.py -n 2 -H {directory}/hosts --ssh-config {directory}/ssh_config" in text
        pids = json.loads((directory / "testbed.json").read_text())["hosts"]
        assert "up already" in testbed("up", "2")
        assert json.loads((directory / "testbed.json").read_text())["hosts"] == pids
        bed = Testbed.attach(directory)
        assert bed is not None and ssh(bed, "node2", "hostname").stdout == "node2\n"
        bed.crash(bed.hosts[1])
        assert testbed("status", code=1).split() == [
            *("node1", bed.hosts[0].address, "up", "node2", bed.hosts[1].address, "down")
        ]
        assert "replaced" in testbed("up", "3", "--rate", "1gbit")
        assert testbed("status").count(" up\n") == 3
        bed = Testbed.attach(directory)
        assert bed is not None
        home = "s,^root:.*,root:x:0:0:root:/root:/bin/sh,"
        assert bed.run(bed.hosts[0], ["sed", "-i", home, "/etc/passwd"]).wait(60) == 0
        assert "root's home is /root: what runs there writes outside" in testbed("status", code=1)
        assert "replaced" in testbed("up", "3", "--rate", "1gbit")
        bed = Testbed.attach(directory)
        assert bed is not None
        number = link_number(bed.driver_link)
        assert number is not None and "ended 3 hosts" in testbed("down")
        assert link_number(bed.driver_link) != number
        assert not traces(tmp_path)
        assert "no test bed" in testbed("down")
        assert "no test bed" in testbed("status", code=1)
        assert not traces(tmp_path)
    finally:
        testbed("down")


def link_number(name: str) -> Optional[int]:
    """The kernel's for a link, None without one; another bed may take a name that is free again."""
    found = [number for number, link in socket.if_nameindex() if link == name]
    return found[0] if found else None


def processes(directory: Path) -> List[psutil.Process]:
    """Those that name the directory: every sshd and unshare of its bed, and nsenter's."""
    found = []
    for process in psutil.process_iter():
        try:
            is_ours = process.pid != os.getpid() and str(directory) in " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        if is_ours:
            found.append(process)
    return found


def traces(tmp_path: Path) -> List[object]:
    """What beds in directories below ``tmp_path`` have left: processes, files, mounts."""
    mounts = [
        line for line in Path("/proc/mounts").read_text().splitlines() if str(tmp_path) in line
    ]
    return [*processes(tmp_path), *tmp_path.iterdir(), *mounts]


def test_another_passwd_of_this_machine_leads_no_host_out_of_the_bed(tmp_path: Path) -> None:
    """useradd and the like put a new file in its place, which detaches what is mounted there."""
    code = (
        "import os, shutil, subprocess, sys; from deploy.testbed import Testbed\n"
        "with Testbed(1, sys.argv[1]) as bed:\n"
        "    (host,) = bed.hosts\n"
        "    for name in ('passwd', 'shadow', 'hosts'):\n"
        "        shutil.copy2(f'/etc/{name}', '/etc/new')\n"
        "        os.replace('/etc/new', f'/etc/{name}')\n"
        "    ssh = ['ssh', '-F', str(bed.ssh_config), 'node1']\n"
        "    ask = 'echo ~root $HOME; getent hosts driver; touch /etc/made ~/made'\n"
        "    print(subprocess.check_output([*ssh, ask], text=True), end='')\n"
        "    print(host.home, bed.driver_address, os.path.exists('/etc/made'))\n"
    )
    etc = tmp_path / "etc"  # this machine's own is not for tests
    script = f'cp -a /etc {etc}; mount --bind {etc} /etc; exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-ec", script, "sh", sys.executable, "-c", code, tmp_path / "bed"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    home = tmp_path / "bed" / "node1" / "home"
    told = done.stdout.split()
    assert told[:2] == [str(home)] * 2
    assert told[2:] == [told[5], "driver", str(home), told[5], "False"]
