"""Finds YARN's ResourceManager in Hadoop's configuration, and talks to its REST interface.

This machine needs neither Java nor Hadoop for it. With Hadoop's "simple" authentication the user is
who ``user.name`` says. With Kerberos the user needs a ticket, and this machine the library
requests-gssapi (chosen over requests-kerberos, which also needs pyspnego and krb5).
"""

import getpass
import json
import os
import re
import ssl
import xml.etree.ElementTree as ET
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple
from urllib.parse import quote, urlsplit

import requests
from urllib3.exceptions import HTTPError

from baryon.ps import PeerError, UsageError

__all__ = ["Hadoop", "Refusal", "ResourceManager", "read_hadoop"]

_API = "/ws/v1/cluster"
_LIMIT_S = 30.0  # for one answer
_FOLDERS = (  # of yarn-site.xml, in the order of Hadoop's own commands
    ("YARN_CONF_DIR", ""),
    ("HADOOP_CONF_DIR", ""),
    ("HADOOP_YARN_HOME", "etc/hadoop"),
    ("HADOOP_HOME", "etc/hadoop"),
)
_DEFAULT_FOLDER = "/etc/hadoop/conf"
_REMEDY = (
    "set HADOOP_CONF_DIR to the directory with your cluster's yarn-site.xml, in which "
    "yarn.resourcemanager.webapp.address is enough"
)
# The default of yarn.application.classpath, in the notation for all platforms.
_CLASSPATH = (
    "{{HADOOP_CONF_DIR}}",
    *(
        f"{{{{HADOOP_{home}_HOME}}}}/share/hadoop/{folder}{part}/*"
        for home, folder in (("COMMON", "common"), ("HDFS", "hdfs"), ("YARN", "yarn"))
        for part in ("", "/lib")
    ),
)


class Hadoop(NamedTuple):
    """A cluster by its yarn-site.xml: the addresses of its ResourceManagers, one of them active,
    and the class path of Hadoop's own programs on the nodes."""

    managers: Tuple[str, ...]
    classpath: Tuple[str, ...] = _CLASSPATH


class Refusal(PeerError):
    """The ResourceManager refused a request. ``status`` is the HTTP status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def read_hadoop(environ: Mapping[str, str]) -> Hadoop:
    """The cluster that Hadoop's own commands would use.

    Raises UsageError if there is no configuration, or if it does not name the ResourceManager.
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

    Authenticates by Kerberos if the ResourceManager demands it: the user needs a ticket (kinit).
    Raises UsageError if the user has no name.
    """

    def __init__(self, addresses: Tuple[str, ...]) -> None:
        self._user = _user()
        self._addresses = list(addresses)  # the one that answered last comes first
        self._session = requests.Session()  # keeps the cookie that stands for a Kerberos ticket
        self._session.trust_env = False  # Hadoop's own commands ignore http_proxy, too
        paths = ssl.get_default_verify_paths()  # the system's, which has a site's own authority
        self._session.verify = paths.cafile or paths.capath or True
        # No connection is kept open between two questions, which are seconds apart.
        self._session.headers.update({"Accept": "application/json", "Connection": "close"})

    def url(self, path: str) -> str:
        """The address of requests about ``path``."""
        return f"{self._addresses[0]}{_API}/{path}?user.name={quote(self._user)}"

    def ask(self, method: str, path: str, body: Optional[object] = None) -> Any:
        """The decoded JSON of the answer; None if the answer is empty.

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
        answer = self._send(method, url, body)
        if _wants_kerberos(answer) and self._session.auth is None:
            self._session.auth = _kerberos()
            answer = self._send(method, url, body)
        text = answer.content.decode(errors="replace")
        if answer.status_code >= 300:
            raise _judge(answer, text)
        if not text.strip():
            return None
        try:
            return json.loads(text)
        except ValueError as error:  # from a standby, which older versions give the code 200
            raise _NoAnswer(_short(text)) from error

    def _send(self, method: str, url: str, body: Optional[object]) -> requests.Response:
        data, headers = None, {}
        if method != "GET":
            data = b"" if body is None else json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        try:
            # A standby redirects to the active one, which `ask` finds anyhow.
            return self._session.request(
                method, url, data=data, headers=headers, timeout=_LIMIT_S, allow_redirects=False
            )
        except (OSError, HTTPError, ValueError) as error:  # requests' own are OSErrors
            raise _NoAnswer(_cause(error)) from error


def _user() -> str:
    try:
        return os.environ.get("HADOOP_USER_NAME") or getpass.getuser()
    except (KeyError, OSError) as error:
        raise UsageError("your user name is unknown here; set HADOOP_USER_NAME") from error


class _NoAnswer(Exception):
    """No answer from this ResourceManager. Another one may be active."""


def _cause(error: BaseException) -> str:
    """The innermost error of this request: the outer ones only repeat the URL."""
    while isinstance(error.__context__, (OSError, HTTPError)):
        error = error.__context__
    return str(error) or type(error).__name__


def _wants_kerberos(answer: requests.Response) -> bool:
    return answer.status_code == 401 and "Negotiate" in answer.headers.get("WWW-Authenticate", "")


def _kerberos() -> requests.auth.AuthBase:
    try:
        from requests_gssapi import OPTIONAL, HTTPSPNEGOAuth
    except ImportError as error:
        remedy = "pip install 'baryon[kerberos]' on this machine"
        raise Refusal(f"it wants Kerberos; {remedy} ({error})", 401) from error
    # Answers to the cookie of an earlier one carry no proof of the server's identity.
    auth: requests.auth.AuthBase = HTTPSPNEGOAuth(mutual_authentication=OPTIONAL)
    return auth


def _judge(answer: requests.Response, text: str) -> Exception:
    """The exception for an answer that is an error."""
    status, reason = answer.status_code, answer.reason
    if status < 400 or status == 503:
        return _NoAnswer(_short(text) or f"HTTP {status} {reason}")
    if _wants_kerberos(answer):
        return Refusal("it refuses your Kerberos ticket; see klist, and get one by kinit", status)
    try:
        words = str(json.loads(text)["RemoteException"]["message"])
    except (ValueError, KeyError, TypeError):
        words = "" if "<" in text else text  # a page of HTML only repeats the code
    words = re.sub(r"^(?:[\w$]+\.)+[\w$]*(?:Exception|Error): ", "", words.strip())
    return Refusal(_short(words) or f"HTTP {status} {reason}", status)


def _short(text: str) -> str:
    return " ".join(text.split())[:500]
