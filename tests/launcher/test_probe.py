"""The probe as it runs on a host: its text, under a Python of its own, asked over pipes."""

import json
import os
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

from baryon.launcher.hosts import probe
from baryon.launcher.hosts.preflight import DISTRIBUTIONS, missing
from baryon.launcher.hosts.survey import HOME
from baryon.ps import new_key_pair
from tests.waiting import LIMIT_S

ASK = {
    "program": "", "is_script": False, "cwd": "/", "env": {}, "toward": "127.0.0.1",
    "interfaces": [], "homes": [], "fingerprint": "", "import_mxnet": False,
}  # fmt: skip


class Host:
    """A probe that has been asked for the time already."""

    def __init__(self, python=sys.executable, env=None):
        self._process = subprocess.Popen(
            [python, "-c", probe.source()], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], **(env or {})}, cwd="/",
        )  # fmt: skip
        self.time = self.ask({})["time"]

    def ask(self, question):
        self.send(question)
        return self.answer()

    def send(self, question):
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self):
        line = self._process.stdout.readline()
        assert line.startswith(probe.MARK)
        return json.loads(line[len(probe.MARK) :])

    def end(self):
        self._process.stdin.close()
        self._process.stdout.read()
        self._process.stdout.close()
        return self._process.wait(LIMIT_S)


@pytest.fixture
def host():
    started = []

    def host(**kwargs):
        started.append(Host(**kwargs))
        return started[-1]

    yield host
    for each in started:
        assert each.end() == 0


def test_it_tells_the_time(host):
    before = time.time()
    assert before <= host().time <= time.time()


def test_it_says_what_is_there(host):
    found = host().ask({**ASK, "homes": ["/none", HOME], "fingerprint": probe.fingerprint_of(HOME)})
    assert found["python_version"] == ".".join(map(str, sys.version_info[:2]))
    assert found["python"] == sys.executable
    assert (found["mxnet"], found["home"]) == ("1.9.1", HOME)
    assert found["modules"] == {n: metadata.version(d) for n, d in DISTRIBUTIONS.items()}
    assert (found["address"], found["address_error"]) == ("127.0.0.1", "")
    assert (found["cwd"], found["program"]) == ("writable", "found")
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert found["memory_free"] > 0 and found["shm"] > 0 and found["open_files"] != 0


def test_mxnet_is_imported_if_that_is_asked_for(host):
    ask = {**ASK, "homes": [HOME], "fingerprint": probe.fingerprint_of(HOME)}
    assert host().ask({**ask, "import_mxnet": True})["mxnet"] == "1.9.1"


def test_mxnet_that_cannot_be_imported(host, tmp_path):
    (tmp_path / "mxnet").mkdir()
    (tmp_path / "mxnet" / "__init__.py").write_text("raise OSError('libgomp.so.1: missing')\n")
    probed = host(env={"PYTHONPATH": str(tmp_path)})
    assert probed.ask({**ASK, "import_mxnet": True})["mxnet"] == (
        "error: OSError: libgomp.so.1: missing"
    )


@pytest.mark.parametrize(
    ("program", "is_script", "state"),
    [
        ("train.py", True, "found"),
        ("gone.py", True, "missing"),
        ("sh", False, "found"),
        ("no-such-program", False, "missing"),
        ("./train.py", False, "not executable"),
        ("./gone", False, "missing"),
    ],
)
def test_it_looks_for_the_program(host, tmp_path, program, is_script, state):
    (tmp_path / "train.py").touch()
    ask = {**ASK, "cwd": str(tmp_path), "program": program, "is_script": is_script}
    assert host().ask(ask)["program"] == state


@pytest.mark.parametrize(
    ("line", "state"),
    [
        ("#!/bin/sh", "found"),
        ("#! /usr/bin/env sh", "found"),
        ("#!/usr/bin/env -S sh -e", "found"),
        ("no script", "found"),
        ("", "found"),
        ("#!/no/such/zsh -f", "no /no/such/zsh"),
        ("#!/usr/bin/env python3.99", "no python3.99"),
    ],
)
def test_what_runs_a_program_must_be_there(host, tmp_path, line, state):
    (tmp_path / "train").write_text(f"{line}\n")
    (tmp_path / "train").chmod(0o755)
    ask = {**ASK, "cwd": str(tmp_path), "program": "./train"}
    assert host().ask(ask)["program"] == state


def test_another_python_that_lacks_mxnet(host, tmp_path):
    """It is found by the PATH, and is run with the variables, that workers are going to have."""
    bare = tmp_path / "python3.11"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    env = {"PATH": str(tmp_path)}
    for ask, path in [
        ({"program": str(bare)}, str(bare)),
        ({"program": "python3.11", "env": env}, str(bare)),
        ({"program": "python3.99", "env": env}, ""),
        ({"program": "python3.11", "is_script": True, "env": env}, ""),
        ({"program": sys.executable}, ""),
        ({"program": "sh"}, ""),
        ({"program": "pythonic"}, ""),
    ]:
        assert host().ask({**ASK, **ask})["other_python"] == path, ask


def test_a_directory_that_is_not_there(host, tmp_path):
    assert host().ask({**ASK, "cwd": str(tmp_path / "none")})["cwd"] == "missing"


def test_a_place_for_baryon_is_ours_alone(host, tmp_path):
    """Where others may write, they could put code of theirs."""
    assert host(env={"XDG_CACHE_HOME": str(tmp_path)}).ask(ASK)["cache"] == str(tmp_path / "baryon")
    assert (tmp_path / "baryon").stat().st_mode & 0o777 == 0o700
    (tmp_path / "baryon").chmod(0o777)
    other = host(env={"XDG_CACHE_HOME": str(tmp_path)}).ask(ASK)["cache"]
    assert other == f"/tmp/baryon-{os.getuid()}"
    os.rmdir(other)


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_baryon_where_others_can_write_is_not_taken(host, tmp_path, mode):
    """They could put code beside it, and Python looks there first."""
    home = tmp_path / "shared"
    shutil.copytree(Path(HOME) / "baryon", home / "baryon", ignore=lambda *_: ["__pycache__"])
    ask = {**ASK, "homes": [str(home)], "fingerprint": probe.fingerprint_of(HOME)}
    assert host().ask(ask)["home"] == str(home)
    home.chmod(mode)
    assert host().ask(ask)["home"] != str(home)
    home.chmod(0o755)
    (home / "baryon" / "ps").chmod(mode)
    assert host().ask(ask)["home"] != str(home)


def test_versions_of_baryon_are_told_apart(tmp_path):
    home = tmp_path / "home"
    for package in ("scheduler", "ps", "worker", "launcher"):
        (home / "baryon" / package).mkdir(parents=True)
        (home / "baryon" / package / "__init__.py").write_text("")
    assert probe.fingerprint_of(str(home)) == ""
    (home / "baryon" / "__init__.py").write_text("")
    first = probe.fingerprint_of(str(home))
    assert len(first) == 16
    (home / "baryon" / "launcher" / "new.py").write_text("hosts do not need it")
    assert probe.fingerprint_of(str(home)) == first
    (home / "baryon" / "ps" / "__init__.py").write_text("# other")
    assert probe.fingerprint_of(str(home)) != first


def keys():
    server, client = new_key_pair(), new_key_pair()
    return {
        "server_secret": server.secret, "server_public": server.public,
        "client_secret": client.secret, "client_public": client.public,
    }  # fmt: skip


def test_hosts_that_reach_each_other(host):
    hosts, shared = [host() for _ in range(3)], keys()
    for each in hosts:
        each.ask(ASK)
    endpoints = [each.ask(shared)["endpoint"] for each in hosts]
    question = {"targets": list(enumerate(endpoints)), "limit_s": LIMIT_S}
    for each in hosts:
        each.send(question)
    assert [each.answer() for each in hosts] == [{"unreachable": []}] * 3


def test_who_does_not_answer_or_has_other_keys_is_not_reached(host):
    one, other = host(), host()
    one.ask(ASK), other.ask(ASK)
    endpoint = one.ask(keys())["endpoint"]
    other.ask(keys())
    targets = [[4, endpoint], [7, "tcp://127.0.0.1:1"]]
    assert other.ask({"targets": targets, "limit_s": 0.5}) == {"unreachable": [4, 7]}


def test_its_text_needs_nothing_of_ours(tmp_path):
    """Nor anything but the standard library, until hosts are to say hello."""
    process = subprocess.run(
        [sys.executable, "-I", "-S", "-c", probe.source()], cwd=tmp_path, timeout=LIMIT_S,
        input=b"{}\n" + json.dumps(ASK).encode() + b"\n", capture_output=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout.splitlines()[1][len(probe.MARK) :])
    assert missing(found) == ["zmq", "msgspec", "psutil", "cloudpickle"]
    assert (found["mxnet"], found["home"]) == ("", "")


def test_old_pythons_understand_it():
    import ast

    ast.parse(probe.source(), feature_version=(3, 6))
