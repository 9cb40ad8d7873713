"""YARN's ResourceManager over HTTP: where it is, as Hadoop's configuration says, and what it says.

Its REST interface needs neither Java nor Hadoop here. Users are who they say (``user.name``), as
Hadoop's "simple" authentication has it; Kerberos is not spoken.
"""

import getpass
import json
import os
import re
import urllib.error
import urllib.request
import xml.etree.ElementTree as ET
from http.client import HTTPException
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple
from urllib.parse import quote, urlsplit

from baryon.ps import PeerError, UsageError

__all__ = ["Hadoop", "Refusal", "ResourceManager", "read_hadoop"]

_API = "/ws/v1/cluster"
_LIMIT_S = 30.0  # for one answer
_FOLDERS = (  # of yarn-site.xml, in the order in which Hadoop's own commands look
    ("YARN_CONF_DIR", ""),
    ("HADOOP_CONF_DIR", ""),
    ("HADOOP_YARN_HOME", "etc/hadoop"),
    ("HADOOP_HOME", "etc/hadoop"),
)
_DEFAULT_FOLDER = "/etc/hadoop/conf"
_REMEDY = (
    "set HADOOP_CONF_DIR to the directory with your cluster's yarn-site.xml; of that, "
    "yarn.resourcemanager.webapp.address is enough"
)
# The default of yarn.application.classpath, as an ApplicationMaster on any platform gets it.
_CLASSPATH = (
    "{{HADOOP_CONF_DIR}}",
    *(
        f"{{{{HADOOP_{home}_HOME}}}}/share/hadoop/{folder}{part}/*"
        for home, folder in (("COMMON", "common"), ("HDFS", "hdfs"), ("YARN", "yarn"))
        for part in ("", "/lib")
    ),
)


class Hadoop(NamedTuple):
    """A cluster, by its yarn-site.xml: the addresses of its ResourceManagers, of which one is
    active, and the class path of its own programs on the nodes."""

    managers: Tuple[str, ...]
    classpath: Tuple[str, ...] = _CLASSPATH


class Refusal(PeerError):
    """The ResourceManager has understood, and says no; ``status`` is HTTP's."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def read_hadoop(environ: Mapping[str, str]) -> Hadoop:
    """The cluster that Hadoop's own commands would talk to.

    Raises UsageError if there is no configuration here, or none that says where it is.
    """
    folders = [os.path.join(environ[name], part) for name, part in _FOLDERS if environ.get(name)]
    paths = [os.path.join(folder, "yarn-site.xml") for folder in [*folders, _DEFAULT_FOLDER]]
    path = next(filter(os.path.isfile, paths), None)
    if path is None:
        raise UsageError(f"there is no {' or '.join(paths)}; {_REMEDY}")
    site = _properties(path)
    try:
        managers = _managers(site)
    except ValueError as error:  # of a port
        raise UsageError(f"{path}: {error}") from error
    if not managers:
        raise UsageError(f"{path} does not say where the ResourceManager is; {_REMEDY}")
    classpath = site.get("yarn.application.classpath", "")
    entries = tuple(entry.strip() for entry in classpath.split(",") if entry.strip())
    return Hadoop(managers, entries or _CLASSPATH)


def _properties(path: str) -> Dict[str, str]:
    try:
        root = ET.parse(path).getroot()
    except (OSError, ET.ParseError) as error:
        raise UsageError(f"{path}: {error}") from error
    found = {
        str(item.findtext("name", "")).strip(): str(item.findtext("value", "")).strip()
        for item in root.iter("property")
    }

    def value_of(match: "re.Match[str]") -> str:
        return found.get(match[1], match[0])

    return {name: re.sub(r"\$\{([^}]+)\}", value_of, value) for name, value in found.items()}


def _managers(site: Mapping[str, str]) -> Tuple[str, ...]:
    prefix, scheme, port = "yarn.resourcemanager.", "http", 8088
    kind = "webapp.address"
    if site.get("yarn.http.policy") == "HTTPS_ONLY":
        scheme, port, kind = "https", 8090, "webapp.https.address"
    suffixes = [""]
    if site.get(f"{prefix}ha.enabled") == "true":
        suffixes = [f".{name.strip()}" for name in site.get(f"{prefix}ha.rm-ids", "").split(",")]
    managers = []
    for suffix in suffixes:
        host = site.get(f"{prefix}{kind}{suffix}") or site.get(f"{prefix}hostname{suffix}")
        if host:
            has_port = urlsplit(f"//{host}").port is not None
            managers.append(f"{scheme}://{host}" if has_port else f"{scheme}://{host}:{port}")
    return tuple(managers)


class ResourceManager:
    """Asks whichever of ``addresses`` is active. For one thread.

    Raises UsageError if nobody knows who the user is.
    """

    def __init__(self, addresses: Tuple[str, ...]) -> None:
        self._user = _user()
        self._addresses = list(addresses)  # the one that has answered last comes first
        # Hadoop's own commands do not look at http_proxy either.
        self._opener = urllib.request.build_opener(_AsItIs, urllib.request.ProxyHandler({}))

    def url(self, path: str) -> str:
        """Where requests about ``path`` go."""
        return f"{self._addresses[0]}{_API}/{path}?user.name={quote(self._user)}"

    def ask(self, method: str, path: str, body: Optional[object] = None) -> Any:
        """What it answers, JSON decoded; None if that is nothing.

        Raises Refusal if the answer is an error, PeerError if there is none.
        """
        silent: List[str] = []
        for _ in self._addresses:
            try:
                return self._ask(method, self.url(path), body)
            except _NoAnswer as error:
                silent.append(f"{self._addresses[0]}: {error}")
                self._addresses.append(self._addresses.pop(0))
        raise PeerError(f"no ResourceManager answers: {'; '.join(silent)}")

    def _ask(self, method: str, url: str, body: Optional[object]) -> Any:
        data, headers = None, {"Accept": "application/json"}
        if method != "GET":
            data = b"" if body is None else json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with self._opener.open(request, timeout=_LIMIT_S) as answer:
                text = answer.read().decode(errors="replace")
        except urllib.error.URLError as error:
            raise _NoAnswer(str(error.reason)) from error
        except (OSError, HTTPException, ValueError) as error:
            raise _NoAnswer(str(error) or type(error).__name__) from error
        if answer.status >= 300:
            raise _judge(answer.status, answer.reason, answer.headers, text)
        if not text.strip():
            return None
        try:
            return json.loads(text)
        except ValueError as error:  # a standby's, with code 200 in older versions
            raise _NoAnswer(_short(text)) from error


def _user() -> str:
    try:
        return os.environ.get("HADOOP_USER_NAME") or getpass.getuser()
    except (KeyError, OSError) as error:
        raise UsageError("you have no name here; set HADOOP_USER_NAME") from error


class _NoAnswer(Exception):
    """Another ResourceManager may be the active one."""


class _AsItIs(urllib.request.HTTPErrorProcessor):
    """Errors are answers; and a standby redirects to the active one, which is asked here anyhow."""

    def http_response(self, request: Any, response: Any) -> Any:
        return response

    https_response = http_response


def _judge(status: int, reason: str, headers: Mapping[str, str], text: str) -> Exception:
    """The exception of an answer that is an error."""
    if status < 400 or status == 503:
        return _NoAnswer(_short(text) or f"HTTP {status} {reason}")
    if "Negotiate" in headers.get("WWW-Authenticate", ""):
        words = "it wants Kerberos, which launch.py does not speak; see docs/clusters.md"
        return Refusal(words, status)
    try:
        words = str(json.loads(text)["RemoteException"]["message"])
    except (ValueError, KeyError, TypeError):
        words = "" if "<" in text else text  # pages of HTML have only the code in other words
    words = re.sub(r"^(?:[\w$]+\.)+[\w$]*(?:Exception|Error): ", "", words.strip())
    return Refusal(_short(words) or f"HTTP {status} {reason}", status)


def _short(text: str) -> str:
    return " ".join(text.split())[:500]
