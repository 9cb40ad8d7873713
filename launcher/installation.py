"""Checks that this machine has the libraries that Baryon's package metadata require.

Standard library only, because it runs when a library may be missing.
"""

import re
import sys
from importlib import metadata
from typing import List, Tuple

__all__ = ["faults"]

_REQUIREMENT = re.compile(r"([\w.-]+) ?(?:\[.*\])? ?\(?(?:>=([0-9.]+))?")


def faults() -> List[Tuple[str, str]]:
    """(what is wrong, what to do) for each library that is missing or too old."""
    try:
        required = metadata.requires("baryon") or []
    except metadata.PackageNotFoundError:
        return []  # it runs from a copy of the repository
    found = []
    for text in required:
        match = _REQUIREMENT.match(text)
        if match is None or ";" in text:  # of an extra, or for other Pythons
            continue
        name, lowest = match.groups()
        remedy = f"{sys.executable} -m pip install '{text}'"
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            found.append((f"{name} is not installed", remedy))
            continue
        if lowest and _numbers(version) < _numbers(lowest):
            found.append((f"{name} {version} is too old", remedy))
    return found


def _numbers(version: str) -> List[int]:
    return [int(number) for number in re.findall("[0-9]+", version)]
