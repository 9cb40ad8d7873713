"""``baryon doctor`` without hosts: whether jobs can run on this machine."""

import json
import os
from importlib import metadata

import pytest

from baryon.launcher import baryon, installation


def test_this_machine_is_well(folder, capfdbinary):
    assert baryon(["doctor", "--json", "train.py"]) == 0
    out, err = capfdbinary.readouterr()
    told = json.loads(out)
    assert (told["findings"], err) == ([], b"")
    (host,) = told["hosts"]
    assert host["name"] == "this machine"
    assert (host["found"]["mxnet"], host["found"]["memory_error"]) == ("1.9.1", "")


def test_all_that_is_wrong_with_it_is_told(folder, capfd, monkeypatch):
    (folder / "mxnet").mkdir()
    (folder / "mxnet" / "__init__.py").write_text("raise OSError('libgomp.so.1: missing')\n")
    monkeypatch.setenv("PYTHONPATH", os.fspath(folder))
    monkeypatch.setattr(installation.metadata, "requires", lambda name: ["rich>=999", "nothing"])
    assert baryon(["doctor"]) == 1
    out, _ = capfd.readouterr()
    assert f"error: this machine: rich {metadata.version('rich')} is too old; " in out
    assert "error: this machine: nothing is not installed; " in out
    assert "error: this machine: mxnet cannot be imported: OSError: libgomp.so.1: missing" in out
    assert out.endswith("3 problems\n")


@pytest.mark.parametrize(
    ("argv", "fault"),
    [
        (["gone.py"], "the script 'gone.py' does not exist in {}"),
        (["--launcher", "slurm"], "for slurm there is launch.py --dry-run"),
    ],
)
def test_what_cannot_be_looked_at(folder, capsys, argv, fault):
    assert baryon(["doctor", *argv]) == 2
    assert fault.format(folder) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("requirement", "found"),
    [
        ("rich>=12", []),
        ("rich", []),
        ("rich (>=12)", []),
        ('nothing>=1; extra == "cpu"', []),
        ("nothing[more]>=1", ["nothing is not installed"]),
    ],
)
def test_requirements(monkeypatch, requirement, found):
    monkeypatch.setattr(installation.metadata, "requires", lambda name: [requirement])
    assert [fault for fault, _ in installation.faults()] == found
