"""A stand-in for YARN on one machine: the ResourceManager's documented REST interface, and below it
what a NodeManager and Hadoop's distributed shell do with what they are given.

Requests are checked against the documented fields: an unknown one, a wrong type or a lack is a 400.
Files are localised only if their times are as stated. Commands are run for real, by the script that
a NodeManager would write for them: the ApplicationMaster's with a ``java`` that notes its arguments
(the distributed shell is played here), the containers' as they are.
"""

import json
import os
import queue
import shlex
import signal
import stat
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple
from urllib.parse import parse_qs, unquote, urlsplit

from tests.waiting import wait_until

# yarn.nodemanager.sleep-delay-before-sigkill.ms. Its default is 0.25 s, in which a shell on a busy
# test machine may not run at all.
_KILL_AFTER_S = 2.0
_MASTER = "org.apache.hadoop.yarn.applications.distributedshell.ApplicationMaster"
_MASTER_OPTIONS = (
    *("container_memory", "container_vcores", "container_resources", "num_containers", "priority"),
    *("container_resource_profile", "shell_env", "container_type"),
)
_NAMED_VALUES = [{"key": str, "value": str}]
# As documented, and app-node-label-expression, which only its class has.
SUBMISSION: Dict[str, Any] = {
    "application-id": str,
    "application-name": str,
    "application-type": str,
    "queue": str,
    "priority": int,
    "am-container-spec": {
        "local-resources": {
            "entry": [
                {
                    "key": str,
                    "value": {
                        "resource": str,
                        "type": str,
                        "visibility": str,
                        "size": int,
                        "timestamp": int,
                    },
                }
            ]
        },
        "environment": {"entry": _NAMED_VALUES},
        "commands": {"command": str},
    },
    "unmanaged-AM": bool,
    "max-app-attempts": int,
    "resource": {"memory": int, "vCores": int},
    "keep-containers-across-application-attempts": bool,
    "app-node-label-expression": str,
}
_OPTIONAL = {"queue", "priority", "app-node-label-expression"}


def problems(value: object, shape: object, where: str = "request") -> List[str]:
    """What is not as documented in a body; ``shape`` has the types in its places."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return [f"{where} is no object"]
        found = [f"{where}: unknown field {name}" for name in value.keys() - shape.keys()]
        found += [f"{where}: no {name}" for name in shape.keys() - value.keys() - _OPTIONAL]
        for name in value.keys() & shape.keys():
            found += problems(value[name], shape[name], f"{where}.{name}")
        return found
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"{where} is no list"]
        return [text for item in value for text in problems(item, shape[0], where)]
    return [] if type(value) is shape else [f"{where} is {value!r}"]


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, exception: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.exception = exception


class YarnBed:
    """Runs from the first to the last line of a `with`; ``env`` leads launch.py to it.

    ``held``: applications stay ACCEPTED. ``tags`` has a BARYON_TEST for each job to come.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.env = {"HADOOP_CONF_DIR": str(directory / "conf"), "HADOOP_USER_NAME": "ada lovelace"}
        self.held = False
        self.tags: queue.Queue[str] = queue.Queue()
        self.applications: Dict[str, Application] = {}
        self._server: Optional[ThreadingHTTPServer] = None

    def __enter__(self) -> "YarnBed":
        java = self.directory / "java" / "bin" / "java"
        java.parent.mkdir(parents=True)
        java.write_text("#!/bin/bash\nprintf '%s\\0' \"$@\" >arguments\n")
        java.chmod(0o755)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._server.serve_forever, name="rm", daemon=True).start()
        site = self.directory / "conf" / "yarn-site.xml"
        site.parent.mkdir()
        site.write_text(
            "<configuration><property><name>yarn.resourcemanager.webapp.address</name>"
            f"<value>127.0.0.1:{self._server.server_port}</value></property></configuration>"
        )
        return self

    def __exit__(self, *_: object) -> None:
        for application in self.applications.values():
            application.kill("the end of the test")
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def last(self) -> "Application":
        return list(self.applications.values())[-1]

    def answer(self, method: str, path: str, query: str, body: object) -> Tuple[int, object]:
        """(status, body) of a request."""
        (user,) = parse_qs(query).get("user.name", [""])
        if method != "GET" and not user:
            raise Refused(401, "AuthorizationException", "Unable to obtain user name")
        if (method, path) == ("POST", "apps/new-application"):
            name = f"application_1404203615263_{len(self.applications) + 1:04}"
            self.applications[name] = Application(self, name, user)
            capability = {"memory": 8192, "vCores": 32}
            return 200, {"application-id": name, "maximum-resource-capability": capability}
        if (method, path) == ("POST", "apps"):
            wrong = problems(body, SUBMISSION)
            if wrong:
                raise Refused(400, "WebApplicationException", "; ".join(wrong))
            assert isinstance(body, dict)
            self._application(body["application-id"]).submit(body)
            return 202, None
        _, name, *rest = path.split("/")
        application = self._application(name)
        if (method, rest) == ("GET", []):
            return 200, {"app": application.report()}
        if (method, rest) == ("PUT", ["state"]) and body == {"state": "KILLED"}:
            was = application.state
            application.kill(f"Application {name} was killed by user {user} at 127.0.0.1")
            return (200 if was == "KILLED" else 202), {"state": was}
        if (method, rest) == ("PUT", ["timeout"]):
            wrong = problems(body, {"timeout": {"type": str, "expiryTime": str}})
            if wrong:
                raise Refused(400, "BadRequestException", "; ".join(wrong))
            assert isinstance(body, dict)
            application.timeout = body["timeout"]
            return 202, {"timeout": application.timeout}
        raise Refused(404, "NotFoundException", f"{method} {path} {body}")

    def _application(self, name: str) -> "Application":
        if name not in self.applications:
            raise Refused(404, "NotFoundException", f"app with id: {name} not found")
        return self.applications[name]


class Application:
    """One application; its containers are process groups here."""

    def __init__(self, bed: YarnBed, name: str, user: str) -> None:
        self.name = name
        self.user = user
        self.request: Dict[str, Any] = {}
        self.arguments: Dict[str, str] = {}  # of the ApplicationMaster
        self.state, self.final_status, self.diagnostics = "NEW", "UNDEFINED", ""
        self.timeout: Optional[Dict[str, str]] = None
        self.containers: List[subprocess.Popen[bytes]] = []
        self._bed = bed
        self._directory = bed.directory / name
        self._lock = threading.Lock()

    def submit(self, request: Dict[str, Any]) -> None:
        self.request = request
        queue_name = request.get("queue", "default")
        if queue_name == "private":
            raise Refused(
                400,
                "BadRequestException",
                "org.apache.hadoop.security.AccessControlException: User ada lovelace does not "
                f"have permission to submit {self.name} to queue private",
            )
        if queue_name != "default":
            words = f"submitted by user {self.user} to unknown queue: {queue_name}"
            self._end("FAILED", f"Application {self.name} {words}")
            return
        self.state = "ACCEPTED"
        if self._bed.held:
            self.diagnostics = (
                "[Thu Nov 26 22:34:20 +0000 2026] Application is added to the scheduler and is not "
                "yet activated. Queue's AM resource limit exceeded.  Details : AM Partition = "
                "<DEFAULT_PARTITION>; AM Resource Request = <memory:1024, vCores:1>"
            )
            return
        threading.Thread(target=self._run, name=self.name, daemon=True).start()

    def report(self) -> Dict[str, object]:
        total = int(self.arguments.get("num_containers", 0))
        ended = sum(container.poll() is not None for container in self.containers)
        is_running = self.state == "RUNNING"
        timeout = {"type": "LIFETIME", "expiryTime": "UNLIMITED", "remainingTimeInSeconds": -1}
        return {
            "id": self.name,
            "user": self.user,
            "name": self.request["application-name"],
            "queue": self.request.get("queue", "default"),
            "state": self.state,
            "finalStatus": self.final_status,
            "progress": 100.0 * ended / total if total else 0.0,
            "trackingUI": "UNASSIGNED",
            "diagnostics": self.diagnostics,
            "clusterId": 1404203615263,
            "applicationType": self.request["application-type"],
            "runningContainers": 1 + len(self.containers) - ended if is_running else -1,
            "timeouts": {"timeout": [timeout]},
        }

    def kill(self, diagnostics: str) -> None:
        self._end("KILLED", diagnostics)

    def _end(self, state: str, diagnostics: str, final_status: str = "") -> None:
        with self._lock:
            if self.state in ("FINISHED", "FAILED", "KILLED"):
                return
            self.final_status = final_status or state
            self.state, self.diagnostics = state, diagnostics
        for container in self.containers:
            stop(container)

    def _run(self) -> None:
        """What a NodeManager does for the ApplicationMaster, and that for the containers."""
        tag = self._bed.tags.get(timeout=30)
        master = self._directory / "master"
        master.mkdir(parents=True)
        spec = self.request["am-container-spec"]
        failed = f"Application {self.name} failed 1 times due to AM Container: "
        for entry in spec["local-resources"]["entry"]:
            problem = localise(entry["value"], master / entry["key"])
            if problem:
                self._end("FAILED", failed + problem)
                return
        environment = {entry["key"]: entry["value"] for entry in spec["environment"]["entry"]}
        if "{{HADOOP_YARN_HOME}}/share/hadoop/yarn/*" not in environment["CLASSPATH"]:
            self._end("FAILED", f"{failed}Error: Could not find or load main class {_MASTER}")
            return
        command = spec["commands"]["command"]
        launch(master, command, {"JAVA_HOME": str(self._bed.directory / "java")}).wait(30)
        self.arguments = master_arguments((master / "arguments").read_bytes())
        shell_command = java_utf_of((master / "shellCommands").read_bytes())
        with self._lock:
            if self.state != "ACCEPTED":
                return
            self.state = "RUNNING"
        for number in range(1, int(self.arguments["num_containers"]) + 1):
            directory = self._directory / f"container_{number}"
            directory.mkdir()
            words = f"{shell_command}  1><LOG_DIR>/stdout 2><LOG_DIR>/stderr "
            env = {"YARN_SHELL_ID": str(number), "BARYON_TEST": tag}
            with self._lock:
                if self.state == "RUNNING":
                    self.containers.append(launch(directory, words, env))
        failures = sum(container.wait() != 0 for container in self.containers)
        total = len(self.containers)
        counts = f"total={total}, completed={total}, allocated={total}, failed={failures}"
        status = "FAILED" if failures else "SUCCEEDED"
        self._end("FINISHED", f"Diagnostics., {counts}" if failures else "", status)


def localise(resource: Dict[str, Any], target: Path) -> str:
    """Make a resource of a request what a container finds; returns why that cannot be."""
    source = Path(unquote(urlsplit(resource["resource"]).path))
    status = source.stat()
    was, expected = int(status.st_mtime) * 1000, resource["timestamp"]  # Java 8: whole seconds
    if was != expected or status.st_mtime_ns % 1_000_000_000:
        return f"Resource {source} changed on src filesystem (expected {expected}, was {was})"
    if status.st_size != resource["size"] or not stat.S_ISREG(status.st_mode):
        return f"{source} has {status.st_size} bytes"
    target.write_bytes(source.read_bytes())
    return ""


def launch(directory: Path, command: str, env: Dict[str, str]) -> "subprocess.Popen[bytes]":
    """Run a command as a NodeManager does: expanded, in double quotes, in a session of its own."""
    logs = directory / "logs"
    logs.mkdir()
    text = command.replace("<LOG_DIR>", str(logs)).replace("{{", "${").replace("}}", "}")
    exports = "".join(f'export {name}="{value}"\n' for name, value in env.items())
    script = directory / "launch_container.sh"
    script.write_text(f'#!/bin/bash\n{exports}exec /bin/bash -c "{text}"\n', encoding="utf-8")
    return subprocess.Popen(
        ["/bin/bash", str(script)],
        cwd=directory,
        env={"PATH": "/usr/bin:/bin", "HOME": "/home/", "USER": "ada"},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def stop(container: "subprocess.Popen[bytes]") -> None:
    """As a NodeManager stops one: SIGTERM to the whole session, and soon SIGKILL."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(container.pid, signum)
            container.wait(_KILL_AFTER_S)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass
    wait_until(lambda: container.poll() is not None, "the end of a container")


def master_arguments(raw: bytes) -> Dict[str, str]:
    """The options that the ApplicationMaster was given, each of which it has to know."""
    heap, name, *words = raw.decode().split("\0")[:-1]
    assert heap.startswith("-Xmx")
    assert name == _MASTER
    names, values = words[::2], words[1::2]
    assert len(names) == len(values), shlex.join(words)
    options = {name[2:]: value for name, value in zip(names, values)}
    assert options.keys() <= set(_MASTER_OPTIONS), options
    return options


def java_utf_of(raw: bytes) -> str:
    """What Java's DataInput.readUTF would read."""
    assert int.from_bytes(raw[:2], "big") == len(raw) - 2
    units = raw[2:].decode("utf-8", "surrogatepass")
    return units.encode("utf-16", "surrogatepass").decode("utf-16")


def _handler(bed: YarnBed) -> type:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            url = urlsplit(self.path)
            prefix = "/ws/v1/cluster/"
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer: object
            try:
                if raw and self.headers["Content-Type"] != "application/json":
                    raise Refused(415, "WebApplicationException", "Unsupported Media Type")
                assert url.path.startswith(prefix)
                body = json.loads(raw) if raw else None
                path = url.path[len(prefix) :]
                status, answer = bed.answer(self.command, path, url.query, body)
            except Refused as error:
                details = {
                    "exception": error.exception,
                    "message": str(error),
                    "javaClassName": f"org.apache.hadoop.yarn.webapp.{error.exception}",
                }
                status, answer = error.status, {"RemoteException": details}
            data = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = _serve

        def log_message(self, *_: object) -> None:
            pass

    return Handler
