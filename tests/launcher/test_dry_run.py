"""``--dry-run``: a table for people, JSON for programs, and nothing is started."""

import os

import msgspec
import pytest

from baryon.launcher import main
from baryon.scheduler.control import Job


@pytest.fixture
def dry_run(folder, capfdbinary, monkeypatch):
    """(the job in the JSON with --json, the table without) of a command line."""
    monkeypatch.setenv("COLUMNS", "200")

    def dry_run(*argv):
        assert main(["--dry-run", *argv]) == 0
        table, err = capfdbinary.readouterr()
        assert err == b""
        assert main(["--dry-run", "--json", *argv]) == 0
        out, err = capfdbinary.readouterr()
        assert err == b""
        return msgspec.json.decode(out, type=Job), table.decode()

    return dry_run


def test_the_json_is_the_whole_job(dry_run, folder):
    job, _ = dry_run("-n", "3", "--workers-per-host", "2", "--env", "A=ü", "train.py", "a b", "")
    assert (job.num_workers, job.num_servers, len(job.hosts)) == (3, 2, 2)
    assert job.command == ("train.py", "a b", "")
    assert job.env == {"A": "ü"}
    assert job.cwd == os.fspath(folder)


def test_the_table_says_what_runs_where(dry_run):
    _, table = dry_run("-n", "3", "--workers-per-host", "2", "--devices", "4", "sh", "a b", "")
    assert "local: 3 workers, 2 servers" in table
    rows = [
        tuple(cell.strip() for cell in line.split("│")[1:-1])
        for line in table.splitlines()
        if line.startswith("│")
    ]
    assert rows == [
        ("local0", "server 0", "-", "baryon's server"),
        ("local0", "server 2", "-", "baryon's server below 0, 1"),
        ("local0", "worker 0", "4", "sh 'a b' ''"),
        ("local0", "worker 1", "4", "sh 'a b' ''"),
        ("local1", "server 1", "-", "baryon's server"),
        ("local1", "worker 2", "4", "sh 'a b' ''"),
    ]


def test_brackets_are_no_markup(dry_run):
    assert "[red] [/]" in dry_run("-n", "1", "echo", "[red]", "[/]")[1].replace("'", "")


def test_no_secret_is_in_it(folder, capfdbinary):
    """Keys do not exist before the job does; --dry-run output may be shown to anybody."""
    assert main(["--dry-run", "--json", "-n", "2", "train.py"]) == 0
    out, err = capfdbinary.readouterr()
    assert set(msgspec.json.decode(out)) == set(Job.__struct_fields__)
    assert b"key" not in out.replace(b"kvstore", b"") + err


def test_nothing_is_started_or_made(dry_run, folder):
    dry_run("-n", "2", "train.py")
    assert os.listdir(folder) == ["train.py"]
