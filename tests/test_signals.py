"""What a test starts has default signal handling, however the tests themselves were started."""

import os
import signal
import subprocess
import sys

from tests.cluster import REPOSITORY
from tests.waiting import LIMIT_S

SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


def ignored_by_a_child() -> set:
    code = "import sys; print(open('/proc/self/status').read().split('SigIgn:')[1].split()[0])"
    mask = int(subprocess.check_output([sys.executable, "-c", code]), 16)
    return {signum for signum in SIGNALS if mask >> (signum - 1) & 1}


def test_nothing_is_ignored_by_what_a_test_starts() -> None:
    assert ignored_by_a_child() == set()


def test_nor_if_the_tests_are_the_background_of_a_script() -> None:
    """As in `sh -c 'make test &'`, where the shell ignores them."""
    name = f"{os.path.relpath(__file__, REPOSITORY)}::test_nothing_is_ignored_by_what_a_test_starts"
    pytest = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    done = subprocess.run(
        ["sh", "-c", 'trap "" INT QUIT HUP; exec "$@"', "sh", *pytest, name],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stdout.decode()
