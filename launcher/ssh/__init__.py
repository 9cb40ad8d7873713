"""Connections to hosts over SSH (paramiko), and programs run there whatever the login shell is."""

import logging

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

# What paramiko logs is told again in our own words; without this, it would go to standard error.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
