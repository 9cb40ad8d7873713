"""Who may talk to whom: one CURVE key pair per task, and an allow-list on every TCP socket.

CURVE (ZeroMQ RFC 26) encrypts and authenticates each connection; the allow-list is enforced by
pyzmq's ZAP handler (RFC 27) before a connection exists, so a stranger never reaches our code. The
authenticated public key comes with every frame as its "User-Id": who sent a message is known by
its key, never by what the message claims.

Strangers can still connect. They cost a descriptor each until ZeroMQ hangs up, so a listening
socket is quick to do so and takes many connections at a time.
"""

import hashlib
from typing import Dict, Generic, NamedTuple, Optional, TypeVar

import zmq
from zmq.auth.thread import ThreadAuthenticator

__all__ = ["Authenticator", "KeyPair", "new_key_pair", "secure_client", "secure_server"]


_DOMAIN = "baryon"
# Who has not proven its key by then is hung up on. ZeroMQ's own limit is 30 s; one of our own that
# meets a busy machine tries again.
_HANDSHAKE_LIMIT_MS = 5000
_BACKLOG = 1024  # connections that the kernel accepts before ZeroMQ has; ZeroMQ's own is 100


class KeyPair(NamedTuple):
    """A CURVE key pair, each key as 40 characters of Z85 (ZeroMQ RFC 32)."""

    public: str
    secret: str


def new_key_pair() -> KeyPair:
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), secret.decode())


def secure_server(socket: zmq.Socket, keys: KeyPair) -> None:
    """Make a socket that will bind accept only CURVE connections, in any number.

    Call before ``bind``. Each connection takes a descriptor, a stranger's for some seconds: raise
    the process's limit.
    """
    socket.handshake_ivl = _HANDSHAKE_LIMIT_MS
    socket.backlog = _BACKLOG
    socket.curve_server = True
    socket.curve_publickey = keys.public.encode()
    socket.curve_secretkey = keys.secret.encode()
    socket.zap_domain = _DOMAIN.encode()


def secure_client(socket: zmq.Socket, keys: KeyPair, server_public: str) -> None:
    """Make a socket prove ``keys`` to its peer and demand ``server_public`` of it. Call before
    ``connect``."""
    socket.curve_serverkey = server_public.encode()
    socket.curve_publickey = keys.public.encode()
    socket.curve_secretkey = keys.secret.encode()


def token_of(secret_key: str) -> str:
    """What proves its holder where nothing is encrypted; says nothing of the key itself.

    Whoever can listen to the network can repeat it, so it keeps out mistakes and not attackers.
    """
    return hashlib.blake2b(secret_key.encode(), digest_size=24, person=b"baryon-token").hexdigest()


Peer = TypeVar("Peer")


class _AllowList:
    """pyzmq's credentials provider: is asked with each connection's public key, in Z85."""

    def __init__(self, peers: Dict[str, Peer]) -> None:
        self._allowed = {public.encode() for public in peers}

    def callback(self, domain: str, key: bytes) -> bool:
        return key in self._allowed


class Authenticator(Generic[Peer]):
    """Admits to all server sockets of a context the holders of the public keys in ``peers``.

    ``peers`` maps a public key to whatever the caller knows its holder by.

    Runs pyzmq's ZAP handler in a thread of its own, since a context has one for all its sockets.
    Start it before the first ``bind``.
    """

    def __init__(self, context: zmq.Context, peers: Dict[str, Peer]) -> None:
        self._peers = peers
        self._thread = ThreadAuthenticator(context)
        self._thread.start()
        self._thread.configure_curve_callback(_DOMAIN, credentials_provider=_AllowList(peers))

    def peer(self, frame: zmq.Frame) -> Optional[Peer]:
        """Who sent ``frame`` (received with copy=False); None if it is not known."""
        try:
            return self._peers.get(str(frame.get("User-Id")))
        except zmq.ZMQError:
            return None

    def stop(self) -> None:
        self._thread.stop()
