"""Logging in by password, passphrase and key, against a real SSH server: paramiko's own, since the
hosts of the test bed take keys only."""

import shlex
import socket
import subprocess
import sys
import threading

import paramiko
import pytest

from baryon.launcher.ssh import Access, ConnectError, Connection, HostKeys, Target, connect_all

PASSWORD = "open sesame"


class Server(paramiko.ServerInterface):
    """Lets in who knows the password, by the given method, or who has the key."""

    def __init__(self, method, key):
        self.method = method
        self.key = key

    def get_allowed_auths(self, username):
        return self.method

    def check_auth_password(self, username, password):
        return self._answer(self.method == "password" and password == PASSWORD)

    def check_auth_publickey(self, username, key):
        return self._answer(self.method == "publickey" and key == self.key)

    def check_auth_interactive(self, username, submethods):
        if self.method != "keyboard-interactive":
            return paramiko.AUTH_FAILED
        return paramiko.InteractiveQuery("", "", ("Password: ", False))

    def check_auth_interactive_response(self, responses):
        return self._answer(list(responses) == [PASSWORD])

    @staticmethod
    def _answer(is_right):
        return paramiko.AUTH_SUCCESSFUL if is_right else paramiko.AUTH_FAILED


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """A server on loopback that lets in by one method; returns the target that leads there."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    host_key = paramiko.ECDSAKey.generate()
    listeners, transports = [], []

    def serve(method, key=None, **changes):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def accept():
            while True:
                try:
                    raw, _ = listener.accept()
                except OSError:
                    return
                transport = paramiko.Transport(raw)
                transports.append(transport)
                transport.add_server_key(host_key)
                transport.start_server(server=Server(method, key), event=threading.Event())

        threading.Thread(target=accept, daemon=True).start()
        port = listener.getsockname()[1]
        known = tmp_path / "known_hosts"
        line = f"[127.0.0.1]:{port} {host_key.get_name()} {host_key.get_base64()}\n"
        known.write_text(line)
        return Target(
            **{
                "name": "here", "hostname": "127.0.0.1", "port": port, "user": "ada",
                "key_name": f"[127.0.0.1]:{port}", "known_hosts": (str(known),), **changes,
            }
        )  # fmt: skip

    yield serve
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for transport in transports:
        transport.close()


def enter(target, password=None, passphrase=None):
    (outcome,) = connect_all([target], Access(HostKeys(False), 5.0, password, passphrase))
    if isinstance(outcome, Connection):
        outcome.close()
        return None
    return outcome


@pytest.mark.parametrize("method", ["password", "keyboard-interactive"])
def test_a_password_is_asked_for_only_if_one_may_help(serve, method):
    target = serve(method)
    error = enter(target)
    assert isinstance(error, ConnectError) and error.wants == "password"
    assert "none of your keys is accepted" in str(error)
    assert enter(target, PASSWORD) is None
    assert enter(target, "wrong").wants == "password"


@pytest.fixture
def make_key(tmp_path):
    """(the key, its file), as ssh-keygen makes it."""

    def make_key(name, kind, passphrase=""):
        path = tmp_path / name
        command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(path)]
        subprocess.run(command, check=True)
        kinds = {"ed25519": paramiko.Ed25519Key, "rsa": paramiko.RSAKey}
        return kinds[kind].from_private_key_file(str(path), passphrase or None), path

    return make_key


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_a_key(serve, make_key, kind):
    key, path = make_key("key", kind)
    assert enter(serve("publickey", key, identity_files=(str(path),))) is None


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_a_key_that_is_encrypted(serve, make_key, kind):
    key, path = make_key("key", kind, PASSWORD)
    target = serve("publickey", key, identity_files=(str(path),))
    assert enter(target).wants == "passphrase"
    assert enter(target, passphrase=PASSWORD) is None


def test_a_passphrase_is_not_sent_as_a_password(serve):
    assert enter(serve("password"), passphrase=PASSWORD).wants == "password"


def test_a_key_that_is_the_wrong_one(serve, make_key):
    _, path = make_key("mine", "ed25519")
    key, _ = make_key("other", "ed25519")
    target = serve("publickey", key, identity_files=(str(path),))
    assert "none of your keys is accepted" in str(enter(target))


def test_a_key_that_is_damaged(serve, make_key):
    key, path = make_key("key", "ed25519")
    path.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nnonsense\n")
    assert enter(serve("publickey", key, identity_files=(str(path),))).wants == "password"


def test_something_that_is_no_ssh_server(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def answer():
            try:
                while True:
                    raw, _ = listener.accept()
                    raw.sendall(b"220 smtp.example ESMTP\r\n")
                    raw.close()
            except OSError:
                pass

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        error = enter(Target("here", "127.0.0.1", port, "ada", f"[127.0.0.1]:{port}"))
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert "is that an SSH server?" in str(error) and "tried 3 times" in str(error)


def test_a_name_that_nobody_knows():
    error = enter(Target("x", "no-such-host.invalid", 22, "ada", "no-such-host.invalid"))
    assert "there is no host no-such-host.invalid" in str(error)


def test_a_proxy_command_carries_the_connection(serve):
    target = serve("password")
    relay = (
        "import os,socket,sys,threading\n"
        "s=socket.create_connection(('127.0.0.1',int(sys.argv[1])))\n"
        "def pump():\n"
        "    while True:\n"
        "        d=os.read(0,65536)\n"
        "        if not d: os._exit(0)\n"
        "        s.sendall(d)\n"
        "threading.Thread(target=pump,daemon=True).start()\n"
        "while True:\n"
        "    d=s.recv(65536)\n"
        "    if not d: os._exit(0)\n"
        "    os.write(1,d)\n"
    )
    command = shlex.join([sys.executable, "-c", relay, str(target.port)])
    carried = target._replace(hostname="not.known", proxy_command=command)
    assert enter(carried, PASSWORD) is None
