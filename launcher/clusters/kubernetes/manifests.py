"""What is given to Kubernetes: an Indexed Job, its Service and its Secret, made of the flags. Pure
but for the template's file and the random part of the name.

Names of Kubernetes are short and plain (RFC 1123); what cannot be a name is made into one.
"""

import base64
import json
import os
import re
import secrets
from typing import Any, Dict, List, Mapping, Optional

import msgspec

from baryon.ps import UsageError
from baryon.scheduler.agent import agent_argv, config_name
from baryon.scheduler.control import Job

from ...flags import Options
from ..submission import render, time_limit

__all__ = ["Manifest", "Plan", "dump", "make_plan", "missing", "secret_of"]

Manifest = Dict[str, Any]

_TEMPLATE = "kubernetes.yaml.j2"
_CONFIGS = "/run/baryon"
_INDEX = "JOB_COMPLETION_INDEX"  # an Indexed Job's pods have it
_PYTHON = "python3"  # of the image; the path of the one that runs here means nothing there
_MAX_STEM = 40  # of 63 characters, with the random part, the pod's index and its random part
_QUANTITY = re.compile(r"\d+(\.\d+)?([kMGTPE]|[KMGTPE]i)?")


class Plan(msgspec.Struct, frozen=True):
    """``job`` is the Job's manifest; ``others`` are to belong to it; all have ``labels``."""

    name: str
    num_hosts: int
    labels: Dict[str, str]
    job: Manifest
    others: List[Manifest]


def make_plan(job: Job, options: Options) -> Plan:
    """Raises UsageError with every option that is wrong, one a line."""
    faults: List[str] = []
    if not options.image:
        faults.append(
            "--launcher kubernetes needs --image NAME, an image with Baryon and your script "
            "(docs/clusters.md says how to make one)"
        )
    for flag, size in (("--mem", options.mem), ("--shm-size", options.shm_size)):
        if size is not None and not _QUANTITY.fullmatch(size):
            faults.append(f"{flag} {size!r}: Kubernetes writes sizes as 64Gi or 500Mi")
    time_limit_s = None
    try:
        time_limit_s = time_limit(options)
    except UsageError as error:
        faults.append(str(error))
    selector = _selector(options.constraint, faults)
    if faults:
        raise UsageError("\n".join(faults))
    stem = options.job_name or os.path.splitext(job.title)[0]
    name = f"{_plain(stem)}-{secrets.token_hex(4)}"
    num_hosts = len({task.host for task in job.tasks})
    labels = {"app.kubernetes.io/name": "baryon", "app.kubernetes.io/instance": name}
    # Of the Job alone: pods that have it are Kueue's own business.
    queue = {"kueue.x-k8s.io/queue-name": options.queue} if options.queue else {}
    text = render(
        options,
        _TEMPLATE,
        json=_json,
        job=job,
        name=name,
        num_hosts=num_hosts,
        labels=labels,
        job_labels={**labels, **queue},
        image=options.image,
        image_pull_secret=options.image_pull_secret,
        command=agent_argv(options.python or _PYTHON, None, _CONFIGS, _INDEX),
        configs=_CONFIGS,
        env=_env(job, options),
        resources=_resources(job, options),
        shm_size=options.shm_size or options.mem,
        node_selector=selector,
        spread=options.spread,
        time_limit_s=time_limit_s,
    )
    manifests = _load(text, options.template)
    jobs = [each for each in manifests if each["kind"] == "Job"]
    if len(jobs) != 1 or jobs[0].get("metadata", {}).get("name") != name:
        raise UsageError(
            f"--template {options.template}: it must have one Job, whose name is {{{{ name }}}}"
        )
    return Plan(
        name, num_hosts, labels, jobs[0], [each for each in manifests if each is not jobs[0]]
    )


def secret_of(plan: Plan, configs: Mapping[int, bytes]) -> Manifest:
    """The Secret with what each agent has to know, by host."""
    encoded = {config_name(host): base64.b64encode(line).decode() for host, line in configs.items()}
    metadata = {"name": plan.name, "labels": plan.labels}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": "Opaque",
        "data": encoded,
    }


def dump(manifests: List[Manifest]) -> str:
    """As YAML, for people and kubectl."""
    yaml = _yaml()
    return str(yaml.safe_dump_all(manifests, sort_keys=False, width=96, allow_unicode=True))


def _plain(stem: str) -> str:
    """As a name of Kubernetes, of a Service's also, which begins with a letter."""
    plain = re.sub("[^a-z0-9]+", "-", stem.lower()).strip("-")[:_MAX_STEM].strip("-")
    return plain if plain[:1].isalpha() else f"job-{plain}".strip("-")


def _selector(constraint: Optional[str], faults: List[str]) -> Dict[str, str]:
    """Of nodes, from ``key=value,key=value``."""
    selector = {}
    for term in filter(None, (constraint or "").split(",")):
        key, found, value = term.partition("=")
        if not key or not found:
            faults.append(f"--constraint {term!r}: write it as the label of a node, KEY=VALUE")
        selector[key] = value
    return selector


def _env(job: Job, options: Options) -> List[Manifest]:
    slots, env = job.hosts[0].slots, {}
    if options.cpus_per_worker:
        # The CPU limit is none that a process sees: it would start a thread for each of the node.
        env["OMP_NUM_THREADS"] = str(options.cpus_per_worker)
    if options.gpus_per_worker:
        # A container sees no others, and these from 0 on.
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(options.gpus_per_worker * slots)))
    return [{"name": name, "value": value} for name, value in env.items()]


def _resources(job: Job, options: Options) -> Dict[str, str]:
    slots = job.hosts[0].slots
    resources = {
        "cpu": options.cpus_per_worker and str(options.cpus_per_worker * slots),
        "memory": options.mem,
        "nvidia.com/gpu": options.gpus_per_worker and str(options.gpus_per_worker * slots),
    }
    return {name: amount for name, amount in resources.items() if amount}


def _json(value: object) -> str:
    """As YAML reads it; jinja2's own is for HTML, and cuts what needs four bytes in two."""
    return json.dumps(value, ensure_ascii=False)


def _load(text: str, template: Optional[str]) -> List[Manifest]:
    yaml = _yaml()
    try:
        manifests = [each for each in yaml.safe_load_all(text) if each is not None]
    except yaml.YAMLError as error:
        raise UsageError(f"--template {template or _TEMPLATE}: {error}") from error
    for each in manifests:
        if not isinstance(each, dict) or not {"apiVersion", "kind", "metadata"} <= each.keys():
            raise UsageError(
                f"--template {template}: each of its parts needs apiVersion, kind and metadata"
            )
    return manifests


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as error:  # it comes with the client
        raise missing(error) from error
    return yaml


def missing(error: ImportError) -> UsageError:
    return UsageError(
        f"--launcher kubernetes needs a library that is not here ({error}): "
        "pip install 'baryon[kubernetes]'"
    )
