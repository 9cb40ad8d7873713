"""How agents are started, one module each; each has a ``prepare`` that makes everything ready and
returns the job, as it is then known, with a baryon.scheduler.Cluster to run it on."""

from typing import Callable, Dict, Tuple

from baryon.scheduler import Cluster, Job

from ..flags import Options
from . import local, ssh

__all__ = ["CLUSTERS"]

Prepare = Callable[[Job, Options, Callable[[str], None]], Tuple[Job, Cluster]]

CLUSTERS: Dict[str, Prepare] = {"local": local.prepare, "ssh": ssh.prepare}
"""``prepare(job, options, say)`` by the name of the launcher; ``say`` tells the user something.

Raises BaryonError, in a line for each thing that is wrong, if the job cannot begin.
"""
