"""What a worker's Python says of Ctrl-C."""

import os
import signal
import subprocess
import sys

import pytest

from tests.cluster import REPOSITORY
from tests.waiting import LIMIT_S

CTRL_C = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(100)\n"


def run(code, cwd):
    env = {
        **os.environ,
        "BARYON_TASK": "/no/such/file",
        "PYTHONPATH": str(REPOSITORY / "worker" / "hook"),
    }
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=env, stderr=subprocess.PIPE, timeout=LIMIT_S
    )


@pytest.mark.parametrize(
    "around",
    ["", "try: raise KeyError\nexcept KeyError: ", "try:\n  try:\n    "],
    ids=["plain", "in handler", "translated"],
)
def test_within_an_import_it_is_a_word(around, tmp_path):
    (tmp_path / "library.py").write_text(CTRL_C)
    code = f"{around}import library"
    if around.startswith("try:\n"):  # as NumPy makes an ImportError of what its C part raises
        code += "\n  except BaseException as error: raise ImportError from error\nfinally: pass"
    done = run(code, tmp_path)
    assert done.stderr == b"KeyboardInterrupt\n"
    assert done.returncode in (-signal.SIGINT, 1)


def test_elsewhere_it_says_where(tmp_path):
    done = run(CTRL_C, tmp_path)
    assert done.stderr.startswith(b"Traceback")
    assert done.returncode == -signal.SIGINT


def test_other_errors_of_an_import_are_told_as_ever(tmp_path):
    done = run("import no_such_library", tmp_path)
    assert b"ModuleNotFoundError: No module named 'no_such_library'" in done.stderr
    assert b"Traceback" in done.stderr
