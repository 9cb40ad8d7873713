"""Command lines that are wrong: every fault is told, in words that help."""

import os

import pytest

from baryon.launcher import main

# -- one by one -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "fault"),
    [
        (["-n", 0, "train.py"], "-n must be 1 or more, not 0"),
        (["-n", -2, "train.py"], "-n must be 1 or more, not -2"),
        (["-n", 1, "-s", 0, "train.py"], "-s must be 1 or more, not 0"),
        (
            ["-n", 1, "--workers-per-host", 0, "train.py"],
            "--workers-per-host must be 1 or more, not 0",
        ),
        (["-n", 1, "--devices", 0, "train.py"], "--devices must be 1 or more, not 0"),
        (["-n", 1, "--timeout", 0, "x.py"], "--timeout must be a number of seconds above 0, not 0"),
        (
            ["-n", 1, "--timeout", "nan", "train.py"],
            "--timeout must be a number of seconds above 0, not nan",
        ),
        (
            ["-n", 1, "--heartbeat-timeout", -1, "train.py"],
            "--heartbeat-timeout must be a number of seconds above 0, not -1",
        ),
        (["-n", 1, "--port", 65536, "train.py"], "--port must be between 1 and 65535, not 65536"),
        (["-n", 1, "--port", -1, "train.py"], "--port must be between 1 and 65535, not -1"),
        (["-n", 1], "no command is given: launch.py -n 2 train.py"),
        (["-n", 1, "--"], "no command is given: launch.py -n 2 train.py"),
        (["-n", 1, "no-such-program"], "the command 'no-such-program' does not exist"),
        (["-n", 1, "./notes.txt"], "the command './notes.txt' is not executable (chmod +x it)"),
        (["-n", 1, ""], "the command '' does not exist"),
        (["-n", 1, "--env", "=x", "train.py"], "--env '=x': write it as NAME=VALUE"),
        (["-n", 1, "--env", "", "train.py"], "--env '': write it as NAME=VALUE"),
        (
            ["-n", 1, "--env", "NOT_SET_HERE", "train.py"],
            "--env NOT_SET_HERE: there is no such variable in the environment",
        ),
        (
            ["-n", 1, "--env-worker", "A", "train.py"],
            "--env-worker 'A': write it as NAME=VALUE",
        ),
        (["-n", 1, "--env-server", ":1", "train.py"], "--env-server ':1': write it as NAME=VALUE"),
        (["-n", 1, "-H", "nowhere", "train.py"], "host file nowhere: No such file or directory"),
        (["-n", 1, "-H", ".", "train.py"], "host file .: Is a directory"),
        (["-n", 1, "-H", "binary", "train.py"], "host file binary is not UTF-8 text: "),
        (["-n", 1, "-H", "nobody", "train.py"], "nobody: no host is listed; write one name a line"),
    ],
)  # fmt: skip
def test_the_fault_is_named(faults, folder, monkeypatch, argv, fault):
    monkeypatch.delenv("NOT_SET_HERE", raising=False)
    (folder / "notes.txt").write_text("")
    (folder / "nobody").write_text("# nobody\n")
    (folder / "binary").write_bytes(b"\xff\xfe")
    (folder / "x.py").write_text("")
    told = faults("--launcher", "local", *argv)
    assert len(told) == 1
    assert told[0].startswith(fault)


def test_a_script_that_does_not_exist_is_named_with_the_folder(faults, folder):
    assert faults("-n", 1, "trian.py") == [f"the script 'trian.py' does not exist in {folder}"]


def test_too_few_slots(faults, folder):
    (folder / "hosts").write_text("a\nb slots=2\n")
    (fault,) = faults("-n", 4, "-H", "hosts", "--launcher", "local", "train.py")
    assert fault.startswith("4 workers do not fit into the 3 slots of 2 hosts")


def test_ssh_without_hosts(faults, folder):
    assert faults("-n", 1, "--launcher", "ssh", "train.py") == [
        "--launcher ssh needs hosts: -H FILE, or -H node1,node2"
    ]


def test_results_are_fetched_from_where_files_were_copied_to(faults):
    assert faults("-n", 1, "-H", "a,", "--fetch", "out/*", "train.py") == [
        "--fetch is for files below --sync-dst-dir, which is not given"
    ]
    told = faults(
        "-n", 1, "-H", "a,", "--sync-dst-dir", "x", "--fetch", "/etc/*", "--fetch", "a/../..",
        "--fetch", "", "train.py",
    )  # fmt: skip
    assert [fault.partition(":")[0] for fault in told] == [
        "--fetch '/etc/*'", "--fetch 'a/../..'", "--fetch ''"
    ]  # fmt: skip


def test_a_host_file_that_may_have_been_meant_as_a_name(faults, folder):
    (fault,) = faults("-n", 1, "-H", "node1", "train.py")
    assert fault == ("host file node1: No such file or directory; a list needs a comma: -H node1,")


def test_gpus_that_are_too_few(faults, folder):
    (folder / "hosts").write_text("a slots=2 gpus=0,1,2\nb slots=2\n")
    assert faults("-n", 4, "--devices", 2, "-H", "hosts", "train.py") == [
        "host a: gpus=0,1,2 are too few for 2 workers with --devices 2 each; name more GPUs or "
        "fewer slots"
    ]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["train.py"], ["-n"]),
        (["train.py", "-n", 2], ["-n"]),
        (["-n", 2, "--bogus", "train.py"], ["--bogus"]),
        (["-n", 2, "--bogus=3", "train.py"], ["--bogus=3"]),
        (["-n", 2, "--num-server", 2, "train.py"], ["--num-server"]),
        (["-n", "two", "train.py"], ["-n", "'two'"]),
        (["-n", 2, "--port", "x", "train.py"], ["--port", "'x'"]),
        (["-n", 2, "--launcher", "pbs", "train.py"], ["--launcher", "'pbs'", "slurm"]),
        (["-n"], ["-n", "expected one argument"]),
    ],
)
def test_what_the_parser_itself_finds_is_a_usage_error_too(faults, argv, words):
    (fault,) = faults(*argv)
    assert fault.endswith("see launch.py --help")
    assert all(word in fault for word in words)


@pytest.mark.parametrize("flag", ["--timeout", "--heartbeat-timeout"])
@pytest.mark.parametrize("value", ["inf", "1e300", "1e10"])
def test_more_time_than_anything_can_wait_is_refused(faults, flag, value):
    """JSON has no infinity, and poll(2) and Python's locks have limits of their own."""
    (fault,) = faults("-n", 1, flag, value, "train.py")
    assert fault.startswith(f"{flag} must be ")


def test_a_month_is_not_too_much(job):
    made = job("-n", 1, "--timeout", 2.6e6, "--heartbeat-timeout", 2.6e6, "train.py")
    assert (made.timeout_s, made.silence_s) == (2.6e6, 2.6e6)


def test_a_value_that_is_no_utf8_is_a_fault(faults, monkeypatch):
    monkeypatch.setenv("CAFE", os.fsdecode(b"caf\xe9"))
    (fault,) = faults("-n", 1, "--env", "CAFE", "train.py")
    assert "CAFE" in fault
    assert "UTF-8" in fault


def test_so_is_a_folder_whose_name_is_none(faults, folder, monkeypatch):
    name = os.fsdecode(b"caf\xe9")
    (folder / name).mkdir()
    monkeypatch.chdir(folder / name)
    (fault,) = faults("-n", 1, "true")
    assert "UTF-8" in fault


# -- all at once ------------------------------------------------------------------------------


def test_all_faults_are_told_at_once(faults, folder):
    (folder / "hosts").write_text("a\n-b\nb x\n")
    told = faults(
        "-n", 0, "-s", 0, "-H", "hosts", "--launcher", "yarn", "--env", "=", "--env-server", "A",
        "--env-worker", "B", "--timeout", 0, "--port", 99999, "--devices", 0, "gone.py",
    )  # fmt: skip
    for beginning in (
        "hosts:2:1:", "hosts:3:3:", "--env '='", "--env-server 'A'", "--env-worker 'B'",
        "the script 'gone.py'", "-n must", "-s must", "--devices must", "--timeout must",
        "--port must", "-H is not for --launcher yarn",
    ):  # fmt: skip
        assert sum(fault.startswith(beginning) for fault in told) == 1, beginning
    assert len(told) == 12


def test_the_command_says_them_one_a_line_and_returns_2(folder, capsys):
    assert main(["-n", "0", "--devices", "0", "gone.py"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("launch.py: error: ") for line in lines)
