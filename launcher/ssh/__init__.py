"""Connections to hosts over SSH (paramiko), and programs that run there under any login shell."""

import logging
import warnings

with warnings.catch_warnings():
    # paramiko's libraries warn about old versions, which is not the user's concern.
    warnings.simplefilter("ignore")
    import paramiko  # noqa: F401

from .config import SshConfig, Target
from .connection import Access, ConnectError, Connection, connect_all
from .host_keys import HostKeys
from .remote import Interpreter, RemoteProcess
from .tunnel import open_tunnel

__all__ = [
    "Access",
    "ConnectError",
    "Connection",
    "HostKeys",
    "Interpreter",
    "RemoteProcess",
    "SshConfig",
    "Target",
    "connect_all",
    "open_tunnel",
]

# Our own messages repeat what paramiko logs. Without a handler its log would go to standard error.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
