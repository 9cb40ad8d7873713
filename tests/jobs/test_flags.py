"""What flags and commands do to whole jobs."""

import pytest

from tests.cluster import Cluster

pytestmark = pytest.mark.jobs


def test_an_interface_is_of_no_concern_on_one_machine(cluster: Cluster) -> None:
    """DMLC_INTERFACE is often left in an environment by MXNet's own store."""
    cluster.script("import os, sys\nprint('ran', os.environ['B'], sys.argv[1:])", "job.py")
    flags = ["--launcher", "local", "--interface", "ib0"]
    run = cluster.run(
        "-n", 1, *flags, "-x", "B=1", "-m", "job", "-n", env={"DMLC_INTERFACE": "ib0"}
    )
    assert "worker 0 | ran 1 ['-n']" in run.out
    assert run.err.startswith(
        "launch.py: note: --interface has no effect with --launcher local\nbaryon: no worker"
    )


def test_logs_of_two_jobs_in_one_directory(cluster: Cluster) -> None:
    """One at a time, and the second empties nothing of the first's."""
    script = cluster.script("import sys; print('I am', *sys.argv[1:], flush=True); input()")
    waits = cluster.script("print('WAITS', flush=True); import signal; signal.pause()", "waits.py")
    flags = ["-n", 1, "--log-dir", "logs"]
    cluster.run(*flags, script, "first", code=1)
    run = cluster.start(*flags, waits)
    run.wait_for_output("WAITS")
    logs = cluster.cwd / "logs"
    assert "I am first" in (logs / "earlier-1" / "worker-0.log").read_text()
    assert "logs of an earlier job are in logs/earlier-1 now" in run.err
    second = cluster.run(*flags, script, "second", code=2)
    assert f"another job writes to {logs}; choose another --log-dir" in second.err
    run.signal(15)
    assert run.end() == 143
    assert (logs / "worker-0.log").read_text().startswith("WAITS")


def test_a_python_without_mxnet_is_named(cluster: Cluster) -> None:
    """Whatever starts it; a bare ModuleNotFoundError says nothing of a way out."""
    path = "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]"
    script = cluster.script(f"{path}\nimport mxnet\n")
    run = cluster.run("-n", 1, script, code=1)
    assert "has no mxnet; leave the interpreter out of the command" in run.out + run.err
