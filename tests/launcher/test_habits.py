"""What users bring along from other launchers: it works where it can mean one thing only, and is
otherwise answered by the form to write."""

import pytest

from baryon.launcher import main


@pytest.mark.parametrize(
    "flags",
    [
        ["-np", 2], ["--num_workers", 2], ["--num_workers=2"], ["--num-proc", 2],
        ["--nproc-per-node", 2], ["--nproc_per_node=2"], ["--workers-per-host", 2],
        ["-ppn", 2, "-np", 2],
    ],
)  # fmt: skip
def test_the_number_of_workers(job, flags):
    made = job(*flags, "train.py", "--num_workers", 3)
    assert made.num_workers == 2
    assert len(made.hosts) == 1
    assert made.command == ("train.py", "--num_workers", "3")


@pytest.mark.parametrize("flag", ["--hosts", "-hosts", "--host", "-hostfile", "--machinefile"])
def test_workers_per_host_are_counted_on_all_hosts(job, flag):
    made = job("--nproc-per-node", 2, flag, "a,b", "train.py")
    assert [(task.host, task.local_rank) for task in made.of_role("worker")] == [
        (0, 0), (0, 1), (1, 0), (1, 1),
    ]  # fmt: skip


def test_variables(job, monkeypatch):
    monkeypatch.setenv("HERE", "x")
    made = job("-n", 1, "-x", "A=1", "-x", "HERE", "--env-worker", "P=/a:/b", "--env_server", "Q=",
               "train.py")  # fmt: skip
    assert made.env == {"A": "1", "HERE": "x"}
    assert made.env_worker == {"P": "/a:/b"}
    assert made.env_server == {"Q": ""}


def test_names_of_variables_may_be_any(job, monkeypatch):
    monkeypatch.setenv("D-E", "x")
    made = job("-n", 1, "--env", "A.B=dot", "--env", "D-E", "--env-worker", "C.D:1=2", "train.py")
    assert made.env == {"A.B": "dot", "D-E": "x"}
    assert made.env_worker == {"C.D": "1=2"}


def test_the_launchers_other_name(job):
    assert job("-n", 1, "--cluster", "local", "train.py").launcher == "local"


@pytest.mark.parametrize(
    ("argv", "remedy"),
    [
        (["--nnodes", 2, "--nproc-per-node", 2, "train.py"], "-H node1,node2"),
        (["-n", 2, "--master_addr=a", "train.py"], "launch.py is started once"),
        (["-n", 2, "--num_gpus", 2, "train.py"], "--devices N"),
        (["-n", 2, "--bind-to", "none", "train.py"], "--extra='--bind-to ...'"),
        (["-n", 2, "--numworkers", 2, "train.py"], "did you mean --num-workers?"),
    ],
)
def test_what_cannot_be_translated_is_answered_by_the_right_form(faults, argv, remedy):
    (fault,) = faults(*argv)
    assert str(argv[0] if argv[0] != "-n" else argv[2]).split("=")[0] in fault
    assert remedy in fault
    assert fault.endswith("see launch.py --help")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("scratch.py", "\n".join(f"x = {n}" for n in range(81))),
        ("scratch", "#!/usr/bin/env python\n" + "\n".join(f"x = {n}" for n in range(81))),
    ],
)
@pytest.mark.parametrize("rest", [[], ["train.py"]])
def test_a_script_in_the_place_of_the_host_list_is_one_line(folder, capsys, name, text, rest):
    (folder / name).write_text(text)
    assert main(["-n", "2", "-H", name, *rest]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"launch.py: error: -H {name}: that is a script, not a host file; name the hosts, and "
        f"then the command: launch.py -n 2 -H node1,node2 {name}"
    )


def test_a_file_that_is_no_host_file_does_not_flood_the_terminal(faults, folder):
    (folder / "notes").write_text("one two\n" * 81)
    told = faults("-n", 2, "-H", "notes", "train.py")
    assert len(told) == 11
    assert told[-1] == "notes: and 71 more faults; is it a host file?"
