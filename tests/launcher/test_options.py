"""From a command line to a job: what each flag does."""

import os
import sys

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from baryon import __version__
from baryon.launcher.options import parse
from baryon.ps import UsageError
from baryon.scheduler.control import Host, Job


def places(job, role="worker"):
    return [(job.hosts[task.host].name, task.local_rank) for task in job.of_role(role)]


# -- the command ------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["train.py", "./train.py"])
@pytest.mark.parametrize("mode", [0o644, 0o755])
def test_a_script_runs_under_this_interpreter(job, folder, script, mode):
    (folder / "train.py").chmod(mode)
    made = job("-n", 1, script, "--lr", "1")
    assert (made.is_script, made.command) == (True, (script, "--lr", "1"))


def test_any_other_program_is_run_as_it_is(job, folder):
    (folder / "train").write_text("#!/bin/sh\n")
    (folder / "train").chmod(0o755)
    made = job("-n", 1, "./train", "x")
    assert (made.is_script, made.command) == (False, ("./train", "x"))
    assert job("-n", 1, "sh", "-c", "x").command == ("sh", "-c", "x")


ARGUMENTS = [
    "-n", "5", "--env", "A=1", "--dry-run", "--bogus", "-s", "-H", "--help", "--version",
    "a b", "", "日本", "$HOME", "'", '"', "\\", "\n", "--", "-", "-1", "*", "%s",
    "@file", "--kvstore=",
]  # fmt: skip


def test_all_that_follows_the_command_belongs_to_it(job):
    made = job("-n", 1, "train.py", *ARGUMENTS)
    assert made.command == ("train.py", *ARGUMENTS)
    assert (made.num_workers, made.env) == (1, {})


# No test here needs a folder of its own, so that hypothesis need not make one each time.
@given(st.lists(st.sampled_from(ARGUMENTS) | st.text(st.characters(exclude_categories=["Cs"]))))
@example(["-n"])
@example(["--env"])
def test_whatever_it_is(words):
    assert parse(["-n", "2", "sh", *words])[0].command == ("sh", *words)
    assert parse(["-n", "2", "--", "sh", *words])[0].command == ("sh", *words)


def test_words_that_are_no_utf8_are_kept_or_refused(job):
    """A file name may be any bytes; Python has lone surrogates for those that are no text."""
    word = os.fsdecode(b"caf\xe9")
    try:
        made = job("-n", 1, "train.py", word)
    except UsageError as error:
        assert "UTF-8" in str(error)
    else:
        assert msgspec.json.decode(msgspec.json.encode(made), type=Job) == made


# -- how many of what, and where --------------------------------------------------------------


def test_without_hosts_all_are_on_this_machine_with_one_server(job):
    made = job("-n", 3, "train.py")
    assert made.launcher == "local"
    assert made.hosts == (Host("localhost", 3),)
    assert places(made) == [("localhost", 0), ("localhost", 1), ("localhost", 2)]
    assert places(made, "server") == [("localhost", 0)]


def test_workers_per_host_makes_hosts_on_this_machine(job):
    made = job("-n", 5, "--workers-per-host", 2, "train.py")
    assert made.hosts == (Host("local0", 2), Host("local1", 2), Host("local2", 2))
    assert places(made) == [
        ("local0", 0), ("local0", 1), ("local1", 0), ("local1", 1), ("local2", 0),
    ]  # fmt: skip
    owners = [("local0", 0), ("local1", 0), ("local2", 0)]
    assert places(made, "server") == [*owners, ("local0", 1), ("local1", 1)]
    assert made.num_servers == 3


def test_without_shared_memory_there_is_no_level_1(job):
    made = job("-n", 4, "--workers-per-host", 2, "--no-shared-memory", "train.py")
    assert not made.shares_memory
    assert places(made, "server") == [("local0", 0), ("local1", 0)]


def test_encryption_can_be_switched_off(job):
    assert job("-n", 2, "train.py").encrypts_data
    assert not job("-n", 2, "--no-encryption", "train.py").encrypts_data


def test_a_host_file_names_hosts_and_slots(job, folder):
    (folder / "hosts").write_text("a slots=2\nb\n")
    made = job("-n", 3, "-H", "hosts", "--launcher", "local", "train.py")
    assert places(made) == [("a", 0), ("a", 1), ("b", 0)]
    assert places(made, "server") == [("a", 0), ("b", 0), ("a", 1)]


def test_workers_per_host_beats_the_slots_of_a_host_file(job, folder):
    (folder / "hosts").write_text("a slots=1\nb slots=8\n")
    made = job("-n", 4, "-H", "hosts", "--launcher", "local", "--workers-per-host", 2, "train.py")
    assert made.hosts == (Host("a", 2), Host("b", 2))


def test_servers_can_be_counted(job):
    assert job("-n", 2, "-s", 3, "train.py").num_servers == 3


@pytest.mark.parametrize("flag", ["-n", "--num-workers"])
def test_flags_have_long_names(job, flag):
    assert job(flag, 2, "train.py").num_workers == 2


# -- environment ------------------------------------------------------------------------------


def test_variables_for_all(job, monkeypatch):
    monkeypatch.setenv("FROM_HERE", "b=c d")
    made = job("-n", 1, "--env", "A=1=2", "--env", "EMPTY=", "--env", "FROM_HERE", "train.py")
    assert made.env == {"A": "1=2", "EMPTY": "", "FROM_HERE": "b=c d"}
    assert (made.env_worker, made.env_server) == ({}, {})


def test_variables_for_one_role(job):
    made = job(
        "-n", 1, "--env-worker", "PATH_LIKE:/a:/b", "--env-server", "A:x=1", "--env-server", "B:",
        "train.py",
    )  # fmt: skip
    assert made.env_worker == {"PATH_LIKE": "/a:/b"}
    assert made.env_server == {"A": "x=1", "B": ""}
    assert made.env == {}


def test_the_last_of_two_values_counts(job):
    assert job("-n", 1, "--env", "A=1", "--env", "A=2", "train.py").env == {"A": "2"}


# -- the rest ---------------------------------------------------------------------------------


def test_defaults(job, folder):
    made = job("-n", 1, "train.py")
    assert made.cwd == os.fspath(folder)
    assert made.python == sys.executable
    assert made.log_dir == os.fspath(folder / "baryon-logs" / made.id)
    assert (made.devices, made.kvstore, made.port) == (1, None, 0)
    assert (made.timeout_s, made.silence_s) == (1800.0, 20.0)
    assert (made.env, made.env_worker, made.env_server) == ({}, {}, {})


def test_every_other_flag_finds_its_place(job, folder):
    made = job(
        "-n", 1, "--devices", 4, "--kvstore", "dist_sync", "--port", 5000, "--timeout", 7.5,
        "--heartbeat-timeout", 3, "--log-dir", "my logs", "train.py",
    )  # fmt: skip
    assert (made.devices, made.kvstore, made.port) == (4, "dist_sync", 5000)
    assert (made.timeout_s, made.silence_s) == (7.5, 3.0)
    assert made.log_dir == os.fspath(folder / "my logs")


@pytest.mark.parametrize("flags", [["--p3"], ["--sync-dst-dir", "/there"]])
def test_flags_of_mxnets_launcher_that_change_nothing_here(job, flags):
    plain, flagged = job("-n", 1, "train.py"), job("-n", 1, *flags, "train.py")
    assert msgspec.structs.replace(flagged, id=plain.id, log_dir=plain.log_dir) == plain


def test_the_options_themselves_are_given_back(folder):
    options = parse(["-n", "1", "--dry-run", "--sync-dst-dir", "x", "train.py"])[1]
    assert (options.dry_run, options.sync_dst_dir) == (True, "x")


def test_a_job_survives_its_way_to_the_agents(job):
    made = job("-n", 3, "-s", 2, "--env", "A=ü", "--workers-per-host", 2, "train.py")
    assert msgspec.json.decode(msgspec.json.encode(made), type=Job) == made


def test_the_version_is_told(folder, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"baryon {__version__}\n"


def test_the_help_names_every_flag(folder, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "%(" not in text
    flags = "-n -s -H --launcher --sync-dst-dir --env --env-server --env-worker --p3 --dry-run "
    flags += "--workers-per-host --devices --kvstore --log-dir --timeout --heartbeat-timeout --port"
    for flag in flags.split(" "):
        assert f"{flag} " in text or f"{flag}," in text, flag
