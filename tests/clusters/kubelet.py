"""Pods as local processes, each in namespaces of its own: what a kubelet and its runtime do.

A pod's command is process 1 of a process namespace, has exactly the environment that its image and
its manifest say, and its volumes where the manifest wants them, by mounts that nobody else sees. It
shares everything else with this machine: the file system is its image, and the network is here.
"""

import base64
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

import psutil

Object = Dict[str, Any]

IMAGE_ENV = {
    "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
    "HOME": "/root",
}
_SIZES = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


class PodProcess:
    """The agent's container of a pod. Start it in a thread that lives longer."""

    def __init__(
        self, pod: Object, secrets: Dict[str, Object], directory: Path, has_network: bool
    ) -> None:
        self.log = directory / "log"
        self._directory = directory
        self._kill_at: Optional[float] = None
        self._grace_s = pod["spec"]["terminationGracePeriodSeconds"]
        (container,) = pod["spec"]["containers"]
        host = pod["spec"]["hostname"]
        lines = [f"hostname {host}"]
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        for mount in container["volumeMounts"]:
            lines += self._mount(volumes[mount["name"]], mount["mountPath"], secrets)
        lines.append("ip link set lo up" if not has_network else ":")
        script = "\n".join([*lines, f"exec {shlex.join(container['command'])}"])
        env = {**IMAGE_ENV, "HOSTNAME": host, "KUBERNETES_SERVICE_HOST": "10.96.0.1"}
        annotations = pod["metadata"]["annotations"]
        for variable in container["env"]:
            source = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath", "")
            env[variable["name"]] = (
                annotations[source.split("'")[1]] if source else variable["value"]
            )
        unshare = ["unshare", "-m", "-u", "-p", "-f", "--kill-child", "--mount-proc"]
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL"),
                    *(*unshare, *([] if has_network else ["-n"])),
                    *("sh", "-ec", script),
                ],
                cwd="/",
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _mount(self, volume: Object, path: str, secrets: Dict[str, Object]) -> List[str]:
        where = shlex.quote(path)
        if "emptyDir" in volume:
            size = volume["emptyDir"].get("sizeLimit", "1Gi")
            nbytes = int(size[:-2]) * _SIZES[size[-2:]]
            return [f"mount -t tmpfs -o size={nbytes} tmpfs {where}"]
        source = self._directory / volume["name"]
        source.mkdir()
        for name, value in secrets[volume["secret"]["secretName"]]["data"].items():
            file = source / name
            file.write_bytes(base64.b64decode(value))
            file.chmod(volume["secret"]["defaultMode"])
        parent = shlex.quote(os.path.dirname(path))
        return [
            f"mount -t tmpfs tmpfs {parent}",  # the image has no such place
            f"mkdir -p {where}",
            f"mount --bind {shlex.quote(str(source))} {where}",
            f"mount -o remount,bind,ro {where}",
        ]

    def poll(self) -> Optional[int]:
        """Its exit code, as a runtime says it, or None."""
        if self._kill_at is not None and time.monotonic() > self._kill_at:
            self.kill()
        code = self._process.poll()
        return None if code is None else 128 - code if code < 0 else code

    def terminate(self) -> None:
        """SIGTERM now, SIGKILL when the grace period is over."""
        if self._kill_at is None:
            self._kill_at = time.monotonic() + self._grace_s
            for process in self._first():
                process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        for process in self._first():
            process.kill()  # and with it the namespace

    def processes(self) -> List[psutil.Process]:
        """All that run in it."""
        try:
            return psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def _first(self) -> List[psutil.Process]:
        try:
            return psutil.Process(self._process.pid).children()
        except psutil.NoSuchProcess:
            return []
