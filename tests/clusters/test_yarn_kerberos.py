"""A ResourceManager that demands Kerberos, with a real KDC and real tickets.

The server does what Hadoop's filter does: it demands Negotiate, accepts a ticket for its own
service, and answers with a cookie that is good for the requests to come.
"""

import base64
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Iterator, List

import pytest

from baryon.launcher.clusters.yarn.resource_manager import Refusal, ResourceManager

from .kdc import Kdc

pytestmark = pytest.mark.kerberos


@pytest.fixture(scope="module")
def kdc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kdc]:
    with pytest.MonkeyPatch.context() as patch, Kdc(tmp_path_factory.mktemp("k") / "kdc") as kdc:
        for name, value in kdc.env.items():
            patch.setenv(name, value)
        yield kdc


class Server:
    """``users`` are those whose tickets it took, ``cookies`` counts the requests with a cookie."""

    def __init__(self, kdc: Kdc) -> None:
        import gssapi

        self.users: List[str] = []
        self.bodies: List[bytes] = []
        self.cookies = 0
        service = gssapi.Name("HTTP@localhost", gssapi.NameType.hostbased_service)
        store = {"keytab": os.fspath(kdc.keytab)}
        keys = gssapi.Credentials(name=service, usage="accept", store=store)
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                scheme, _, token = self.headers.get("Authorization", "").partition(" ")
                if "hadoop.auth=good" in self.headers.get("Cookie", ""):
                    server.cookies += 1
                    self.answer(200)
                elif scheme == "Negotiate":
                    context = gssapi.SecurityContext(creds=keys, usage="accept")
                    proof = base64.b64encode(context.step(base64.b64decode(token)) or b"")
                    server.users.append(str(context.initiator_name))
                    self.answer(
                        200,
                        ("WWW-Authenticate", f"Negotiate {proof.decode()}"),
                        ("Set-Cookie", "hadoop.auth=good; Path=/; HttpOnly"),
                    )
                else:
                    self.answer(401, ("WWW-Authenticate", "Negotiate"))
                    return
                server.bodies.append(body)

            do_POST = do_PUT = do_GET

            def answer(self, code: int, *headers) -> None:
                self.send_response(code)
                for name, value in headers:
                    self.send_header(name, value)
                self.end_headers()
                if code == 200:
                    self.wfile.write(b'{"app": 1}')

            def log_message(self, *_: object) -> None:
                pass

        self._http = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://localhost:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def server(kdc: Kdc) -> Iterator[Server]:
    server = Server(kdc)
    yield server
    server.close()


def test_a_ticket_opens_the_door_and_a_cookie_keeps_it_open(kdc: Kdc, server: Server) -> None:
    kdc.log_in()
    manager = ResourceManager((server.address,))
    assert manager.ask("POST", "apps", {"queue": "a"}) == {"app": 1}
    assert manager.ask("GET", "apps/a") == {"app": 1}
    assert server.users == ["ada@TEST"]
    assert server.bodies == [b'{"queue": "a"}', b""]
    assert server.cookies == 1


def test_without_a_ticket(kdc: Kdc, server: Server) -> None:
    kdc.log_in()
    kdc.log_out()
    with pytest.raises(Refusal) as caught:
        ResourceManager((server.address,)).ask("GET", "apps/a")
    assert str(caught.value) == "it refuses your Kerberos ticket; see klist, and get one by kinit"
    assert caught.value.status == 401
    assert server.users == []
