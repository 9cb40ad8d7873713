"""The script that turns any login shell into the right Python, run by the shells themselves."""

import re
import shutil
import subprocess
import sys

import pytest

from baryon.launcher.ssh import Interpreter

NOISE = "echo 'Welcome! last login: ...'; "


def run(interpreter, arguments, shell="/bin/sh", noise=""):
    """What comes of it under a login shell that begins with ``noise``, as sshd would run it."""
    ended = subprocess.run(
        [shell, "-c", noise + interpreter.shell()],
        input=interpreter.script(arguments, "mark"),
        capture_output=True,
        timeout=60,
    )
    out, pid = re.subn(r"\nmark [0-9]+\n", "", ended.stdout.decode(), count=1)
    assert pid == 1, "it says at once who it is"
    return ended.returncode, out, ended.stderr.decode()


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash", "/bin/csh"])
@pytest.mark.parametrize("setup", ["", "export A='it is'"])
def test_arguments_arrive_whatever_the_login_shell_is(shell, setup):
    if not shutil.which(shell):
        pytest.fail(f"{shell} is missing: apt-get install tcsh")
    words = ["a b", "", "'", '"', "$HOME", "\\", "!!", "日本", "\n", "`id`", "*"]
    code = ["-c", "import sys; print(ascii(sys.argv[1:]))", *words]
    returncode, out, err = run(Interpreter([sys.executable], setup), code, shell, NOISE)
    assert (returncode, err) == (0, "")
    assert out.endswith(f"\nmark\n{words!a}\n")
    assert out.startswith("Welcome!")


def test_the_first_candidate_that_is_there_is_taken():
    interpreter = Interpreter(["/no/such/python", "no-such-python", sys.executable, "false"])
    _, out, _ = run(interpreter, ["-c", "import sys; print(sys.executable)"])
    assert out == f"\nmark\n{sys.executable}\n"


def test_an_interpreter_whose_path_is_odd(tmp_path):
    odd = tmp_path / "it's $HOME\nhere"
    odd.mkdir()
    (odd / "python").symlink_to(sys.executable)
    assert run(Interpreter([str(odd / "python")]), ["-c", "print(1)"])[1] == "\nmark\n1\n"


def test_an_interpreter_below_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my python").symlink_to(sys.executable)
    assert run(Interpreter(["~/my python"]), ["-c", "print(1)"])[1] == "\nmark\n1\n"


def test_setup_cannot_read_what_is_not_meant_for_it():
    """What follows the script is for the program, and comes once that has started."""
    interpreter = Interpreter([sys.executable], "cat >&2")
    process = subprocess.Popen(
        ["/bin/sh", "-c", interpreter.shell()],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    process.stdin.write(interpreter.script(["-c", "print(input())"], "mark") + b"key\n")
    process.stdin.flush()
    out, errors = process.communicate(timeout=60)
    assert (out.splitlines()[-1], errors) == (b"key", b"")


def test_no_interpreter():
    returncode, out, err = run(Interpreter(["/no/such/python", "no-such"]), ["-c", ""])
    assert (returncode, out) == (96, "")
    assert err == ("there is no /no/such/python or no-such; name a Python by --python or --setup\n")


def test_a_setup_that_fails():
    returncode, out, err = run(
        Interpreter([sys.executable], "source /no/such/activate"), ["-c", ""]
    )
    assert (returncode, out) == (97, "")
    assert "/no/such/activate" in err
    assert err.endswith("--setup ended with code 1\n")


def test_a_setup_with_a_quote_left_open():
    returncode, _, err = run(Interpreter([sys.executable], "echo 'open"), ["-c", ""])
    assert returncode == 97
    assert "unexpected EOF" in err


def test_what_setup_exports_is_there():
    interpreter = Interpreter([sys.executable], "export A='x y'; echo noise")
    _, out, _ = run(interpreter, ["-c", "import os; print(os.environ['A'])"])
    assert out == "noise\n\nmark\nx y\n"
