"""Standard streams that are closed, full, or that nobody reads; and Ctrl-C during the imports."""

import os
import signal
import subprocess
import sys

import pytest

from tests.cluster import REPOSITORY
from tests.waiting import LIMIT_S

LAUNCH = f"{sys.executable} -m baryon.launcher"
STATUS = f'{sys.executable} -c "from baryon.entry import baryon; exit(baryon())" status'


def shell(command, cwd, **env):
    return subprocess.run(
        ["bash", "-c", command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "XDG_STATE_HOME": str(cwd), **env},
        capture_output=True,
        timeout=LIMIT_S,
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    ("command", "code"),
    [(f"{LAUNCH} -n 1 --dry-run true", 0), (f"{LAUNCH} -n 0 true", 2), (STATUS, 0)],
)
def test_closed_streams_change_no_exit_code(command, code, closed, tmp_path):
    done = shell(f"{command} {closed}", tmp_path)
    assert done.returncode == code
    assert b"Traceback" not in done.stderr


def test_nothing_that_is_opened_later_gets_the_number_of_a_closed_stream(tmp_path):
    code = (
        "import os; from baryon.launcher.streams import open_streams; open_streams(); print(1);"
        "assert [os.dup(0), os.dup(1)] == [3, 4];"
        "os.execv('/bin/sh', ['sh', '-c', 'echo y && echo z >&2'])"
    )
    done = shell(f'{sys.executable} -c "{code}" <&- >&- 2>&-', tmp_path)
    assert done.returncode == 0, "and what it starts has them, too"


def test_a_full_disk_is_told_of_in_one_line(tmp_path):
    done = shell(f"{STATUS} > /dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        b"baryon: error: cannot write to standard output: No space left on device\n"
    )


def test_a_reader_that_has_gone_ends_it_as_it_ends_others(tmp_path):
    """As with `baryon logs | head`."""
    code = "import baryon.launcher as l; exit(l._guarded('', lambda say: print('x' * 10**7)))"
    done = shell(f'{sys.executable} -c "{code}" | true; exit ${{PIPESTATUS[0]}}', tmp_path)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_ctrl_c_while_it_imports_is_one_line(tmp_path):
    (tmp_path / "msgspec.py").write_text("import os\nos.kill(os.getpid(), 2)\nwhile True: pass\n")
    launch = f'{sys.executable} -c "from baryon.entry import launch; launch()"'
    done = shell(launch, tmp_path, PYTHONPATH=f"{tmp_path}:{REPOSITORY}")
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr == b"launch.py: interrupted; nothing was started\n"


def test_ctrl_c_later_says_nothing_of_what_was_started(tmp_path):
    interrupt = "lambda say: os.kill(os.getpid(), 2)"
    code = f"import os, baryon.launcher as l; exit(l._guarded('launch.py', {interrupt}))"
    done = shell(f'{sys.executable} -c "{code}"', tmp_path)
    assert (done.returncode, done.stderr) == (130, b"launch.py: interrupted\n")
