"""The modules that are pure: they import nothing through which the world could be seen or changed.

``python -m tests.pure`` lists their files, for `make coverage`.
"""

import ast
from pathlib import Path
from typing import Iterator, List, Set

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDERS = ("launcher", "ps", "scheduler", "worker")

WORLD = {
    *("asyncio", "atexit", "concurrent", "ctypes", "faulthandler", "fcntl", "gc", "getpass"),
    *("http", "importlib", "logging", "mmap", "multiprocessing", "os", "pathlib", "platform"),
    *("pty", "pwd", "queue", "select", "shutil", "socket", "ssl", "subprocess", "sys", "tempfile"),
    *("threading", "time", "urllib", "weakref"),
    *("cloudpickle", "fsspec", "jinja2", "kubernetes", "mxnet", "paramiko", "psutil", "requests"),
    *("rich", "zmq"),
}
"""Packages with state, clocks, threads, files, sockets or processes. What signals are called is
pure."""


def modules() -> List[Path]:
    """Their files, relative to the repository; without those that only say what a package has."""
    paths = (path for folder in FOLDERS for path in sorted((REPOSITORY / folder).rglob("*.py")))
    return [
        path.relative_to(REPOSITORY)
        for path in paths
        if path.name != "__init__.py" and not set(_imported(path)) & WORLD
    ]


def _imported(path: Path) -> Iterator[str]:
    """The top-level packages that a module imports, itself or in its functions."""
    found: Set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
    return (name.split(".")[0] for name in found)


if __name__ == "__main__":
    print(",".join(map(str, modules())))  # noqa: T201
