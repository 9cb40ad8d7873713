"""How agents are started, one module each, named as ``--launcher`` names them.

Each has a function ``prepare``, which makes everything ready and returns the job, as it is then
known, with a baryon.scheduler.Cluster to run it on.
"""

import importlib
from typing import Callable, Tuple

from baryon.scheduler import Cluster, Job

from ..flags import Options

__all__ = ["prepare"]


def prepare(job: Job, options: Options, say: Callable[[str], None]) -> Tuple[Job, Cluster]:
    """Make ready what ``job.launcher`` needs; ``say`` tells the user something.

    Raises BaryonError, in a line for each thing that is wrong, if the job cannot begin.
    """
    module = importlib.import_module(f".{job.launcher}", __name__)  # and no other's libraries
    prepared: Tuple[Job, Cluster] = module.prepare(job, options, say)
    return prepared
