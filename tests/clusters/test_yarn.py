"""Whole jobs through a stand-in for YARN (yarn_bed.py), which runs what containers run for real."""

import os
import re
import signal
import stat
from pathlib import Path
from typing import Dict, Iterator, Optional

import pytest

from tests.cluster import REPOSITORY, Cluster, JobRun

from .scripts import SAVES, WAITS
from .yarn_bed import YarnBed, stop

pytestmark = pytest.mark.jobs

DIGITS = REPOSITORY / "examples" / "train_digits.py"


class YarnCluster(Cluster):
    """Starts jobs through a bed."""

    def __init__(self, cwd: Path, bed: YarnBed) -> None:
        super().__init__(cwd)
        self.bed = bed

    def start(
        self, *args: object, env: Optional[Dict[str, str]] = None, ignore: Optional[int] = None
    ) -> JobRun:
        env = {**self.bed.env, **(env or {})}
        run = super().start("--launcher", "yarn", *args, env=env, ignore=ignore)
        self.bed.tags.put(run.tag)
        return run

    def close(self) -> None:
        super().close()
        assert list(self.cwd.rglob(".agents-*")) == []
        running = [a.name for a in self.bed.applications.values() if a.state == "RUNNING"]
        assert running == []


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[YarnCluster]:
    (tmp_path / "job").mkdir()
    with YarnBed(tmp_path / "bed") as bed:
        cluster = YarnCluster(tmp_path / "job", bed)
        yield cluster
        cluster.close()


def test_digits_train_as_on_one_machine(cluster: YarnCluster) -> None:
    """The same layout of workers, servers and hosts, simulated here: the same bits."""
    layout = ["-n", 2, "--workers-per-host", 1, "--env", "OMP_NUM_THREADS=1"]
    script = [DIGITS, "--epochs", 1, "--batch-size", 64, "--export"]
    run = cluster.run(*layout, *script, cluster.cwd / "yarn")
    assert "Epoch 1." in run.out
    assert f"YARN {cluster.bed.last().name} runs on 2 containers" in run.err
    Cluster.start(cluster, "--launcher", "local", *layout, *script, cluster.cwd / "local").end()
    weights = [(cluster.cwd / f"{name}-0000.params").read_bytes() for name in ("yarn", "local")]
    assert weights[0] == weights[1]


def test_options_reach_yarn_as_they_are_from_a_directory_called_anything(
    cluster: YarnCluster,
) -> None:
    directory = cluster.cwd / "100% \U0001f34e 'it' \"is\" $HOME `id` \\"
    directory.mkdir()
    cluster.script("import os\nprint('I am', os.environ['CUDA_VISIBLE_DEVICES'])\n")
    run = cluster.run(
        *("-n", 2, "--workers-per-host", 2, "--mem", "3G", "--cpus-per-worker", 3),
        *("--gpus-per-worker", 1, "--queue", "default", "--job-name", 'it\'s "mine"'),
        *("--constraint", "big", "--extra", "--shell_env 'A=$two \"words\"'"),
        *("--job-dir", directory, "script.py"),
    )
    assert sorted(re.findall("I am .*", run.out)) == ["I am 0", "I am 1"]
    application = cluster.bed.last()
    assert application.user == "ada lovelace"
    assert application.request["application-name"] == 'it\'s "mine"'
    assert application.request["app-node-label-expression"] == "big"
    assert application.arguments == {
        "num_containers": "1",
        "container_memory": "3072",
        "container_vcores": "6",
        "priority": "0",
        "container_resources": "yarn.io/gpu=2",
        "shell_env": 'A=$two "words"',
    }
    assert sorted(path.suffix for path in directory.iterdir()) == [".command", ".out", ".sh"]


def test_a_worker_that_fails_gives_its_code(cluster: YarnCluster) -> None:
    cluster.script("import os, sys\nsys.exit(3 * (os.environ['DMLC_WORKER_ID'] == '1'))")
    run = cluster.run("-n", 2, "script.py", code=3)
    assert re.search(r"worker 1 \(\S+\) exited with code 3", run.err)


def test_a_container_that_yarn_stops_is_noticed_at_once(cluster: YarnCluster) -> None:
    cluster.script(WAITS)
    run = cluster.start("-n", 2, "script.py")
    run.wait_for_output("here", 2)
    stop(cluster.bed.last().containers[1])
    assert run.end(20) == 1
    assert "ended: stopped by YARN" in run.err
    assert "and with it server 1, worker 1" in run.err


def test_a_job_killed_from_outside_says_by_whom(cluster: YarnCluster) -> None:
    cluster.script(WAITS)
    run = cluster.start("-n", 2, "script.py")
    run.wait_for_output("here", 2)
    application = cluster.bed.last()
    application.kill(f"Application {application.name} was killed by user bob at 10.0.0.1")
    assert run.end() == 143
    assert f"{application.name} was killed by user bob at 10.0.0.1" in run.err


def test_ctrl_c_leaves_no_process(cluster: YarnCluster) -> None:
    cluster.script(WAITS)
    run = cluster.start("-n", 2, "script.py")
    run.wait_for_output("here", 2)
    run.signal(signal.SIGINT)
    assert run.end() == 130
    run.wait_until_gone()
    assert cluster.bed.last().state in ("KILLED", "FINISHED")


def test_keys_lie_in_private_files_and_the_queue_has_a_limit(cluster: YarnCluster) -> None:
    cluster.bed.held = True
    cluster.script("print('never')")
    run = cluster.start("-n", 2, "--queue-timeout", 3, "script.py")
    run.wait_for_output("waits: ACCEPTED: Application is added to the scheduler")
    (directory,) = cluster.cwd.rglob(".agents-*")
    files = sorted(directory.iterdir())
    assert [path.name for path in files] == ["agent-0.json", "agent-1.json"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert run.end() == 1
    assert re.search(
        r"YARN application_\d+_0001 waited \d+ s \(--queue-timeout\): ACCEPTED: Application is "
        r"added to the scheduler and is not yet activated\. Queue's AM resource limit exceeded\.\n",
        run.err,
    )
    assert cluster.bed.last().state == "KILLED"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere", "has failed: Application .* submitted by user .* to unknown queue: nowhere"),
        ("private", "YARN did not take the job: User .* does not have permission to submit"),
    ],
)
def test_what_yarn_rejects_is_said_in_its_words(
    cluster: YarnCluster, name: str, words: str
) -> None:
    cluster.script("print('never')")
    run = cluster.run("-n", 2, "--queue", name, "script.py", code=1)
    assert re.search(words, run.err)


def test_workers_are_told_to_end_before_the_time_limit(cluster: YarnCluster) -> None:
    cluster.script(SAVES)
    run = cluster.start("-n", 1, "--time", "8s", "script.py")
    assert run.end() == 124
    assert "I am saved" in run.out
    assert re.search(r"YARN application_\S+ reaches its time limit in \d s", run.err)
    timeout = cluster.bed.last().timeout
    assert timeout is not None
    assert timeout["type"] == "LIFETIME"
    assert re.fullmatch(r"\d{4}(-\d\d){2}T(\d\d:){2}\d\d\.000\+0000", timeout["expiryTime"])


def test_a_python_that_nodes_do_not_have(cluster: YarnCluster) -> None:
    cluster.script("print('never')")
    run = cluster.run("-n", 1, "--python", "/no/such/python", "script.py", code=1)
    assert "/no/such/python: No such file or directory" in run.err
    assert "exited with code 127" in run.err


def test_no_resource_manager_answers(cluster: YarnCluster) -> None:
    cluster.script("print('never')")
    site = Path(cluster.bed.env["HADOOP_CONF_DIR"], "yarn-site.xml")
    site.write_text(re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", site.read_text()))
    run = cluster.run("-n", 1, "script.py", code=1)
    assert (
        "YARN did not take the job: no ResourceManager answers: http://127.0.0.1:1: [Errno 111]"
        in run.err
    )
    os.rename(site, site.with_name("another.xml"))
    run = cluster.run("-n", 1, "script.py", code=2)
    assert "set HADOOP_CONF_DIR to the directory with your cluster's yarn-site.xml" in run.err
