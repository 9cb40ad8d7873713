"""A cluster on one machine: hosts that are network namespaces, each with its own sshd.

From a shell: ``sudo python -m deploy.testbed up 4``; see deploy/README.md. It needs root and Linux
and nothing but the standard library (``Testbed.processes`` alone needs psutil).
"""

from .bed import DRIVER, Testbed
from .hosts import Host
from .processes import TestbedError
from .requirements import problems

__all__ = ["DRIVER", "Host", "Testbed", "TestbedError", "problems"]
