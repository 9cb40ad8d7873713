"""All workers have the same weights, or are told (scripts/weights_cases.py)."""

from tests.cluster import SCRIPTS, Cluster


def test_every_case(cluster: Cluster) -> None:
    cluster.run_cases(SCRIPTS / "weights_cases.py", 2)
