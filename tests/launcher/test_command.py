"""The workers' command: words, a whole line, variables in front, a module."""

import os
import subprocess
import sys

import pytest


@pytest.fixture
def package(folder):
    """The module package.train, in the current folder."""
    (folder / "package").mkdir()
    for name in ("__init__", "train"):
        (folder / "package" / f"{name}.py").write_text("raise SystemExit('it must not be run')\n")


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["python3 train.py --epochs 1"], ("python3", "train.py", "--epochs", "1")),
        (["python3 train.py", "--name", "a b"], ("python3", "train.py", "--name", "a b")),
        (["sh 'a b' \"c d\" ''"], ("sh", "a b", "c d", "")),
        (["cd d && python3 x.py"], ("bash", "-c", "cd d && python3 x.py")),
        (["source env.sh"], ("bash", "-c", "source env.sh")),
        (["python3 train.py $HOME"], ("bash", "-c", "python3 train.py $HOME")),
        (
            ["cd d && python3 x.py", "--name", "a b"],
            ("bash", "-c", 'cd d && python3 x.py "$@"', "bash", "--name", "a b"),
        ),
    ],
)
def test_a_whole_line_is_what_it_is_to_mxnets_launcher(job, words, command):
    made = job("-n", 1, *words)
    assert (made.is_script, made.command) == (False, command)


@pytest.mark.parametrize("end", ["# run", " ;", ";", " &", "|", "&&", " >"])
def test_no_words_behind_a_line_are_lost(job, faults, end):
    line = f"cd d && python3 x.py {end}"
    assert faults("-n", 1, line, "--lr", "a b") == [
        f"the command {line!r} cannot be read: --lr 'a b' would be lost behind {end.strip()!r}; "
        "write all of it into the quotes"
    ]
    assert job("-n", 1, line).command == ("bash", "-c", line)


@pytest.mark.parametrize(
    "line",
    ["cd d # to d\npython3 x.py", "cd d; python3 '#' \"# ;\"", "cd d; python3 a#b $# ';' \\;"],
)
@pytest.mark.parametrize("end", ["", " ", "\n"])
def test_what_only_looks_like_the_end_of_a_line(job, line, end):
    assert job("-n", 1, line + end, "--lr").command == (
        "bash",
        "-c",
        f'{line} "$@"',
        "bash",
        "--lr",
    )
    words = job("-n", 1, line.replace("cd d", "true").replace("python3", "echo") + end, "--lr")
    out = subprocess.run(words.command, stdout=subprocess.PIPE, check=True).stdout
    assert out.endswith(b" --lr\n")


def test_a_script_in_a_line_runs_under_this_interpreter(job):
    made = job("-n", 1, "train.py --epochs 1")
    assert (made.is_script, made.command) == (True, ("train.py", "--epochs", "1"))


@pytest.mark.parametrize(
    ("words", "variables"),
    [
        (["CUDA_VISIBLE_DEVICES=0", "train.py", "A=1"], {"CUDA_VISIBLE_DEVICES": "0"}),
        (["CUDA_VISIBLE_DEVICES=0 train.py A=1"], {"CUDA_VISIBLE_DEVICES": "0"}),
        (["A=", "B=c d", "train.py", "A=1"], {"A": "", "B": "c d"}),
        (["A= B='c d' train.py A=1"], {"A": "", "B": "c d"}),
        (["A=x train.py", "sh"], {"A": "x train.py"}),
    ],
)  # fmt: skip
def test_variables_before_the_command_are_the_workers(job, words, variables):
    made = job("-n", 1, "--env-worker", "A:over", "--env-worker", "C:1", "--", *words)
    assert made.env_worker == {"C": "1", "A": "over", **variables}
    if made.is_script:
        assert made.command == ("train.py", "A=1")


def test_a_file_whose_name_is_a_line_is_that_file(job, folder):
    (folder / "a $b.py").write_text("")
    (folder / "A=1.py").write_text("")
    assert job("-n", 1, "a $b.py").command == ("a $b.py",)
    assert job("-n", 1, "A=1.py").command == ("A=1.py",)


@pytest.mark.parametrize("flag", ["-m", "--module"])
def test_a_module_is_run_as_python_runs_it(job, package, flag):
    made = job("-n", 1, flag, "package.train", "-n", "3", "--lr", "1")
    assert made.is_script
    assert made.command == ("-m", "package.train", "-n", "3", "--lr", "1")
    assert (made.num_workers, made.title) == (1, "package.train")


@pytest.mark.parametrize("name", ["package.nothing", "nothing", "package"])
def test_a_module_that_is_not_there(faults, package, folder, name):
    (fault,) = faults("-n", 1, "-m", name)
    missing = f"{name}.__main__" if name == "package" else name
    assert fault == f"there is no module {missing} in {folder}, nor elsewhere on Python's path"


def test_the_standard_librarys_modules_are_found(job):
    assert job("-n", 1, "-m", "json.tool").command == ("-m", "json.tool")
    assert job("-n", 1, "-m", "unittest").command == ("-m", "unittest")


def test_a_module_written_as_a_file(faults):
    (fault,) = faults("-n", 1, "-m", "train.py")
    assert fault.endswith("; write -m train, or leave -m out")


def test_variables_before_a_line_that_bash_runs(job):
    made = job("-n", 1, "A=1", "B=2 cd d && python3 x.py")
    assert made.command == ("bash", "-c", "B=2 cd d && python3 x.py")
    assert made.env_worker == {"A": "1"}


def test_over_ssh_the_hosts_are_asked(job, folder):
    assert job("-n", 1, "-H", "a,", "sh -c x").command == ("sh", "-c", "x")
    assert job("-n", 1, "-H", "a,", "python3.99 x.py").command == ("python3.99", "x.py")
    assert job("-n", 1, "-H", "a,", "-m", "nothing").command == ("-m", "nothing")


@pytest.mark.parametrize(
    ("line", "command", "variables"),
    [
        (
            "LD_LIBRARY_PATH=/opt/a:/opt/b python x.py",
            ("python", "x.py"),
            {"LD_LIBRARY_PATH": "/opt/a:/opt/b"},
        ),
        (
            "PYTHONPATH=$HOME/lib python x.py",
            ("bash", "-c", "PYTHONPATH=$HOME/lib python x.py"),
            {},
        ),
        ("/opt/venv/bin/python x.py", ("/opt/venv/bin/python", "x.py"), {}),
        ("~/venv/bin/python x.py", ("bash", "-c", "~/venv/bin/python x.py"), {}),
        ("/opt/run x.py", ("/opt/run", "x.py"), {}),
        ("/opt/run x.py data/a b", ("/opt/run", "x.py", "data/a", "b"), {}),
        ("/opt/x.py data/a", ("/opt/x.py", "data/a"), {}),
        ("/opt/run --data /d", ("/opt/run", "--data", "/d"), {}),
        ("/opt/run && ./x", ("bash", "-c", "/opt/run && ./x"), {}),
        (" /opt/run", ("/opt/run",), {}),
        ("/my files/train.py", ("/my files/train.py",), {}),
        ("/my files/my train.py", ("/my files/my train.py",), {}),
        ("/my files/train", ("/my files/train",), {}),
    ],
)
def test_a_line_with_paths_that_only_the_hosts_have(job, line, command, variables):
    made = job("-n", 1, "-H", "a,", line)
    assert (made.command, made.env_worker) == (command, variables)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["python x.py 'a"], "the command \"python x.py 'a\" cannot be read: No closing quotation"),
        ([" "], "no command is given: launch.py -n 2 train.py"),
        (["A=1"], "no command is given: launch.py -n 2 train.py"),
        (["-m"], "-m names no module: launch.py -n 2 -m package.module"),
        (
            ["cd", "d"],
            "the command 'cd' is the shell's own; give it the whole line in quotes: "
            "launch.py -n 2 'cd d && python x.py'",
        ),
        (
            ["python9 x.py"],
            "the command 'python9' does not exist; leave it out, and the script runs under "
            f"{sys.executable}",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_told_with_the_form_to_write(faults, words, fault):
    assert faults("-n", 1, *words) == [fault]


def test_what_is_copied_has_its_place_in_the_copy(job, folder):
    made = job("-n", 1, "-H", "a,", "--sync-dst-dir", "x", os.fspath(folder / "train.py"))
    assert made.command == ("train.py",)
