"""Kubernetes' API, through its official client. Translates the client's exceptions.

Objects are plain dictionaries. The client's classes know the fields of one version only.
"""

import json
import os
from typing import Any, Callable, List, Optional
from urllib.parse import urlsplit

from baryon.ps import PeerError, UsageError

from .manifests import Manifest, missing
from .status import AGENT, Object

__all__ = ["Api", "NoAnswer", "connect", "is_pod"]

_LIMIT_S = 30.0  # for one answer
_LOG_LINES = 50
_POD = "/var/run/secrets/kubernetes.io/serviceaccount"


class Api:
    """One namespace of one cluster. ``host`` is the API server's host, ``place`` its name for
    messages.

    All methods raise PeerError with the server's own words.
    """

    def __init__(self, client: Any, namespace: str, place: str) -> None:
        import kubernetes

        self.namespace = namespace
        self.place = place
        self.host = urlsplit(client.configuration.host).hostname or ""
        self._client = client
        self._batch = kubernetes.client.BatchV1Api(client)
        self._core = kubernetes.client.CoreV1Api(client)

    def create_job(self, manifest: Manifest) -> Object:
        return self._json(self._batch.create_namespaced_job, self.namespace, manifest)

    def create(self, manifest: Manifest) -> None:
        """Create any other object."""
        import kubernetes

        create = kubernetes.utils.create_from_dict
        self._call(create, self._client, manifest, namespace=self.namespace)

    def job(self, name: str) -> Optional[Object]:
        """The Job; None if it no longer exists."""
        try:
            return self._json(self._batch.read_namespaced_job, name, self.namespace)
        except _NotFound:
            return None

    def delete_job(self, name: str) -> None:
        """Delete a Job and everything that it owns. The Job disappears after its pods."""
        try:
            delete = self._batch.delete_namespaced_job
            self._json(delete, name, self.namespace, propagation_policy="Foreground")
        except _NotFound:
            pass

    def pods(self, job: str) -> List[Object]:
        selector = f"job-name={job}"
        found = self._json(self._core.list_namespaced_pod, self.namespace, label_selector=selector)
        return list(found["items"])

    def log(self, pod: str) -> str:
        """The last lines of a pod's agent; empty if the log is not available."""
        read = self._core.read_namespaced_pod_log
        try:
            answer = self._call(
                *(read, pod, self.namespace),
                container=AGENT,
                tail_lines=_LOG_LINES,
                _preload_content=False,
            )
        except PeerError:
            return ""  # the pod or its node is gone
        return bytes(answer.data).decode(errors="replace")

    def event(self, job: str, kind: str) -> str:
        """The last event about a Job or its pods, of the ``kind`` (as ``type=Warning``).

        Empty if there is none, or if events cannot be read.
        """
        events = self._core.list_namespaced_event
        try:
            found = self._json(events, self.namespace, field_selector=kind)
        except PeerError:
            return ""  # events are only a help
        ours = [e for e in found["items"] if e["involvedObject"].get("name", "").startswith(job)]
        ours.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
        return f"{ours[-1].get('reason')}: {ours[-1].get('message')}" if ours else ""

    def _json(self, method: Callable[..., Any], *args: Any, **options: Any) -> Object:
        answer = self._call(method, *args, **options, _preload_content=False)
        try:
            thing: Object = json.loads(answer.data)
        except ValueError as error:
            raise PeerError(f"{self.place} is not Kubernetes: its answer is not JSON") from error
        return thing

    def _call(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        import kubernetes
        import urllib3

        try:
            return method(*args, **options, _request_timeout=_LIMIT_S)
        except kubernetes.utils.FailToCreateError as error:
            raise _translated(error.api_exceptions[0]) from error
        except kubernetes.client.ApiException as error:
            raise _translated(error) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            reason = getattr(error, "reason", None) or error
            raise NoAnswer(f"the API server at {self.place} does not answer: {reason}") from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # The client has no class for an object's kind, or the answer is not an object.
            raise PeerError(f"the request to {self.place} failed: {error!r}") from error


class NoAnswer(PeerError):
    """The server may or may not have done what was asked for."""


class _NotFound(PeerError):
    pass


def connect(context: Optional[str], namespace: Optional[str]) -> Api:
    """The API that this pod's service account or the kubeconfig names. Sends no request yet.

    Raises UsageError if neither names one.
    """
    try:
        import kubernetes
        import yaml
    except ImportError as error:
        raise missing(error) from error
    config = kubernetes.config
    settings = kubernetes.client.Configuration()
    try:
        if is_pod() and context is None and "KUBECONFIG" not in os.environ:
            config.load_incluster_config(client_configuration=settings)
            with open(f"{_POD}/namespace", encoding="utf-8") as own:
                default, where = own.read().strip(), "this pod's own cluster"
        else:
            file = os.environ.get("KUBECONFIG") or "~/.kube/config"
            config.load_kube_config(file, context, settings)
            contexts, current = config.list_kube_config_contexts(file)
            chosen = next((c for c in contexts if c["name"] == context), current)
            default = chosen["context"].get("namespace") or "default"
            where = f"context {chosen['name']}"
    except (config.ConfigException, OSError, yaml.YAMLError, TypeError) as error:
        # The client raises TypeError for a file that is not a kubeconfig.
        raise UsageError(
            f"there is no way to Kubernetes from here: {_one_line(error)}; put a kubeconfig at "
            "~/.kube/config, name one in KUBECONFIG and --context one of its contexts (kubectl "
            "config get-contexts), or run launch.py in a pod"
        ) from error
    settings.retries = 0  # the client's retries write to the terminal; our callers ask again
    client = kubernetes.client.ApiClient(settings)
    return Api(client, namespace or default, f"{settings.host} ({where})")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def is_pod() -> bool:
    """Whether this process runs in a pod with a service account."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and os.path.exists(f"{_POD}/token")


def _translated(error: Any) -> PeerError:
    """An ApiException in the server's own words."""
    try:
        words = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        words = error.body or error.reason
    kind = _NotFound if error.status == 404 else PeerError
    if error.status == 401:
        words = f"{words}: your credentials were not accepted; have they expired?"
    return kind(f"{words} ({error.status})")
