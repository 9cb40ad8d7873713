"""What is said of hosts, from what they report."""

import json

import pytest
from rich.console import Console

from baryon.launcher.hosts.expectations import Expectations
from baryon.launcher.hosts.findings import HostReport, lines, table, to_json
from baryon.launcher.hosts.preflight import judge, skew_s

GIB = 1 << 30
PLATFORM = ["cpython-311", "x86_64", "glibc", "2.36"]
OLD_LIBC = [*PLATFORM[:3], "2.9"]
NO_ZMQ = {"zmq": "", "msgspec": "0.19", "psutil": "6.0", "cloudpickle": "3.0"}
WELL = {
    "hostname": "h",
    "python": "/venv/bin/python",
    "python_version": "3.11",
    "platform": PLATFORM,
    "home": "/repo",
    "cache": "/root/.cache/baryon",
    "modules": {"zmq": "27.0", "msgspec": "0.19", "psutil": "6.0", "cloudpickle": "3.0"},
    "mxnet": "1.9.1",
    "numpy": "1.23.5",
    "cwd": "writable",
    "program": "found",
    "other_python": "",
    "memory_error": "",
    "cores": 8,
    "memory_free": 64 * GIB,
    "gpus": 0,
    "shm": 32 * GIB,
    "tmp": 32 * GIB,
    "open_files": 1 << 20,
    "address": "10.0.0.1",
    "address_error": "",
}


def expected(**changes):
    values = {
        "python_version": "3.11", "platform": PLATFORM, "workers": [1, 1, 1], "gpus": [0, 0, 0],
        "devices": 1, "program": "train.py", "cwd": "/job", "is_script": True,
        "is_here": True, "is_synced": False,
    }  # fmt: skip
    return Expectations(**{**values, **changes})


def hosts(found=None, **changes):
    """Three hosts, of which the second is as said."""
    odd = HostReport("b", found={**WELL, **(found or {})})
    for name, value in changes.items():
        setattr(odd, name, value)
    return [HostReport("a", found=dict(WELL)), odd, HostReport("c", found=dict(WELL))]


def test_hosts_that_are_well():
    assert judge(hosts(), expected()) == []


@pytest.mark.parametrize(
    ("found", "is_error", "words"),
    [
        ({"python_version": "3.9"}, True, "b: /venv/bin/python is Python 3.9, here it is 3.11; "),
        ({"mxnet": ""}, True, "b: /venv/bin/python has no mxnet; /venv/bin/python -m pip install "),
        ({"mxnet": "1.8.0"}, True, "b: mxnet 1.8.0, others have 1.9.1; "),
        ({"mxnet": "error: no libgomp"}, True, "b: mxnet cannot be imported: no libgomp"),
        ({"numpy": ""}, True, "b: /venv/bin/python has no numpy; "),
        ({"numpy": "1.22.0"}, True, "b: numpy 1.22.0, others have 1.23.5; "),
        ({"numpy": "2.1.0"}, True, "b: numpy 2.1.0 is too new for mxnet 1.9; "),
        ({"modules": NO_ZMQ, "platform": OLD_LIBC}, True, "lacks pyzmq, and those of this machine"),
        ({"modules": {**NO_ZMQ, "zmq": "22.3.0"}}, True, "b: pyzmq 22.3.0 is too old; "),
        ({"home": "", "cache": ""}, True, "b: neither the home directory nor /tmp has a place"),
        ({"cwd": "missing"}, True, "b: there is no directory /job; use a file system that all"),
        ({"cwd": "read-only"}, False, "b: /job cannot be written to"),
        ({"program": "missing"}, True, "b: train.py is not in /job; use a file system"),
        ({"program": "not executable"}, True, "b: train.py is not executable; chmod +x train.py"),
        ({"program": "no zsh"}, True, "b: train.py is to be run by zsh, which is not there; "),
        (
            {"other_python": "/usr/bin/python3"},
            True,
            "b: /usr/bin/python3, which is to run the",
        ),
        ({"memory_error": "no /proc"}, True, "b: tasks there cannot share memory: no /proc; "),
        ({"address_error": "no interface x", "address": ""}, True, "b: no interface x; "),
        ({"address": "127.0.1.1"}, True, "b: its address 127.0.1.1 leads other hosts to themselv"),
        ({"memory_free": 100 << 20}, False, "b: only 100 MiB of memory free; "),
        ({"shm": 1 << 20}, False, "b: only 1 MiB free in /dev/shm; "),
        ({"shm": -1}, False, "b: no /dev/shm; mount a tmpfs there"),
        ({"tmp": 0}, False, "b: only 0 MiB free in /tmp; "),
        ({"open_files": 256}, False, "b: at most 256 open files; "),
    ],
)
def test_each_thing_that_may_be_wrong(found, is_error, words):
    (finding,) = judge(hosts(found), expected())
    assert finding.is_error == is_error
    assert words in lines([finding])[0]


@pytest.mark.parametrize(
    ("changes", "is_error", "words"),
    [
        ({"unreachable": (0, 2)}, True, "b: cannot reach a, c; open all TCP ports between"),
        ({"unreachable": (-1,)}, False, "b: cannot reach this machine (NAT or a firewall); "),
        ({"skew_s": 40.0}, False, "b: its clock is 40.0 s ahead of this machine's; "),
        ({"skew_s": -3.0}, False, "b: its clock is 3.0 s behind this machine's; "),
        ({"error": "no route", "found": {}}, True, "b: no route"),
    ],
)
def test_what_is_wrong_around_a_host(changes, is_error, words):
    (finding,) = judge(hosts(**changes), expected())
    assert (finding.is_error, finding.host) == (is_error, "b")
    assert words in lines([finding])[0]


def test_gpus():
    few = hosts({"gpus": 2})
    (finding,) = judge(few, expected(gpus=[0, 4, 0]))
    assert finding.is_error and "2 GPUs, and the host file names 4" in finding.found
    (finding,) = judge(few, expected(workers=[1, 2, 1], devices=2))
    assert not finding.is_error and "2 GPUs for 2 workers with 2 devices each" in finding.found
    assert judge(few, expected(gpus=[0, 2, 0], workers=[1, 1, 1], devices=2)) == []


def test_programs_that_are_not_found():
    reports = hosts({"program": "missing"})
    (line,) = lines(judge(reports, expected(program="python", is_script=False)))
    assert line.startswith("b: python is not on PATH in a login there; set PATH by --setup; ")
    (line,) = lines(judge(reports, expected(is_here=False)))
    assert line == "b: train.py is not in /job, nor is it here; check its name"
    (line,) = lines(judge(reports, expected(program="/a b", is_here=False)))
    assert line.endswith("; if it is a program with arguments, leave off the quotes round them all")


def test_of_what_is_copied_the_rest_must_be_there():
    copied = expected(is_synced=True, program="", is_script=False)
    assert judge(hosts({"cwd": "missing"}), copied) == []
    reports = hosts({"cwd": "missing", "program": "missing"})
    (line,) = lines(judge(reports, copied._replace(program="python3.99")))
    assert line.startswith("b: python3.99 is not on PATH in a login there; ")
    (line,) = lines(judge(reports, copied._replace(program="/opt/train")))
    assert line == "b: there is no /opt/train; only what is below this directory is copied"


def test_a_python_that_mxnet_is_not_made_for():
    reports = hosts()
    for report in reports:
        report.found["python_version"] = "3.13"
    (line,) = lines(judge(reports, expected(python_version="3.13")))
    assert line == "a, b, c: /venv/bin/python is Python 3.13; Baryon needs 3.8 to 3.12"


def test_libraries_that_fit_are_brought_along():
    assert judge(hosts({"modules": NO_ZMQ, "home": ""}), expected()) == []
    newer = {"modules": NO_ZMQ, "platform": [*PLATFORM[:3], "2.40"]}
    assert judge(hosts(newer), expected()) == []


def test_all_is_told_at_once_errors_first_and_alike_hosts_together():
    reports = hosts({"tmp": 0, "mxnet": ""})
    for report in reports:
        report.found["program"] = "missing"
    told = lines(judge(reports, expected()))
    assert len(told) == 3
    assert told[0].startswith("a, b, c: train.py is not in")
    assert told[2].startswith("b: only 0 MiB free in /tmp")


def test_many_hosts_are_counted():
    reports = [HostReport(f"n{i}", error="no route") for i in range(64)]
    wanted = expected(workers=[1] * 64, gpus=[0] * 64)
    assert lines(judge(reports, wanted)) == ["n0, n1, n2, n3, n4 and 59 more: no route"]


def test_the_table_has_a_row_for_each_host():
    reports = hosts({"mxnet": "1.8.0"})
    console = Console(width=132)
    with console.capture() as capture:
        console.print(table(reports, judge(reports, expected())))
    rows = [line for line in capture.get().splitlines() if " 3.11 " in line]
    assert [row.split()[1] for row in rows] == ["a", "b", "c"]
    assert " 1.8.0 " in rows[1] and rows[1].split()[-2] == "1"
    assert rows[0].split()[-2] == "none"


def test_programs_get_everything():
    reports = hosts(error="gone", found={})
    told = json.loads(to_json(reports, judge(reports, expected())))
    assert [host["name"] for host in told["hosts"]] == ["a", "b", "c"]
    assert told["findings"] == [{"host": "b", "is_error": True, "found": "gone", "remedy": ""}]


def test_a_clock_is_off_only_as_far_as_that_is_certain():
    assert skew_s(100.0, 102.0, 131.0) == 29.0
    assert skew_s(100.0, 102.0, 71.0) == -29.0
    assert skew_s(100.0, 102.0, 100.5) == skew_s(100.0, 102.0, 101.5) == 0.0
