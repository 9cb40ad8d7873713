"""For all tests. A test whose programs are missing is skipped, except in CI, where it fails."""

import os
import signal
import sys
from pathlib import Path
from typing import Iterator, List

import pytest
from hypothesis import HealthCheck, settings

from deploy import testbed
from tests.clusters import kdc, kube_bed, on_hosts, sge_bed, slurm_bed
from tests.leaks import Files, Leaks, check

# Containers often set this variable. Every process of every job would then compile all its modules
# anew, and every test process all tests: a fifth of the suite's processor time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# The shell ignores SIGINT and SIGQUIT for a script's `cmd &`, nohup ignores SIGHUP, and all that is
# started from here would, too: no test's Ctrl-C would ever arrive. A program gets the default for a
# signal that has a handler where it is started.
for _signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_signum) == signal.SIG_IGN:
        _is_ctrl_c = _signum == signal.SIGINT
        signal.signal(_signum, signal.default_int_handler if _is_ctrl_c else lambda *_: None)

PROBLEMS = {
    "hosts": testbed.problems,
    "slurm": slurm_bed.problems,
    "sge": sge_bed.problems,
    "mpi": on_hosts.mpi_problems,
    "kubernetes": kube_bed.problems,
    "kerberos": kdc.problems,
}
"""By marker: what says why its tests cannot run here."""

REAL = ("jobs", "native", *PROBLEMS)
"""Markers of tests that take real processes and seconds each; all others are quick."""

JOBS = Path(__file__).parent / "jobs"

SHARED = {
    "bed": "bed",
    "odd_bed": "odd_bed",
    "slurm": "slurm",
    "kubernetes": "kubernetes",
    "kdc": "kdc",
    "ours": "stores",
    "native": "stores",
    "here": "here",
    "folder": "folder",
    "s3_server": "s3_server",
    "undisturbed": "undisturbed",
}
"""Fixtures that take seconds to make and serve many tests, to what must be made together. With
several processes (pytest-xdist) all tests of one go to the same."""

# Beside other tests the machine is slow, and so are the examples and the making of them.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.hookimpl(tryfirst=True)  # pytest-xdist looks at the groups in the same hook
def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    for item in items:
        if JOBS in item.path.parents:
            item.add_marker("jobs")
        if not any(map(item.get_closest_marker, REAL)):
            item.add_marker("quick")
        for fixture in sorted(SHARED.keys() & set(getattr(item, "fixturenames", ()))):
            name = f"{item.path.parent.name}-{SHARED[fixture]}"
            item.add_marker(pytest.mark.xdist_group(name))
    for marker, problems in PROBLEMS.items():
        marked = [item for item in items if item.get_closest_marker(marker)]
        if marked and "CI" not in os.environ:
            found = problems()
            for item in marked if found else ():
                item.add_marker(pytest.mark.skip(reason="; ".join(found)))


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """The test leaves behind nothing that was not there before it."""
    leaks, files = Leaks(), Files()
    yield
    check(leaks)
    check(files, limit_s=5.0)
