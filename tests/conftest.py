"""For all tests: those that need hosts are skipped where there can be none, but not in CI."""

import os
from typing import List

import pytest

from deploy.testbed import problems


def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("hosts")]
    if marked and "CI" not in os.environ:
        found = problems()
        for item in marked if found else ():
            item.add_marker(pytest.mark.skip(reason="; ".join(found)))
