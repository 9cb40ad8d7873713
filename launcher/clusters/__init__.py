"""How agents are started, one module each; all implement baryon.scheduler.Cluster."""

from typing import Callable, Dict

from baryon.scheduler import Cluster

from .local import LocalCluster

__all__ = ["CLUSTERS", "LocalCluster"]

CLUSTERS: Dict[str, Callable[[], Cluster]] = {"local": LocalCluster}
