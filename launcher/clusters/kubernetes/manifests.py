"""Makes the manifests of an Indexed Job, its Service and its Secret from the flags. Pure, except
that it reads the template and adds a random part to the name.

Names in Kubernetes are short and plain (RFC 1123). Other text is converted to such a name.
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
_INDEX = "JOB_COMPLETION_INDEX"  # a variable in the pods of an Indexed Job
_PYTHON = "python3"  # the image's; the path of ours means nothing there
_MAX_STEM = 40  # of 63 characters, with the random part, the pod's index and its random part
_QUANTITY = re.compile(r"\d+(\.\d+)?([kMGTPE]|[KMGTPE]i)?")


class Plan(msgspec.Struct, frozen=True):
    """``job`` is the Job's manifest. It will own the ``others``. All have ``labels``."""

    name: str
    num_hosts: int
    labels: Dict[str, str]
    job: Manifest
    others: List[Manifest]


def make_plan(job: Job, options: Options) -> Plan:
    """Make the plan. Raises UsageError with one line for each wrong option."""
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
    # For the Job alone: Kueue would manage pods with this label itself.
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
    """The Secret with each agent's configuration, by host."""
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
    """The manifests as YAML, for people and kubectl."""
    yaml = _yaml()
    return str(yaml.safe_dump_all(manifests, sort_keys=False, width=96, allow_unicode=True))


def _plain(stem: str) -> str:
    """A valid name for all objects. That of a Service must begin with a letter."""
    plain = re.sub("[^a-z0-9]+", "-", stem.lower()).strip("-")[:_MAX_STEM].strip("-")
    return plain if plain[:1].isalpha() else f"job-{plain}".strip("-")


def _selector(constraint: Optional[str], faults: List[str]) -> Dict[str, str]:
    """The node selector of ``key=value,key=value``."""
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
        # A process does not see the CPU limit: it would start a thread for each CPU of the node.
        env["OMP_NUM_THREADS"] = str(options.cpus_per_worker)
    if options.gpus_per_worker:
        # A container sees only its own GPUs, numbered from 0.
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
    """JSON that YAML can read. jinja2's filter is for HTML, and splits characters of four bytes."""
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
        f"--launcher kubernetes needs a library that is missing ({error}): "
        "pip install 'baryon[kubernetes]'"
    )
