"""Whole jobs: real processes, real MXNet, seconds each."""

from pathlib import Path
from typing import Iterator

import pytest

from tests.cluster import Cluster


@pytest.fixture
def cluster(tmp_path: Path, no_leaks: None) -> Iterator[Cluster]:
    """A folder to run jobs in. At the end of the test, nothing of them may be left."""
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()
