"""Connections to hosts over SSH (paramiko), and programs run there whatever the login shell is."""

import logging
import warnings

with warnings.catch_warnings():
    # Its libraries warn of each other's age, and of Python's: no news for who runs a job.
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

# What paramiko logs is told again in our own words; without this, it would go to standard error.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
