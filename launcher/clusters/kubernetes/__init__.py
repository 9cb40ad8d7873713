"""Kubernetes: an Indexed Job in which each pod runs one agent. Uses the official client.

The Job owns a headless Service, which gives the pods names, and a Secret, from which agents read
their configurations. Deleting the Job deletes both. The Job is created first, and its pods wait for
the Secret. When pods have ended, their logs are fetched. Without errors these are empty, because
tasks' output goes to the scheduler.
"""

import ipaddress
import os
import socket
import time
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Set, Tuple

import msgspec

from baryon.ps import PeerError, UsageError
from baryon.scheduler.control import Job

from ...flags import Options
from ..batch import BatchCluster
from ..submission import launch_address
from ..watch import OVER, QUEUED, RUNNING, Status, Watch
from .api import Api, NoAnswer, connect, is_pod
from .manifests import Manifest, Plan, dump, make_plan, secret_of
from .status import ALL_ENDED, Object, ended_pods, obstacle, status_of

__all__ = ["allocated_hosts", "prepare", "preview"]

_REMEDY = "run launch.py in a pod, name the network with --interface, or open a port and name it"
_EVENTS = {QUEUED: "type=Warning", OVER: "reason=Preempted"}  # the events to look at, by phase
_MAX_LOGS = 5  # of ended pods, the failed ones first


def prepare(
    job: Job, options: Options, say: Callable[[str], None]
) -> Tuple[Job, "KubernetesCluster"]:
    """Find out how pods reach this machine, and make the manifests.

    Raises UsageError if no cluster is configured or an option is wrong, PeerError if pods cannot
    reach this machine.
    """
    plan = make_plan(job, options)
    api = connect(options.context, options.namespace)
    address = _address(job, api)
    if not is_pod():
        # Pods have other interfaces: the names of this machine's mean nothing there.
        here = {name for _, name in socket.if_nameindex()}
        theirs = tuple(name for name in job.interfaces if name not in here)
        if not job.interfaces:
            say(f"pods will reach this machine at {address}; use --interface for another network")
        job = msgspec.structs.replace(job, interfaces=theirs)
    manager = Kubernetes(api, plan, job, address)
    watch = Watch(options.queue_timeout, options.time_margin, time.monotonic)
    return job, KubernetesCluster(manager, address, watch, say)


def preview(job: Job, options: Options) -> str:
    """The manifests, without secrets, and where they would go."""
    plan = make_plan(job, options)
    try:
        api = connect(options.context, options.namespace)
        where = f"namespace {api.namespace} of {api.place}"
    except UsageError as error:
        where = f"nowhere yet: {error}"
    secret = secret_of(plan, dict.fromkeys(range(plan.num_hosts), b""))
    secret["data"] = dict.fromkeys(secret["data"], "(the keys of an agent)")
    manifests = [plan.job, *(_owned(each, plan, "(the Job's)") for each in [*plan.others, secret])]
    return f"# would be created, as by kubectl create, in {where}\n{dump(manifests)}"


def allocated_hosts(environ: Mapping[str, str]) -> int:
    """0: Kubernetes has no allocations."""
    return 0


class KubernetesCluster(BatchCluster):
    """The pods of one Job."""

    def __init__(
        self, manager: "Kubernetes", address: str, watch: Watch, say: Callable[[str], None]
    ) -> None:
        super().__init__(manager, "", address, watch, say)
        self._kubernetes = manager

    def _write_configs(self) -> None:
        """Put them into a Secret, not into files."""
        self._kubernetes.configs = dict(self._configs)


class Kubernetes:
    """One Job. A Manager (manager.py)."""

    name = "Kubernetes"

    def __init__(self, api: Api, plan: Plan, job: Job, address: str) -> None:
        self.outputs: Sequence[str] = [os.path.join(job.log_dir, "kubernetes.out")]
        self.configs: Dict[int, bytes] = {}
        self._api = api
        self._plan = plan
        self._start_s = job.start_s
        self._address = address
        self._is_cancelled = False
        self._stuck_since: Optional[float] = None
        self._logged: Set[str] = set()

    def submit(self) -> str:
        api, plan = self._api, self._plan
        try:
            created = api.create_job(plan.job)
        except NoAnswer as error:
            self._delete_quietly()  # the Job may exist, and its name is ours
            raise PeerError(f"did not confirm the job: {error}") from error
        except PeerError as error:
            raise PeerError(f"did not take the job: {error}") from error
        try:
            for manifest in [*plan.others, secret_of(plan, self.configs)]:
                api.create(_owned(manifest, plan, created["metadata"]["uid"]))
        except PeerError as error:
            self._delete_quietly()
            raise PeerError(f"did not take the job: {error}") from error
        return f"Kubernetes job {api.namespace}/{plan.name}"

    def status(self) -> Status:
        api, name = self._api, self._plan.name
        job = api.job(name)
        if self._is_cancelled:  # it is over when the Job is gone
            return Status(RUNNING if job else OVER, "its end")
        pods = api.pods(name) if job else []
        status = status_of(job, pods, "", time.time())
        if status.phase in _EVENTS:
            event = api.event(name, _EVENTS[status.phase])
            status = self._stuck(pods) or status_of(job, pods, event, time.time())
        self._keep_logs(pods)
        if status.phase == OVER:
            api.delete_job(name)
        if status.words == ALL_ENDED:
            words = f"{ALL_ENDED}; if they cannot reach this machine at {self._address}, {_REMEDY}"
            status = status._replace(words=words)
        return status

    def cancel(self) -> None:
        self._api.delete_job(self._plan.name)
        self._is_cancelled = True

    def _delete_quietly(self) -> None:
        try:
            self._api.delete_job(self._plan.name)
        except PeerError:
            pass

    def ended_agents(self, line: str) -> List[Tuple[int, str]]:
        return []  # the first agent to end ends the Job

    def _stuck(self, pods: List[Object]) -> Optional[Status]:
        """The end of a job if a pod could not start for too long, as without its image."""
        why, now = obstacle(pods), time.monotonic()
        self._stuck_since = (self._stuck_since or now) if why else None
        if self._stuck_since is None or now - self._stuck_since < self._start_s:
            return None
        return Status(OVER, f"cannot start (--start-timeout {self._start_s:g}): {why}")

    def _keep_logs(self, pods: List[Object]) -> None:
        """Append the logs of ended agents to the output file."""
        (path,) = self.outputs
        for pod in ended_pods(pods)[:_MAX_LOGS]:
            if pod in self._logged:
                continue
            self._logged.add(pod)
            lines = [f"{pod}: {line}\n" for line in self._api.log(pod).splitlines()]
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "a", encoding="utf-8", errors="replace") as file:
                    file.writelines(lines)
            except OSError as error:
                raise PeerError(f"{path}: {error.strerror}") from error


def _owned(manifest: Manifest, plan: Plan, uid: str) -> Manifest:
    """The manifest, owned by the Job: Kubernetes deletes both together."""
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": plan.name, "uid": uid}
    return {**manifest, "metadata": {**manifest["metadata"], "ownerReferences": [owner]}}


def _address(job: Job, api: Api) -> str:
    """The address at which pods reach this machine: that of its route to the API server."""
    address = launch_address(job.interfaces, [api.host])
    if not job.interfaces and ipaddress.ip_address(address).is_loopback:
        raise UsageError(
            f"the API server at {api.place} is on this machine, which does not tell how pods "
            "reach it: name that network with --interface (kind, minikube: the bridge of their "
            "containers), or run launch.py in a pod"
        )
    return address
