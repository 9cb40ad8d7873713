"""A real Kerberos KDC on this machine, with a user and an HTTP service on localhost."""

import importlib.util
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Dict, List

from tests.cluster import wait_until

__all__ = ["Kdc", "problems"]

_PACKAGES = {
    "krb5kdc": "krb5-kdc",
    "kdb5_util": "krb5-kdc",
    "kadmin.local": "krb5-admin-server",
    "kinit": "krb5-user",
}
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_CLIENT = """\
[libdefaults]
 default_realm = TEST
 dns_lookup_kdc = false
 dns_canonicalize_hostname = false
[realms]
 TEST = {{
  kdc = 127.0.0.1:{port}
 }}
"""
_SERVER = """\
[realms]
 TEST = {{
  database_name = {directory}/principals
  key_stash_file = {directory}/stash
  kdc_listen = 127.0.0.1:{port}
  kdc_tcp_listen = 127.0.0.1:{port}
 }}
"""


def problems() -> List[str]:
    """Why no KDC can run here, each with its remedy; empty if one can."""
    found = []
    missing = [command for command in _PACKAGES if not shutil.which(command, path=_PATH)]
    if missing:
        packages = " ".join(sorted({_PACKAGES[command] for command in missing}))
        found.append(f"not found: {', '.join(missing)}; apt-get install {packages}")
    if importlib.util.find_spec("requests_gssapi") is None:
        found.append("requests-gssapi is not installed; pip install -e '.[kerberos]'")
    return found


class Kdc:
    """Files lie in ``directory``; a client needs ``env``, and a service ``keytab``."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        directory.mkdir()
        for name, text in (("krb5.conf", _CLIENT), ("kdc.conf", _SERVER)):
            (directory / name).write_text(text.format(directory=directory, port=self._port))
        self.keytab = directory / "keytab"
        self.env: Dict[str, str] = {
            "KRB5_CONFIG": str(directory / "krb5.conf"),
            "KRB5CCNAME": f"FILE:{directory / 'tickets'}",
        }
        self._env = {
            **os.environ,
            **self.env,
            "KRB5_KDC_PROFILE": str(directory / "kdc.conf"),
            "PATH": _PATH,
        }

    def __enter__(self) -> "Kdc":
        self._call("kdb5_util", "create", "-s", "-P", "master")
        self._call("kadmin.local", "addprinc", "-randkey", "HTTP/localhost")
        self._call("kadmin.local", "addprinc", "-pw", "secret", "ada")
        self._call("kadmin.local", "ktadd", "-k", str(self.keytab), "HTTP/localhost")
        self._process = subprocess.Popen(
            ["krb5kdc", "-n"], env=self._env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self._answers, "the KDC")
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()
        self._process.wait(10)

    def log_in(self) -> None:
        """Get a ticket for the user ada."""
        self._call("kinit", "ada", given="secret\n")

    def log_out(self) -> None:
        self._call("kdestroy", "-q")

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def _call(self, *argv: str, given: str = "") -> None:
        subprocess.run(
            argv, env=self._env, input=given, text=True, capture_output=True, check=True, timeout=30
        )
