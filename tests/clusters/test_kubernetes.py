"""Whole jobs through the official client and a stand-in for Kubernetes, whose pods are real
processes."""

import re
import signal
from typing import Callable

import pytest

from baryon.launcher.clusters.kubernetes import Kubernetes, connect, make_plan
from baryon.launcher.clusters.kubernetes.status import status_of
from baryon.launcher.clusters.watch import OVER, QUEUED, RUNNING, Status
from baryon.launcher.options import parse
from baryon.ps import PeerError
from tests.cluster import JobRun
from tests.waiting import wait_until

from .conftest import KubeCluster
from .kube_bed import IMAGE
from .scripts import DIGITS, WAITS, said

pytestmark = pytest.mark.kubernetes


def waiting_job(kube: KubeCluster, *args: object) -> JobRun:
    """One whose two workers are there and wait."""
    kube.script(WAITS)
    run = kube.start("-n", 2, "-s", 1, *args, "script.py")
    run.wait_for_output("here", 2)
    return run


def test_digits_train_as_on_one_machine(kube: KubeCluster, local_digits: bytes) -> None:
    """The same layout of workers, servers and hosts, simulated here: the same bits."""
    run = kube.run(*DIGITS, kube.cwd / "kubernetes")
    assert "Epoch 1." in run.out
    assert (kube.cwd / "kubernetes-0000.params").read_bytes() == local_digits


def test_a_pod_has_what_its_manifest_says(kube: KubeCluster) -> None:
    kube.script(
        "import os, socket\n"
        "names = ['DMLC_WORKER_ID', 'CUDA_VISIBLE_DEVICES', 'BARYON_DEVICES', 'OMP_NUM_THREADS']\n"
        "shm = os.statvfs('/dev/shm')\n"
        "print('I am', socket.gethostname().split('-', 2)[2], *map(os.environ.get, names),\n"
        "      shm.f_blocks * shm.f_frsize >> 20, os.getppid())\n"
    )
    run = kube.run(
        *("-n", 4, "--workers-per-host", 2, "--gpus-per-worker", 2, "--cpus-per-worker", 3),
        *("--mem", "2Gi", "--shm-size", "64Mi", "script.py"),
    )
    lines = [line.rsplit(" ", 1)[0] for line in said(run.out)]
    assert lines == ["0 0 0,1 2 3 64", "0 1 2,3 2 3 64", "1 2 0,1 2 3 64", "1 3 2,3 2 3 64"]
    logs = {path.name for path in next((kube.cwd / "baryon-logs").iterdir()).iterdir()}
    assert logs >= {f"worker-{rank}.log" for rank in range(4)}


def test_a_worker_that_fails_gives_its_code(kube: KubeCluster) -> None:
    kube.script("import os, sys\nsys.exit(3 * (os.environ['DMLC_WORKER_ID'] == '1'))")
    run = kube.run("-n", 2, "script.py", code=3)
    assert re.search(r"worker 1 \(script-\w{8}-1\) exited with code 3", run.err)


def test_ctrl_c_leaves_nothing(kube: KubeCluster) -> None:
    run = waiting_job(kube)
    (job,) = kube.bed.names("jobs")
    assert kube.bed.names("secrets") == kube.bed.names("services") == [job]
    run.signal(signal.SIGINT)
    assert run.end() == 130
    assert kube.bed.names("jobs") == kube.bed.names("pods") == []


def test_the_death_of_launch_py_ends_the_pods(kube: KubeCluster) -> None:
    run = waiting_job(kube, "--heartbeat-timeout", 2)
    processes = kube.bed.process(0).processes() + kube.bed.process(1).processes()
    run.signal(signal.SIGKILL)
    assert run.end() == -signal.SIGKILL
    wait_until(lambda: not any(process.is_running() for process in processes), "no process")
    (job,) = kube.bed.names("jobs")
    kube.bed.delete("jobs", job)  # as ttlSecondsAfterFinished does


def test_a_job_deleted_from_outside_says_so(kube: KubeCluster) -> None:
    run = waiting_job(kube)
    (job,) = kube.bed.names("jobs")
    kube.bed.delete("jobs", job)
    assert run.end() == 143
    assert f"Kubernetes job team/{job} was deleted from outside, as by kubectl delete" in run.err


def test_a_job_for_which_there_is_no_place(kube: KubeCluster) -> None:
    kube.script("print('never')")
    args = ["--queue-timeout", 1, "-n", 1, "script.py"]
    run = kube.run("--gpus-per-worker", 5, *args, code=1)
    words = "1 of 1 pods: Unschedulable: 0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
    assert f" waits: {words}" in run.err
    assert f" s (--queue-timeout): {words}" in run.err


def test_ctrl_c_where_only_some_pods_have_a_place(kube: KubeCluster) -> None:
    kube.script(WAITS)
    run = kube.start("-n", 3, "-s", 1, "--spread", "required", "script.py")
    run.wait_for_output("waits: 1 of 3 pods: Unschedulable")
    run.signal(signal.SIGINT)
    assert run.end(12) == 130
    assert "here" not in run.out, "workers that are there wait for the others"
    assert "did not end in time" not in run.err


def test_what_an_agent_says_before_it_is_heard(kube: KubeCluster) -> None:
    kube.script("print('never')")
    run = kube.run("--python", "no-such-python", "-n", 1, "script.py", code=1)
    assert re.search(r"pod \S+ on node1 exited with code 127 \(Error\)", run.err)
    assert re.search(r"script-\w+-0-\w+: sh: .*no-such-python: not found", run.err)


def test_pods_that_cannot_reach_this_machine(kube: KubeCluster) -> None:
    kube.script("print('never')")
    kube.bed.has_network = False
    run = kube.run("--heartbeat-timeout", 1, "-n", 1, "script.py", code=1)
    assert re.search(r"the scheduler at tcp://127\S+ has not answered for", run.err)
    assert "cannot reach this machine at 127.0.0.1, run launch.py in a pod, name the" in run.err


def test_the_time_limit(kube: KubeCluster) -> None:
    kube.script(WAITS)
    run = kube.run("-n", 1, "--time", "5s", "script.py", code=124)
    assert re.search(r"reaches its time limit in \d s|DeadlineExceeded", run.err)


# -- without launch.py: what the manager does and says ------------------------------------------

SLEEPS = ["sh", "-c", "echo here; trap 'exit 143' TERM; sleep 1000 & wait"]


@pytest.fixture
def submit(kube: KubeCluster, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Kubernetes]:
    """Submit a job of two pods that only sleep."""
    kube.script("")
    monkeypatch.chdir(kube.cwd)
    monkeypatch.setenv("KUBECONFIG", kube.bed.env["KUBECONFIG"])

    def submit(*args: str) -> Kubernetes:
        usual = ["--launcher", "kubernetes", "--image", IMAGE, "-n", "2"]
        job, options = parse([*usual, *args, "script.py"])
        plan = make_plan(job, options)
        plan.job["spec"]["template"]["spec"]["containers"][0]["command"] = SLEEPS
        manager = Kubernetes(connect(options.context, options.namespace), plan, job, "")
        manager.configs = {0: b"zero", 1: b"one"}
        manager.submit()
        return manager

    return submit


def wait_for(manager: Kubernetes, phase: str) -> Status:
    seen = [manager.status()]

    def has_come() -> bool:
        seen.append(seen[-1] if seen[-1].phase == phase else manager.status())
        return seen[-1].phase == phase

    wait_until(has_come, phase, 20.0)
    return seen[-1]


def test_what_kubernetes_refuses(kube: KubeCluster, submit: Callable[..., Kubernetes]) -> None:
    def refusal(*args: str) -> str:
        with pytest.raises(PeerError) as caught:
            submit(*args)
        return str(caught.value)

    words = "did not take the job: "
    assert refusal("--namespace", "no") == f'{words}namespaces "no" not found (404)'
    quota = 'jobs.batch "script" is forbidden: exceeded quota: small, limited: count/jobs.batch=0'
    kube.bed.forbidden["create", "jobs"] = quota
    assert refusal() == f"{words}{quota} (403)"
    rights = "secrets is forbidden: User cannot create resource"
    kube.bed.forbidden = {("create", "secrets"): rights}
    assert refusal() == f"{words}{rights} (403)"


def test_a_pod_that_runs_out_of_memory(
    kube: KubeCluster, submit: Callable[..., Kubernetes]
) -> None:
    manager = submit()
    assert wait_for(manager, RUNNING).words == "node1, node2"
    kube.bed.oom_kill(1)
    status = wait_for(manager, OVER)
    assert re.fullmatch(
        r"has failed: pod script-\w+-1-\w+ on node2 was OOMKilled: it needs more memory \(--mem\)",
        status.words,
    )
    assert status.exit_code == 137
    log = (kube.cwd / manager.outputs[0]).read_text().splitlines()
    assert re.fullmatch(r"script-\w+-1-\w+: here", log[0])


@pytest.mark.parametrize("is_late", [False, True])
def test_a_pod_that_is_preempted(
    kube: KubeCluster, submit: Callable[..., Kubernetes], is_late: bool
) -> None:
    """It is gone as soon as it has ended, which is often before anybody looks."""
    manager = submit()
    wait_for(manager, RUNNING)
    with kube.bed.lock:
        kube.bed.preempt(0)
        if not is_late:
            pods = list(kube.bed.objects["pods"].values())
            (job,) = kube.bed.objects["jobs"].values()
            status = status_of(job, pods, "", 0.0)
            assert "on node1 was taken away: PreemptionByScheduler: default-sch" in status.words
    if is_late:
        wait_until(lambda: not kube.bed.names("pods"), "pods' end")
        status = manager.status()
        assert re.search(
            r"Pod team/script-\w+-0-\w+ has condition DisruptionTarget .*; "
            r"Preempted: Preempted by pod 1234",
            status.words,
        )
    assert status.exit_code == 143
    wait_for(manager, OVER)


def test_a_pod_that_is_deleted(kube: KubeCluster, submit: Callable[..., Kubernetes]) -> None:
    manager = submit()
    wait_for(manager, RUNNING)
    kube.bed.delete("pods", kube.bed.names("pods")[1])
    wait_until(lambda: not kube.bed.names("pods"), "the pods' end")
    assert wait_for(manager, OVER).words.startswith("has failed: BackoffLimitExceeded")


def test_an_image_that_is_not_to_be_had(submit: Callable[..., Kubernetes]) -> None:
    manager = submit("--image", "no/such:1", "--start-timeout", "0.5")
    assert re.fullmatch(
        r"cannot start \(--start-timeout 0.5\): pod \S+ on node1: ImagePullBackOff: "
        r'failed to resolve reference "no/such:1": not found',
        wait_for(manager, OVER).words,
    )


def test_a_quota_of_pods(kube: KubeCluster, submit: Callable[..., Kubernetes]) -> None:
    words = kube.bed.pod_refusal = 'pods "script-0" is forbidden: exceeded quota: small'
    manager = submit()
    wait_until(lambda: manager.status() == Status(QUEUED, f"FailedCreate: {words}"), words)
    manager.cancel()
    wait_for(manager, OVER)
