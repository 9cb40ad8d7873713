"""BatchCluster and its thread, on a manager that says what a test wants it to."""

import threading
from typing import List

import pytest

from baryon.launcher.clusters import batch, batch_job
from baryon.launcher.clusters.batch import BatchCluster
from baryon.launcher.clusters.watch import OVER, QUEUED, RUNNING, Status, Watch
from baryon.ps import PeerError
from baryon.scheduler.control import AgentConfig, Host, Job, Task
from tests.waiting import wait_until


class FakeManager:
    """``submission`` and ``answer`` are what it says now; exceptions are raised, and a `Hang` is
    waited for. What is cancelled is over."""

    name = "Fake"

    def __init__(self, answer, submission="Fake job 1", output="/nowhere/out"):
        self.outputs = [output]
        self.answer, self.submission = answer, submission
        self.cancels = 0
        self.threads = set()  # that have called anything but `cancel`

    def submit(self):
        self.threads.add(threading.current_thread())
        return told(self.submission)

    def status(self):
        self.threads.add(threading.current_thread())
        return told(self.answer)

    def cancel(self):
        self.cancels += 1
        self.answer = Status(OVER, "was cancelled")

    def ended_agents(self, line):
        self.threads.add(threading.current_thread())
        return [(int(line[-1]), "ended")] if line.startswith("end of ") else []


class Hang:
    """A command that does not end before it is ``over``; ``begun`` says that it is under way."""

    def __init__(self):
        self.begun, self.over = threading.Event(), threading.Event()


def told(answer):
    if isinstance(answer, Hang):
        answer.begun.set()
        assert answer.over.wait(20)
        raise PeerError("it took too long")
    if isinstance(answer, Exception):
        raise answer
    return answer


JOB = Job(
    id="j",
    command=("a",),
    cwd="/",
    hosts=(Host("a"), Host("b")),
    tasks=(Task("worker", 0, 0, 0), Task("worker", 1, 1, 0)),
    python="python",
    log_dir="/nowhere",
)
BUSY, BOTH = Status(QUEUED, "busy"), Status(RUNNING, "a, b")


@pytest.fixture
def said() -> List[str]:
    return []


@pytest.fixture
def begun(tmp_path, said, monkeypatch):
    """Makes a cluster of two hosts, whose agents have been asked for."""
    for name in ("_FIRST_S", "_HURRY_S", "_RUNNING_S"):
        monkeypatch.setattr(batch_job, name, 0.01)
    monkeypatch.setitem(batch_job._INTERVALS_S, QUEUED, 0.01)
    monkeypatch.setattr(batch_job, "_KILL_LIMIT_S", 0.2)
    monkeypatch.setattr(batch, "_MANAGER_S", 0.5)
    monkeypatch.setattr(batch_job, "COMMAND_LIMIT_S", 0.2)
    clusters = []

    def begin(manager, is_for_good=False):
        watch = Watch(None, 60.0, lambda: 0.0)
        directory = str(tmp_path / "agents")
        cluster = BatchCluster(manager, directory, "::1", watch, said.append, is_for_good)
        for host in range(2):
            config = AgentConfig(
                job="j", host=host, endpoint="e", scheduler_key="k", public_key="p",
                secret_key="s", silence_s=1.0,
            )  # fmt: skip
            cluster.start(JOB, host, config)
        clusters.append(cluster)
        return cluster

    yield begin
    for cluster in clusters:
        cluster.kill()


def trouble_of(cluster):
    """The next one."""
    found = []
    wait_until(lambda: found.append(cluster.trouble()) or found[-1], "trouble", 10.0)
    return found[-1]


def test_it_is_taken_and_runs_and_fails(begun, said):
    manager = FakeManager(BUSY)
    cluster = begun(manager)
    wait_until(cluster.name, "the job to be taken")
    wait_until(lambda: cluster.trouble() or said == ["Fake job 1 waits: busy"], "the queue")
    assert cluster.is_queued() and cluster.name() == "Fake job 1"
    manager.answer = BOTH
    wait_until(lambda: not cluster.is_queued(), "the hosts")
    assert cluster.ended() == []
    manager.answer = Status(OVER, "has failed", None, 3)
    assert trouble_of(cluster) == ("Fake job 1 has failed", 3, None)
    assert sorted(cluster.ended()) == [(0, "ended"), (1, "ended")]
    assert cluster.ended() == [] and not cluster.was_interrupted()
    assert manager.cancels == 0


def test_what_agents_write_is_said_and_tells_of_their_end(begun, said, tmp_path):
    output = tmp_path / "out"
    output.write_text("of an earlier job\n")
    cluster = begun(FakeManager(BOTH, output=str(output)))
    wait_until(lambda: cluster.trouble() or said, "the hosts")
    with output.open("a") as file:
        file.write("hello\nend of 1\nhalf a li")
    wait_until(lambda: cluster.trouble() or "end of 1" in said, "the lines")
    assert said[-2:] == ["hello", "end of 1"]
    found = []
    wait_until(lambda: found.extend(cluster.ended()) or found, "the end of an agent")
    assert cluster._manager.threads == {cluster._job._thread}
    assert found == [(1, "ended")]


def test_what_the_manager_says_of_an_end_comes_first(begun, said, tmp_path, monkeypatch):
    """It has cancelled the job, which agents notice sooner than it says so."""
    monkeypatch.setattr(batch, "_MANAGER_S", 1000.0)
    output = tmp_path / "out"
    manager = FakeManager(BOTH, output=str(output))
    cluster = begun(manager)
    wait_until(lambda: not cluster.is_queued(), "the hosts")
    output.write_text("end of 1\n")
    wait_until(lambda: cluster.trouble() or "end of 1" in said, "the line")
    assert cluster.ended() == []
    manager.answer = Status(OVER, "was cancelled from outside", None, 143)
    assert trouble_of(cluster).exit_code == 143


@pytest.mark.parametrize("error", [PeerError("did not take the job: no"), KeyError("x")])
def test_a_job_that_is_not_taken(begun, error):
    cluster = begun(FakeManager(BUSY, submission=error))
    text, code, _ = trouble_of(cluster)
    assert code == 1 and cluster.name() is None
    assert text in (
        "Fake did not take the job: no",
        "Fake cannot be followed any more, by KeyError('x')",
    )


def test_an_answer_that_nobody_has_thought_of_ends_the_job(begun):
    manager = FakeManager(BUSY)
    cluster = begun(manager)
    manager.answer = ValueError("no XML")
    text, code, _ = trouble_of(cluster)
    assert text.startswith("Fake job 1 cannot be followed any more, by ValueError('no XML')")
    assert (code, manager.cancels) == (1, 1)


def test_a_manager_that_is_silent_for_a_while(begun, said):
    manager = FakeManager(BOTH)
    cluster = begun(manager)
    wait_until(lambda: not cluster.is_queued(), "the hosts")
    manager.answer = PeerError("busy")
    wait_until(lambda: cluster.trouble() or len(said) == 2, "what is said of it")
    assert said[1] == "the manager of Fake job 1 does not answer: busy"
    manager.answer = Status(OVER, "is over")
    assert trouble_of(cluster).text == "Fake job 1 is over"


def test_a_command_that_hangs_does_not_keep_a_job_from_being_cancelled(begun, said):
    manager = FakeManager(BOTH)
    cluster = begun(manager)
    wait_until(lambda: not cluster.is_queued(), "the hosts")
    hang = manager.answer = Hang()
    assert hang.begun.wait(10)
    cluster.kill()
    thread = cluster._job._thread
    assert thread.is_alive() and manager.cancels == 1
    assert said[-1] == "Fake job 1 has not ended yet; its manager has been told to"
    cluster.kill()
    assert sum("not ended yet" in text for text in said) == 1
    hang.over.set()
    thread.join(10)
    assert manager.cancels == 1, "also not when the thread goes on"
    assert manager.threads == {thread}


def test_a_disk_that_hangs_does_not_keep_a_job_from_ending(begun, said, tmp_path, monkeypatch):
    cluster = begun(FakeManager(BOTH))
    monkeypatch.setattr(batch, "_REMOVE_LIMIT_S", 0.05)
    goes_on = threading.Event()
    monkeypatch.setattr(batch.shutil, "rmtree", lambda *args, **kwargs: goes_on.wait(20))
    cluster.kill()
    goes_on.set()
    assert said[-1] == f"{tmp_path}/agents could not be removed in time; it holds this job's keys"


def test_a_submission_that_hangs_is_told_of(begun, said):
    hang = Hang()
    cluster = begun(FakeManager(BUSY, submission=hang))
    cluster.kill()
    assert said == ["Fake has not said yet whether it takes the job: look whether it has"]
    hang.over.set()


def test_hosts_that_never_came_are_not_waited_for(begun):
    manager = FakeManager(BUSY)
    cluster = begun(manager)
    wait_until(cluster.name, "the job to be taken")
    cluster.release(0)
    found = []
    wait_until(lambda: found.extend(cluster.ended()) or found, "the first host", 10.0)
    assert found == [(0, "was not started")] and manager.cancels == 0
    cluster.release(1)
    wait_until(lambda: found.extend(cluster.ended()) or len(found) == 2, "the other one", 10.0)
    wait_until(lambda: manager.cancels == 1, "the end of the job")


def test_a_job_that_has_run_between_two_looks_is_not_cancelled(begun):
    """Its agents have come and gone while the last answer was that it waits."""
    manager = FakeManager(BUSY)
    cluster = begun(manager)
    wait_until(cluster.name, "the job to be taken")
    manager.answer = Status(OVER, "is over")
    cluster.release(0)
    cluster.release(1)
    wait_until(lambda: cluster._job.status.phase == OVER, "the end")
    assert sorted(cluster.ended()) == [(0, "ended"), (1, "ended")]
    assert manager.cancels == 0


@pytest.mark.parametrize("is_for_good", [False, True])
def test_who_may_be_submitted_again(begun, is_for_good):
    manager = FakeManager(Status(OVER, "was preempted", None, 143, True))
    cluster = begun(manager, is_for_good)
    assert trouble_of(cluster).exit_code == 143
    assert cluster.was_interrupted() is not is_for_good


def test_a_host_that_was_lost_is_an_interruption(begun):
    cluster = begun(FakeManager(BOTH))
    wait_until(lambda: not cluster.is_queued(), "the hosts")
    assert not cluster.was_interrupted()
    cluster.kill(frozenset({1}))
    assert cluster.was_interrupted()
