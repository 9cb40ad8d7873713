"""Who may talk to whom: one CURVE key pair per task, and an allow-list on every TCP socket.

CURVE (ZeroMQ RFC 26) encrypts and authenticates each connection. pyzmq's ZAP handler (RFC 27)
enforces the allow-list before a connection exists, so a stranger never reaches our code. Every
frame carries the sender's authenticated public key as its "User-Id". That key identifies the
sender, never the content of the message.

Strangers can still open TCP connections, and each costs a descriptor until ZeroMQ hangs up. So a
listening socket hangs up soon, and accepts many connections at a time.
"""

import hashlib
from typing import Dict, Generic, NamedTuple, Optional, TypeVar

import zmq
from zmq.auth.thread import ThreadAuthenticator

__all__ = [
    "Authenticator", "KeyPair", "new_key_pair", "secure_client", "secure_server", "token_of",
]  # fmt: skip

_DOMAIN = "baryon"
# A peer that has not proven its key by then is disconnected. ZeroMQ's own limit is 30 s. A task of
# ours that is late because the machine is busy tries again.
_HANDSHAKE_LIMIT_MS = 5000
_BACKLOG = 1024  # connections that the kernel holds for ZeroMQ, whose own limit is 100


class KeyPair(NamedTuple):
    """A CURVE key pair, each key as 40 characters of Z85 (ZeroMQ RFC 32)."""

    public: str
    secret: str


def new_key_pair() -> KeyPair:
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), secret.decode())


def secure_server(socket: zmq.Socket, keys: KeyPair) -> None:
    """Make a socket accept CURVE connections only, in any number. Call before ``bind``.

    Each connection takes a descriptor, and a stranger's does so for some seconds: raise the
    process's limit.
    """
    socket.handshake_ivl = _HANDSHAKE_LIMIT_MS
    socket.backlog = _BACKLOG
    socket.curve_server = True
    socket.curve_publickey = keys.public.encode()
    socket.curve_secretkey = keys.secret.encode()
    socket.zap_domain = _DOMAIN.encode()


def secure_client(socket: zmq.Socket, keys: KeyPair, server_public: str) -> None:
    """Make a socket prove that it has ``keys``, and accept only the server with
    ``server_public``. Call before ``connect``."""
    socket.curve_serverkey = server_public.encode()
    socket.curve_publickey = keys.public.encode()
    socket.curve_secretkey = keys.secret.encode()


def token_of(secret_key: str) -> str:
    """A token that identifies its holder where nothing is encrypted. It does not reveal the key.

    Anyone who listens to the network can repeat it: it guards against mistakes, not attackers.
    """
    return hashlib.blake2b(secret_key.encode(), digest_size=24, person=b"baryon-token").hexdigest()


Peer = TypeVar("Peer")


class _AllowList:
    """A credentials provider: pyzmq asks it about each connection's public key, in Z85."""

    def __init__(self, peers: Dict[str, Peer]) -> None:
        self._allowed = {public.encode() for public in peers}

    def callback(self, domain: str, key: bytes) -> bool:
        return key in self._allowed


class Authenticator(Generic[Peer]):
    """Admits the holders of the public keys in ``peers`` to all server sockets of a context.

    ``peers`` maps a public key to the caller's name for its holder. pyzmq's ZAP handler runs in a
    thread of its own and serves all sockets of the context. Start it before the first ``bind``.
    """

    def __init__(self, context: zmq.Context, peers: Dict[str, Peer]) -> None:
        self._peers = peers
        self._thread = ThreadAuthenticator(context)
        self._thread.start()
        self._thread.configure_curve_callback(_DOMAIN, credentials_provider=_AllowList(peers))

    def peer(self, frame: zmq.Frame) -> Optional[Peer]:
        """The sender of ``frame`` (received with copy=False), or None if it is unknown."""
        try:
            return self._peers.get(str(frame.get("User-Id")))
        except zmq.ZMQError:
            return None

    def stop(self) -> None:
        self._thread.stop()
