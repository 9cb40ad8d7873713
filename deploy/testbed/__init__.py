"""A cluster on one machine: each host is a network namespace with its own sshd.

From a shell: ``sudo python -m deploy.testbed up 4``; see deploy/README.md. It needs Linux, root and
the standard library only (except that ``Testbed.processes`` needs psutil).
"""

from .bed import DRIVER, Testbed
from .hosts import Host
from .processes import TestbedError
from .requirements import problems

__all__ = ["DRIVER", "Host", "Testbed", "TestbedError", "problems"]
