"""What the documents say about the repository is so."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("launcher", "scheduler", "ps", "worker")


def sources():
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def test_architecture_lists_every_file_and_no_other() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    listed = set()
    for folder, table in re.findall(r"^\*\*(\S+)/\*\*\n\n((?:\|.*\n)+)", text, re.M):
        listed |= {f"{folder}/{name}" for name in re.findall(r"^\| (\S+\.py) \|", table, re.M)}
    assert listed == {str(path.relative_to(ROOT)) for path in sources()}


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    """ps imports no sibling, scheduler only ps, worker not launcher; nobody reaches inside."""
    package = path.relative_to(ROOT).parts[0]
    allowed = {
        "ps": set(),
        "scheduler": {"ps"},
        "worker": {"ps", "scheduler", "worker"},
        "launcher": {"ps", "scheduler"},
    }[package]
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        for name in names:
            parts = name.split(".")
            assert parts[0] not in PACKAGES, f"{name}: import baryon.{name}"
            if parts[0] == "baryon" and len(parts) > 1:
                assert parts[1] in allowed, f"{path} imports {name}"
                assert len(parts) == 2, f"{path} imports {name}, not its package's top level"


def test_nothing_is_tracked_that_is_made() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, stdout=subprocess.PIPE, check=True
    ).stdout.decode()
    assert not re.search(r"__pycache__|\.egg-info|\.log$", tracked)
