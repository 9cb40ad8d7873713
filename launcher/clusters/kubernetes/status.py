"""Reads a job's state from Kubernetes' objects: why it waits, where it runs, or how it ended. Pure.

Objects are as in the API. The first pod that fails ends the Job, and Kubernetes deletes the others.
That pod's status says best what happened. But a pod that was deleted disappears at once, so often
only the Job's condition reports it (podFailurePolicy).
"""

import time
from calendar import timegm
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ..submission import CANCELLED_CODE
from ..watch import OVER, QUEUED, RUNNING, TIME_LIMIT_CODE, Status

__all__ = ["AGENT", "ALL_ENDED", "Object", "ended_pods", "obstacle", "status_of"]

Object = Dict[str, Any]

AGENT = "agent"
"""The name of the container in each pod."""

ALL_ENDED = "is over: all its agents have ended"

_INDEX = "batch.kubernetes.io/job-completion-index"
_OOM_CODE = 137
_FAILED = ("Failed", "FailureTarget")  # FailureTarget (since 1.31): its pods are being ended
_STARTING = ("", "ContainerCreating", "PodInitializing")
# https://kubernetes.io/docs/concepts/workloads/pods/disruptions: decisions, not faults
_DECIDED = ("PreemptionByScheduler", "PreemptionByKubeScheduler", "EvictionByEvictionAPI")


def status_of(job: Optional[Object], pods: Sequence[Object], event: str, now: float) -> Status:
    """The Status of a Job (None: it is gone) with its pods at ``now``, in Unix time.

    ``event`` is Kubernetes' last event about it, for cases in which the objects say too little.
    """
    if job is None or "deletionTimestamp" in job["metadata"]:
        return Status(OVER, "was deleted from outside, as by kubectl delete", None, CANCELLED_CODE)
    pods = sorted(pods, key=_index)
    for condition in _true_conditions(job):
        if condition["type"] in _FAILED:
            return _failed(condition, pods, event)
        if condition["type"] == "Complete":
            return Status(OVER, ALL_ENDED)
    if job["spec"].get("suspend") and pods:
        return Status(OVER, f"was suspended: {_why_suspended(job)}", None, CANCELLED_CODE)
    end = _first_end(pods)
    if end is not None:
        return end
    for pod in pods:
        if "deletionTimestamp" in pod["metadata"]:
            return Status(OVER, f"has failed: {_place(pod)} was deleted", None, CANCELLED_CODE)
    num_hosts = job["spec"]["completions"]
    started = [pod for pod in pods if {"running", "terminated"} & _container(pod).keys()]
    if len([pod for pod in started if "terminated" in _container(pod)]) == num_hosts:
        return Status(OVER, ALL_ENDED)  # the Job's condition follows some seconds later
    if len(started) < num_hosts:
        return Status(QUEUED, _why_it_waits(job, pods, num_hosts, event))
    nodes = dict.fromkeys(pod["spec"].get("nodeName", "?") for pod in pods)
    return Status(RUNNING, ", ".join(nodes), _left_s(job, now))


def obstacle(pods: Sequence[Object]) -> str:
    """Why a pod on its node cannot start, if it will not be able to by itself."""
    for pod in sorted(pods, key=_index):
        waiting = _container(pod).get("waiting", {})
        if waiting.get("reason", "") not in _STARTING:
            return f"{_place(pod)}: {_both(waiting)}"
    return ""


def ended_pods(pods: Sequence[Object]) -> List[str]:
    """The names of pods whose agents have run and ended. Failed ones come first."""
    ended = [pod for pod in sorted(pods, key=_index) if "terminated" in _container(pod)]
    ended.sort(key=lambda pod: _container(pod)["terminated"].get("exitCode") == 0)
    return [pod["metadata"]["name"] for pod in ended]


def _failed(condition: Object, pods: Sequence[Object], event: str) -> Status:
    words = _both(condition)
    if condition.get("reason") == "DeadlineExceeded":
        return Status(OVER, f"has reached its time limit ({words})", None, TIME_LIMIT_CODE)
    end = _first_end(pods)
    if end is not None:
        return end
    is_preempted = "DisruptionTarget" in words
    words = "; ".join(filter(None, (words, event)))
    code = CANCELLED_CODE if is_preempted else 1
    return Status(OVER, f"has failed: {words}", None, code, is_preempted)


def _first_end(pods: Sequence[Object]) -> Optional[Status]:
    """The end of the first pod that ended by itself, or that Kubernetes ended for a reason."""
    for pod in pods:
        words, code = _end(pod)
        if words:
            return Status(OVER, f"has failed: {words}", None, code, _disruption(pod) is not None)
    return None


def _end(pod: Object) -> Tuple[str, int]:
    """(how a pod failed, the exit code for that); empty words if it did not fail."""
    status = pod.get("status", {})
    terminated = _container(pod).get("terminated", {})
    disruption = _disruption(pod)
    if terminated.get("reason") == "OOMKilled":
        return f"{_place(pod)} was OOMKilled: it needs more memory (--mem)", _OOM_CODE
    if disruption is not None:
        code = CANCELLED_CODE if disruption.get("reason") in _DECIDED else 1
        return f"{_place(pod)} was taken away: {_both(disruption)}", code
    if status.get("reason"):  # Evicted, NodeLost, UnexpectedAdmissionError, ...
        return f"{_place(pod)} {_both(status)}", 1
    if "deletionTimestamp" in pod["metadata"]:
        return "", 0  # deleted together with the others
    if terminated.get("exitCode", 0) != 0:
        how = f"exited with code {terminated['exitCode']}"
        return f"{_place(pod)} {how} ({_both(terminated)})", 1
    if status.get("phase") == "Failed":
        return f"{_place(pod)} Failed", 1
    return "", 0


def _disruption(pod: Object) -> Optional[Object]:
    """Why Kubernetes removes a pod: for other pods, or with its node."""
    return next((c for c in _true_conditions(pod) if c["type"] == "DisruptionTarget"), None)


def _why_it_waits(job: Object, pods: Sequence[Object], num_hosts: int, event: str) -> str:
    if job["spec"].get("suspend"):
        return _why_suspended(job)
    whys = [why for why in map(_why_pod_waits, pods) if why]
    if whys and event and whys[0] in _STARTING:
        return f"{whys[0]}: {event}"
    if whys:
        return f"{len(whys)} of {num_hosts} pods: {whys[0]}"
    return event


def _why_suspended(job: Object) -> str:
    """Kueue's reason, such as quota, or just "Suspended"."""
    suspended = [c for c in _true_conditions(job) if c["type"] == "Suspended"]
    return _both(suspended[0]) if suspended else "Suspended"


def _why_pod_waits(pod: Object) -> str:
    for condition in pod.get("status", {}).get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return _both(condition)
    return _both(_container(pod).get("waiting", {}))


def _left_s(job: Object, now: float) -> Optional[float]:
    limit_s, start = job["spec"].get("activeDeadlineSeconds"), job["status"].get("startTime")
    if limit_s is None or start is None:
        return None
    return timegm(time.strptime(start, "%Y-%m-%dT%H:%M:%SZ")) + limit_s - now


def _container(pod: Object) -> Object:
    """The state of the agent's container; {} before it exists."""
    for status in pod.get("status", {}).get("containerStatuses") or []:
        if status["name"] == AGENT:
            return status.get("state") or {}
    return {}


def _true_conditions(thing: Object) -> List[Object]:
    conditions = thing.get("status", {}).get("conditions") or []
    return [condition for condition in conditions if condition["status"] == "True"]


def _place(pod: Object) -> str:
    node = pod["spec"].get("nodeName")
    name = f"pod {pod['metadata']['name']}"
    return f"{name} on {node}" if node else name


def _index(pod: Object) -> int:
    return int(pod["metadata"].get("annotations", {}).get(_INDEX, 0))


def _both(thing: Object) -> str:
    """Reason and message, if present."""
    return ": ".join(filter(None, (thing.get("reason"), (thing.get("message") or "").strip())))
