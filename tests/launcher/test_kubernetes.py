"""Kubernetes: the manifests that launch.py makes, and what it reads out of the API's objects."""

import base64
import json
import time

import kubernetes_validate
import pytest
import yaml

from baryon.launcher.clusters import prepare, preview
from baryon.launcher.clusters.kubernetes.manifests import make_plan, secret_of
from baryon.launcher.clusters.kubernetes.status import (
    ALL_ENDED,
    ended_pods,
    obstacle,
    status_of,
)
from baryon.launcher.clusters.watch import OVER, QUEUED, RUNNING, Status
from baryon.launcher.options import parse
from baryon.ps import UsageError

SCHEMAS = ("1.27", kubernetes_validate.latest_version())

MANIFESTS = """\
apiVersion: batch/v1
kind: Job
metadata:
  name: NAME
  labels:
    app.kubernetes.io/name: baryon
    app.kubernetes.io/instance: NAME
    kueue.x-k8s.io/queue-name: team-queue
  annotations:
    baryon-job: JOB
spec:
  completionMode: Indexed
  completions: 2
  parallelism: 2
  backoffLimit: 0
  podFailurePolicy:
    rules:
    - action: FailJob
      onPodConditions:
      - type: DisruptionTarget
        status: 'True'
  ttlSecondsAfterFinished: 300
  activeDeadlineSeconds: 14400
  template:
    metadata:
      labels:
        app.kubernetes.io/name: baryon
        app.kubernetes.io/instance: NAME
    spec:
      restartPolicy: Never
      subdomain: NAME
      terminationGracePeriodSeconds: 10
      automountServiceAccountToken: false
      enableServiceLinks: false
      imagePullSecrets:
      - name: registry
      nodeSelector:
        zone: a
        example.com/disk: ''
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - topologyKey: kubernetes.io/hostname
            labelSelector:
              matchLabels:
                app.kubernetes.io/name: baryon
                app.kubernetes.io/instance: NAME
      containers:
      - name: agent
        image: registry.example.com/me/train:1
        command:
        - /opt/python
        - -c
        - import sys; sys.path[:1] = []; from baryon.scheduler.agent import main; sys.exit(main())
        - /run/baryon
        - JOB_COMPLETION_INDEX
        env:
        - name: OMP_NUM_THREADS
          value: '3'
        - name: CUDA_VISIBLE_DEVICES
          value: 0,1,2,3
        resources:
          requests:
            cpu: '6'
            memory: 64Gi
            nvidia.com/gpu: '4'
          limits:
            cpu: '6'
            memory: 64Gi
            nvidia.com/gpu: '4'
        securityContext:
          allowPrivilegeEscalation: false
        volumeMounts:
        - name: agents
          mountPath: /run/baryon
          readOnly: true
        - name: shm
          mountPath: /dev/shm
      volumes:
      - name: agents
        secret:
          secretName: NAME
          defaultMode: 292
      - name: shm
        emptyDir:
          medium: Memory
          sizeLimit: 8Gi
---
apiVersion: v1
kind: Service
metadata:
  name: NAME
  labels:
    app.kubernetes.io/name: baryon
    app.kubernetes.io/instance: NAME
  ownerReferences:
  - apiVersion: batch/v1
    kind: Job
    name: NAME
    uid: (the Job's)
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector:
    app.kubernetes.io/name: baryon
    app.kubernetes.io/instance: NAME
---
apiVersion: v1
kind: Secret
metadata:
  name: NAME
  labels:
    app.kubernetes.io/name: baryon
    app.kubernetes.io/instance: NAME
  ownerReferences:
  - apiVersion: batch/v1
    kind: Job
    name: NAME
    uid: (the Job's)
type: Opaque
data:
  agent-0.json: (the keys of an agent)
  agent-1.json: (the keys of an agent)
"""
KUBECONFIG = """\
current-context: far
contexts:
- {name: far, context: {cluster: far, namespace: mine}}
- {name: here, context: {cluster: here}}
clusters:
- {name: far, cluster: {server: "http://192.0.2.1"}}
- {name: here, cluster: {server: "http://127.0.0.1:1"}}
"""


@pytest.fixture
def parsed(folder, monkeypatch):
    """(job, options) of a command line, where a kubeconfig is but nobody answers."""
    (folder / "kubeconfig").write_text(KUBECONFIG)
    monkeypatch.setenv("KUBECONFIG", str(folder / "kubeconfig"))
    return lambda *argv: parse(["--launcher", "kubernetes", *argv, "train.py"])


@pytest.fixture
def plan(parsed):
    return lambda *argv: make_plan(*parsed("--image", "i", *argv))


def test_the_manifests_are_exactly_these(parsed):
    job, options = parsed(
        *("-n", "4", "--workers-per-host", "2", "--python", "/opt/python", "--queue", "team-queue"),
        *("--time", "4:00:00", "--mem", "64Gi", "--shm-size", "8Gi", "--cpus-per-worker", "3"),
        *("--gpus-per-worker", "2", "--image", "registry.example.com/me/train:1"),
        *("--image-pull-secret", "registry", "--constraint", "zone=a,example.com/disk="),
        *("--spread", "required"),
    )
    where, _, text = preview(job, options).partition("\n")
    assert where == (
        "# would be created, as by kubectl create, in namespace mine of http://192.0.2.1 "
        "(context far)"
    )
    name = yaml.safe_load(text.split("---")[0])["metadata"]["name"]
    assert name.startswith("train-")
    assert text.replace(name, "NAME").replace(job.id, "JOB") == MANIFESTS
    assert job.devices == 2


@pytest.mark.parametrize("version", SCHEMAS)
@pytest.mark.parametrize(
    "argv",
    [
        ("-n", "1"),
        ("-n", "8", "--workers-per-host", "3", "--mem", "1.5G", "--time", "1h", "--queue", "q"),
        ("-n", "2", "--gpus-per-worker", "1", "--cpus-per-worker", "1", "--constraint", "a=b"),
        ("-n", "2", "--spread", "required", "--shm-size", "1Gi", "--image-pull-secret", "s"),
    ],
)
def test_schemas_take_the_manifests(plan, version, argv):
    made = plan(*argv)
    secret = secret_of(made, {0: b'{"a": 1}\n', 1: b"{}\n"})
    for manifest in (made.job, *made.others, secret):
        kubernetes_validate.validate(manifest, version, strict=True)
    assert base64.b64decode(secret["data"]["agent-0.json"]) == b'{"a": 1}\n'


AWKWARD = 'it\'s "a"\n{{ b }} : # <c> \\ é 😀 - &d *e %f'


def test_awkward_words_arrive_as_they_are(parsed):
    job, options = parsed(
        *("-n", "1", "--image", AWKWARD, "--image-pull-secret", AWKWARD, "--python", AWKWARD),
        *("--queue", AWKWARD, "--constraint", f"{AWKWARD}={AWKWARD}", "--job-name", AWKWARD),
    )
    manifest = make_plan(job, options).job
    pod = manifest["spec"]["template"]["spec"]
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == AWKWARD
    assert pod["containers"][0]["image"] == pod["imagePullSecrets"][0]["name"] == AWKWARD
    assert pod["containers"][0]["command"][0] == AWKWARD
    assert pod["nodeSelector"] == {AWKWARD: AWKWARD}
    assert manifest["metadata"]["name"].startswith("it-s-a-b-c-d-e-f-")


@pytest.mark.parametrize(
    ("given", "stem"),
    [
        ("Train_ResNet.50", "train-resnet-50"),
        ("50", "job-50"),
        ("é", "job"),
        ("x" * 39 + "--y", "x" * 39),
    ],
)
def test_names_are_those_of_a_service(plan, given, stem):
    name = plan("-n", "1", "--job-name", given).name
    assert name.rsplit("-", 1)[0] == stem
    assert len(name) <= 49, "and pods have 14 more"


def test_a_template_of_the_users_own(plan, folder):
    ours = "kind: Job\napiVersion: batch/v1\nmetadata: {name: {{ name }}}\n"
    more = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: mine}\n"
    for text, problem in (
        ("{{ no_such }}", "'no_such' is undefined"),
        (more, "must have one Job, whose name is {{ name }}"),
        (ours.replace("{{ name }}", "mine"), "must have one Job"),
        (ours + "spec", "mine.j2"),
        ("- a", "each of its parts needs apiVersion"),
    ):
        (folder / "mine.j2").write_text(text)
        with pytest.raises(UsageError) as caught:
            plan("-n", "1", "--template", "mine.j2")
        assert problem in str(caught.value)
    (folder / "mine.j2").write_text(ours + more)
    made = plan("-n", "1", "--template", "mine.j2")
    assert made.job["metadata"] == {"name": made.name}
    assert [other["kind"] for other in made.others] == ["ConfigMap"]


def test_wrong_flags_are_named(plan, parsed):
    with pytest.raises(UsageError) as caught:
        make_plan(*parsed("-n", "1", "--mem", "4 GB", "--time", "soon", "--constraint", "gpu"))
    assert str(caught.value).splitlines() == [
        "--launcher kubernetes needs --image NAME, an image with Baryon and your script "
        "(docs/clusters.md says how to make one)",
        "--mem '4 GB': Kubernetes writes sizes as 64Gi or 500Mi",
        "--time 'soon': write it as 4:00:00, 90m, 4h or seconds",
        "--constraint 'gpu': write it as the label of a node, KEY=VALUE",
    ]


def test_where_the_command_runs(folder, parsed):
    job, _ = parsed("-n", "1")
    assert job.cwd == str(folder)
    job, _ = parse(["--launcher", "kubernetes", "-n", "1", "--workdir", "/job", "not_here.py"])
    assert job.cwd == "/job"


@pytest.mark.parametrize(
    ("argv", "kubeconfig", "problem"),
    [
        (["--context", "nope"], "kubeconfig", "no way to Kubernetes from here: .*nope.*--context"),
        ([], "no-such-file", "there is no way to Kubernetes from here: .*KUBECONFIG"),
        ([], "train.py", "there is no way to Kubernetes from here: "),
        (["--context", "here"], "kubeconfig", "context here.* is on this machine, which does"),
        (
            ["--interface", "nope0"],
            "kubeconfig",
            "no interface nope0.*name the network by --interface",
        ),
    ],
)
def test_ways_that_lead_nowhere(parsed, monkeypatch, argv, kubeconfig, problem):
    monkeypatch.setenv("KUBECONFIG", kubeconfig)
    with pytest.raises(Exception, match=problem):
        prepare(*parsed("-n", "1", "--image", "i", *argv), print)


def test_without_the_client(parsed, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "kubernetes", None)
    with pytest.raises(UsageError, match=r"pip install 'baryon\[kubernetes\]'"):
        prepare(*parsed("-n", "1", "--image", "i"), print)


# -- what objects say ---------------------------------------------------------------------------


def a_job(*conditions, **spec):
    status = {"startTime": "2024-01-01T00:00:00Z"}
    if conditions:
        status["conditions"] = [{"status": "True", **each} for each in conditions]
    return {"metadata": {"name": "j"}, "spec": {"completions": 2, **spec}, "status": status}


def a_pod(index, state=None, node="n", deleted=False, **status):
    pod = {
        "metadata": {
            "name": f"j-{index}",
            "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
        },
        "spec": {"nodeName": f"{node}{index}"} if node else {},
        "status": status,
    }
    if state is not None:
        status["containerStatuses"] = [
            {"name": "sidecar", "state": {"running": {}}},
            {"name": "agent", "state": state},
        ]
    if deleted:
        pod["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z"
    return pod


RUNS = {"running": {}}
FAILED = {"type": "Failed", "reason": "BackoffLimitExceeded", "message": "too often"}
START = time.mktime((2024, 1, 1, 0, 0, 0, 0, 0, 0)) - time.timezone


def exited(code, reason="Error", **more):
    return {"terminated": {"exitCode": code, "reason": reason, **more}}


def disrupted(reason):
    return [{"type": "DisruptionTarget", "status": "True", "reason": reason, "message": "so"}]


@pytest.mark.parametrize(
    ("job", "pods", "status"),
    [
        (None, [], Status(OVER, "was deleted from outside, as by kubectl delete", None, 143)),
        (a_job(), [], Status(QUEUED, "an event")),
        (
            a_job(),
            [a_pod(1, {"waiting": {"reason": "ContainerCreating"}}), a_pod(0, RUNS)],
            Status(QUEUED, "ContainerCreating: an event"),
        ),
        (
            a_job(suspend=True),
            [],
            Status(QUEUED, "Suspended"),
        ),
        (
            a_job({"type": "Suspended", "reason": "JobSuspended"}, suspend=True),
            [a_pod(0, RUNS, deleted=True)],
            Status(OVER, "was suspended: JobSuspended", None, 143),
        ),
        (a_job(), [a_pod(1, RUNS), a_pod(0, RUNS)], Status(RUNNING, "n0, n1")),
        (
            a_job(activeDeadlineSeconds=60),
            [a_pod(1, RUNS), a_pod(0, exited(0))],
            Status(RUNNING, "n0, n1", 50.0),
        ),
        (a_job({"type": "Complete"}), [], Status(OVER, ALL_ENDED)),
        (a_job(), [a_pod(1, exited(0)), a_pod(0, exited(0))], Status(OVER, ALL_ENDED)),
        (
            a_job({"type": "FailureTarget", "reason": "DeadlineExceeded", "message": "late"}),
            [a_pod(0, RUNS, deleted=True)],
            Status(OVER, "has reached its time limit (DeadlineExceeded: late)", None, 124),
        ),
        (a_job(FAILED), [], Status(OVER, "has failed: BackoffLimitExceeded: too often; an event")),
        (
            a_job({**FAILED, "message": "j-0 has condition DisruptionTarget"}),
            [a_pod(1, exited(143), deleted=True)],
            Status(
                OVER,
                "has failed: BackoffLimitExceeded: j-0 has condition DisruptionTarget; an event",
                None,
                143,
                True,
            ),
        ),
        (
            a_job(FAILED),
            [a_pod(0, RUNS, deleted=True), a_pod(1, exited(137, "OOMKilled"))],
            Status(
                OVER,
                "has failed: pod j-1 on n1 was OOMKilled: it needs more memory (--mem)",
                None,
                137,
            ),
        ),
        (
            a_job(),
            [a_pod(0, exited(128, "StartError", message="no such file")), a_pod(1, RUNS)],
            Status(
                OVER,
                "has failed: pod j-0 on n0 exited with code 128 (StartError: no such file)",
                None,
                1,
            ),
        ),
        (
            a_job(),
            [a_pod(0, phase="Failed", reason="Evicted", message="low on memory")],
            Status(OVER, "has failed: pod j-0 on n0 Evicted: low on memory", None, 1),
        ),
        (
            a_job(),
            [a_pod(0, RUNS, conditions=disrupted("PreemptionByScheduler"))],
            Status(
                OVER,
                "has failed: pod j-0 on n0 was taken away: PreemptionByScheduler: so",
                None,
                143,
                True,
            ),
        ),
        (
            a_job(),
            [a_pod(0, RUNS, conditions=disrupted("DeletionByTaintManager"))],
            Status(
                OVER,
                "has failed: pod j-0 on n0 was taken away: DeletionByTaintManager: so",
                None,
                1,
                True,
            ),
        ),
        (
            a_job(),
            [a_pod(0, RUNS, deleted=True)],
            Status(OVER, "has failed: pod j-0 on n0 was deleted", None, 143),
        ),
    ],
)
def test_what_objects_say(job, pods, status):
    assert status_of(json.loads(json.dumps(job)), pods, "an event", START + 10.0) == status


def test_pods_without_a_place():
    why = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3"}
    pods = [a_pod(0, RUNS), a_pod(1, node="", conditions=[why])]
    assert status_of(a_job(), pods, "", 0.0) == Status(QUEUED, "1 of 2 pods: Unschedulable: 0/3")


def test_what_keeps_a_pod_from_starting():
    assert obstacle([a_pod(0, {"waiting": {"reason": "ContainerCreating"}}), a_pod(1)]) == ""
    pulling = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
    assert obstacle([a_pod(1, pulling), a_pod(0, RUNS)]) == (
        "pod j-1 on n1: ImagePullBackOff: not found"
    )


def test_failed_pods_are_heard_first():
    pods = [a_pod(0, exited(0)), a_pod(1, exited(1)), a_pod(2, RUNS)]
    assert ended_pods(pods) == ["j-1", "j-0"]
