"""A Kubernetes on one machine: an HTTP API that keeps objects, and what acts on them.

There is no API server to be had as a package, so this is a stand-in. It takes what the official
client sends, refuses what the published schemas do, and does with Jobs, pods, Services, Secrets and
Events what Kubernetes' documentation says. Pods are real processes (kubelet.py).
"""

import calendar
import json
import os
import re
import shutil
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate

from tests.waiting import wait_until

from .kubelet import Object, PodProcess

NAMESPACE = "team"
IMAGE = "registry.local/digits:1"
GPUS = 4  # of each node
_TOKEN = "a-token"
_INDEX = "batch.kubernetes.io/job-completion-index"
_SCHEMA = kubernetes_validate.latest_version()
_TICK_S = 0.03
_PULL_S = 0.3
_PATH = re.compile(r"/(?:api|apis/batch)/v1/namespaces/([^/]+)/([a-z]+)(?:/([^/]+))?(?:/(log))?")


def problems() -> List[str]:
    """Why there can be no pods here."""
    found = [] if shutil.which("unshare") and shutil.which("setpriv") else ["no unshare or setpriv"]
    return found + ["the namespaces of pods need root"] * (os.geteuid() != 0)


class Refusal(Exception):
    """An answer that is an error: its HTTP status, and its message."""


class KubeBed:
    """Runs from the first to the last line of a `with`; ``env`` leads clients to it.

    What tests may set: ``images`` that can be pulled; ``forbidden``, messages by (verb, resource);
    ``pod_refusal``, why no pod can be made; ``has_network``, of pods made from now on.
    """

    def __init__(self, directory: Path, num_nodes: int) -> None:
        self.directory = directory
        self.nodes = [f"node{number}" for number in range(1, num_nodes + 1)]
        self.env = {"KUBECONFIG": str(directory / "kubeconfig")}
        self.lock = threading.RLock()
        self._pods: Dict[str, PodProcess] = {}
        self._oom_killed: List[str] = []
        self._pulled: Dict[str, float] = {}
        self._stop = threading.Event()
        self.reset()

    def reset(self) -> None:
        with self.lock:
            self.images = {IMAGE}
            self.forbidden: Dict[Tuple[str, str], str] = {}
            self.pod_refusal = ""
            self.has_network = True
            self.objects: Dict[str, Dict[str, Object]] = {
                kind: {} for kind in ("jobs", "pods", "services", "secrets", "events")
            }

    def __enter__(self) -> "KubeBed":
        self.directory.mkdir()
        handler = type("Handler", (_Handler,), {"bed": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        port = self._server.server_address[1]
        (self.directory / "kubeconfig").write_text(_KUBECONFIG.format(port=port, token=_TOKEN))
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(0.05,), name="kube-api"),
            threading.Thread(target=self._run, name="kube-controllers"),
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._server.shutdown()
        for thread in self._threads:
            thread.join(10)
        self._server.server_close()
        for process in self._pods.values():
            process.close()
        shutil.rmtree(self.directory)

    # -- for tests ------------------------------------------------------------------------------

    def names(self, kind: str) -> List[str]:
        with self.lock:
            return sorted(self.objects[kind])

    def process(self, index: int) -> PodProcess:
        """Of the pod with that index."""
        with self.lock:
            return self._pods[self._name(index)]

    def delete(self, kind: str, name: str) -> None:
        """As kubectl does."""
        with self.lock:
            self._delete(kind, name)

    def oom_kill(self, index: int) -> None:
        """As the kernel does when the container's cgroup is full."""
        with self.lock:
            name = self._name(index)
            self._oom_killed.append(name)
            self._pods[name].kill()

    def preempt(self, index: int) -> None:
        """As the scheduler does for a pod that is more important."""
        with self.lock:
            name = self._name(index)
            message = "default-scheduler: preempting to accommodate a higher priority pod"
            self._set_condition(
                self.objects["pods"][name], "DisruptionTarget", "PreemptionByScheduler", message
            )
            self._tell(name, "Normal", "Preempted", "Preempted by pod 1234 on node node1")
            self._delete("pods", name)

    def wait_until_empty(self) -> None:
        """Until nothing is left of any job."""

        def is_empty() -> bool:
            with self.lock:
                kinds = ("jobs", "pods", "services", "secrets")
                return not any(self.objects[kind] for kind in kinds) and not self._pods

        wait_until(is_empty, "the end of all objects", 20.0)

    def _name(self, index: int) -> str:
        (name,) = [n for n in self._pods if n.rsplit("-", 1)[0].endswith(f"-{index}")]
        return name

    # -- the API --------------------------------------------------------------------------------

    def answer(self, verb: str, path: str, query: Dict[str, str], body: Optional[Object]) -> Any:
        found = _PATH.fullmatch(path)
        if not found or found[2] not in self.objects:
            raise Refusal(404, "the server could not find the requested resource")
        namespace, kind, name, is_log = found.groups()
        verb = "list" if verb == "get" and name is None else verb
        resource = f"{kind}/log" if is_log else kind
        with self.lock:
            if (verb, resource) in self.forbidden:
                raise Refusal(403, self.forbidden[verb, resource])
            if verb == "create":
                assert body is not None
                return self._create(namespace, kind, body)
            if verb == "list":
                return self._list(kind, query)
            if name not in self.objects[kind] or namespace != NAMESPACE:
                raise Refusal(404, f'{kind} "{name}" not found')
            thing = self.objects[kind][name]
            if verb == "delete":
                self._delete(kind, name)
            if is_log:
                if name not in self._pods:
                    raise Refusal(400, f'container "agent" in pod "{name}" is waiting to start')
                text = self._pods[name].log.read_text(errors="replace").splitlines(True)
                return "".join(text[-int(query["tailLines"]) :])
            return thing

    def _create(self, namespace: str, kind: str, body: Object) -> Object:
        name = body["metadata"]["name"]
        if namespace != NAMESPACE:
            raise Refusal(404, f'namespaces "{namespace}" not found')
        if name in self.objects[kind]:
            raise Refusal(409, f'{kind} "{name}" already exists')
        try:
            kubernetes_validate.validate(body, _SCHEMA, strict=True)
        except kubernetes_validate.ValidationError as error:
            raise Refusal(422, f'{body["kind"]} "{name}" is invalid: {error.message}') from error
        metadata = {**body["metadata"], "namespace": namespace, "uid": str(uuid.uuid4())}
        thing = {**body, "metadata": metadata}
        if kind == "jobs":
            thing["status"] = {"startTime": _now()}
        self.objects[kind][name] = thing
        return thing

    def _list(self, kind: str, query: Dict[str, str]) -> Object:
        items = list(self.objects[kind].values())
        label, _, value = query.get("labelSelector", "").partition("=")
        if label:
            items = [i for i in items if i["metadata"]["labels"].get(label) == value]
        field, _, value = query.get("fieldSelector", "").partition("=")
        if field:
            items = [i for i in items if i[field] == value]
        return {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}

    def _delete(self, kind: str, name: str) -> None:
        """Jobs and pods take a while; the rest is gone at once."""
        if kind in ("jobs", "pods"):
            self.objects[kind][name]["metadata"].setdefault("deletionTimestamp", _now())
        else:
            del self.objects[kind][name]

    # -- what acts on objects -------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.wait(_TICK_S):
            with self.lock:
                for job in list(self.objects["jobs"].values()):
                    self._control(job)
                for pod in list(self.objects["pods"].values()):
                    self._schedule(pod)
                    self._keep(pod)
                self._collect()

    def _control(self, job: Object) -> None:
        """The controller of Jobs."""
        metadata, spec, status = job["metadata"], job["spec"], job["status"]
        pods = [p for p in self.objects["pods"].values() if _owner(p) == metadata["uid"]]
        if "deletionTimestamp" in metadata:
            for pod in pods:
                self._delete("pods", pod["metadata"]["name"])
            if not pods:
                del self.objects["jobs"][metadata["name"]]
            return
        if status.get("conditions"):
            return
        made = status.setdefault("made", [])
        phases = [pod["status"]["phase"] for pod in pods]
        limit_s = spec.get("activeDeadlineSeconds")
        if "Failed" in phases:
            self._end(job, pods, *_why_failed(pods[phases.index("Failed")]))
        elif len(pods) < len(made):  # one was deleted before it ran
            self._end(job, pods, "BackoffLimitExceeded", "Job has reached the backoff limit")
        elif limit_s is not None and time.time() - _seconds(status["startTime"]) > limit_s:
            message = "Job was active longer than specified deadline"
            self._end(job, pods, "DeadlineExceeded", message)
        elif phases.count("Succeeded") == spec["completions"]:
            self._set_condition(job, "Complete", "CompletionsReached", "Reached expected number")
        elif not spec.get("suspend") and len(made) < spec["completions"]:
            if self.pod_refusal:
                self._tell(metadata["name"], "Warning", "FailedCreate", self.pod_refusal)
                return
            self._make_pod(job, len(made))
            made.append(len(made))

    def _end(self, job: Object, pods: List[Object], reason: str, message: str) -> None:
        self._set_condition(job, "Failed", reason, message)
        for pod in pods:
            if pod["status"]["phase"] in ("Pending", "Running"):
                self._delete("pods", pod["metadata"]["name"])

    def _make_pod(self, job: Object, index: int) -> None:
        template = json.loads(json.dumps(job["spec"]["template"]))
        owner = job["metadata"]["name"]
        name = f"{owner}-{index}-{uuid.uuid4().hex[:5]}"
        field = f"metadata.annotations['{_INDEX}']"
        variable = {"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef": {"fieldPath": field}}}
        for container in template["spec"]["containers"]:
            container["env"].append(variable)
        self.objects["pods"][name] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "uid": str(uuid.uuid4()),
                "labels": {**template["metadata"]["labels"], "job-name": owner},
                "annotations": {_INDEX: str(index)},
                "ownerReferences": [{"uid": job["metadata"]["uid"]}],
            },
            "spec": {**template["spec"], "hostname": f"{owner}-{index}"},
            "status": {"phase": "Pending"},
        }

    def _schedule(self, pod: Object) -> None:
        """The scheduler: GPUs, and one pod of a job a node as far as there are nodes."""
        if "nodeName" in pod["spec"] or "deletionTimestamp" in pod["metadata"]:
            return
        wanted = pod["spec"]["containers"][0]["resources"].get("limits", {})
        others = [p for p in self.objects["pods"].values() if _owner(p) == _owner(pod)]
        taken = [p["spec"]["nodeName"] for p in others if "nodeName" in p["spec"]]
        rules = pod["spec"]["affinity"]["podAntiAffinity"]
        free = [node for node in self.nodes if node not in taken]
        if "requiredDuringSchedulingIgnoredDuringExecution" not in rules:
            free = free or self.nodes
        everywhere = f"0/{len(self.nodes)} nodes are available: {len(self.nodes)}"
        if int(wanted.get("nvidia.com/gpu", 0)) > GPUS:
            why = f"{everywhere} Insufficient nvidia.com/gpu."
        elif pod["spec"].get("nodeSelector"):
            why = f"{everywhere} node(s) didn't match Pod's node affinity/selector."
        elif not free:
            why = f"{everywhere} node(s) didn't match pod anti-affinity rules."
        else:
            pod["spec"]["nodeName"] = free[0]
            return
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        pod["status"]["conditions"] = [{**condition, "message": why}]

    def _keep(self, pod: Object) -> None:
        """The kubelet of the pod's node."""
        name, status = pod["metadata"]["name"], pod["status"]
        is_deleted, process = "deletionTimestamp" in pod["metadata"], self._pods.get(name)
        if process is None:
            if is_deleted:
                del self.objects["pods"][name]
            elif "nodeName" in pod["spec"]:
                self._start(pod)
            return
        if is_deleted:
            process.terminate()
        code = process.poll()
        if code is not None and status["phase"] == "Running":
            status["phase"] = "Failed" if code else "Succeeded"
            reason = "OOMKilled" if name in self._oom_killed else "Error" if code else "Completed"
            self._set_state(pod, {"terminated": {"exitCode": code, "reason": reason}})
        elif code is not None and is_deleted:  # its last state was to be seen for a moment
            del self._pods[name], self.objects["pods"][name]

    def _start(self, pod: Object) -> None:
        name, image = pod["metadata"]["name"], pod["spec"]["containers"][0]["image"]
        if image not in self.images:
            since = self._pulled.setdefault(name, time.monotonic())
            reason = "ErrImagePull" if time.monotonic() - since < _PULL_S else "ImagePullBackOff"
            message = f'failed to resolve reference "{image}": not found'
            self._set_state(pod, {"waiting": {"reason": reason, "message": message}})
            return
        for volume in pod["spec"]["volumes"]:
            if "secret" in volume and volume["secret"]["secretName"] not in self.objects["secrets"]:
                self._set_state(pod, {"waiting": {"reason": "ContainerCreating"}})
                return
        directory = self.directory / name
        directory.mkdir()
        secrets = self.objects["secrets"]
        self._pods[name] = PodProcess(pod, secrets, directory, self.has_network)
        pod["status"]["phase"] = "Running"
        self._set_state(pod, {"running": {"startedAt": _now()}})

    def _collect(self) -> None:
        """The garbage collector: what belonged to something that has gone."""
        alive = {thing["metadata"]["uid"] for thing in self.objects["jobs"].values()}
        for kind in ("services", "secrets", "pods"):
            for name, thing in list(self.objects[kind].items()):
                if _owner(thing) not in ("", *alive):
                    self._delete(kind, name)

    def _tell(self, name: str, type_: str, reason: str, message: str) -> None:
        event = {"involvedObject": {"name": name}, "type": type_, "reason": reason}
        self.objects["events"][name] = {
            **event,
            "message": message,
            "metadata": {},
            "lastTimestamp": _now(),
        }

    @staticmethod
    def _set_condition(thing: Object, type_: str, reason: str, message: str) -> None:
        condition = {"type": type_, "status": "True", "reason": reason, "message": message}
        thing["status"].setdefault("conditions", []).append(condition)

    @staticmethod
    def _set_state(pod: Object, state: Object) -> None:
        pod["status"]["containerStatuses"] = [{"name": "agent", "state": state}]


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    bed: KubeBed

    def do_GET(self) -> None:
        self._do("get")

    def do_POST(self) -> None:
        self._do("create")

    def do_DELETE(self) -> None:
        self._do("delete")

    def log_message(self, *_: object) -> None:
        pass

    def _do(self, verb: str) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        try:
            if self.headers.get("Authorization") != f"Bearer {_TOKEN}":
                raise Refusal(401, "Unauthorized")
            answer = self.bed.answer(verb, parts.path, query, json.loads(data) if data else None)
            with self.bed.lock:
                text = answer if isinstance(answer, str) else json.dumps(answer)
            code = 201 if verb == "create" else 200
        except Refusal as refusal:
            code, message = refusal.args
            text = json.dumps(
                {"kind": "Status", "status": "Failure", "message": message, "code": code}
            )
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _why_failed(pod: Object) -> Tuple[str, str]:
    """What its Job says of it, by its podFailurePolicy, which is that of our template."""
    if any(each["type"] == "DisruptionTarget" for each in pod["status"].get("conditions", [])):
        name = f"{NAMESPACE}/{pod['metadata']['name']}"
        message = f"Pod {name} has condition DisruptionTarget matching FailJob rule at index 0"
        return "PodFailurePolicy", message
    return "BackoffLimitExceeded", "Job has reached the backoff limit"


def _owner(thing: Object) -> str:
    """The uid of what it belongs to."""
    owners = thing["metadata"].get("ownerReferences") or [{"uid": ""}]
    return str(owners[0]["uid"])


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _seconds(text: str) -> float:
    return float(calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ")))


_KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: bed
contexts:
- name: bed
  context: {{cluster: bed, user: ada, namespace: team}}
clusters:
- name: bed
  cluster: {{server: "http://127.0.0.1:{port}"}}
users:
- name: ada
  user: {{token: {token}}}
"""
