"""Lists the files that a host should have: a working directory, or Baryon itself.

Making a manifest looks at this machine's files but does not read them. delivery.py reads them.
"""

import os
import re
import stat
from importlib import metadata
from typing import Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

import pathspec

import baryon
from baryon.ps import UsageError

__all__ = [
    "ALWAYS_IGNORED",
    "IGNORE_FILE",
    "Entry",
    "Manifest",
    "package_manifest",
    "scan",
]

IGNORE_FILE = ".baryonignore"
ALWAYS_IGNORED = (
    ".git",
    ".venv",
    "__pycache__",
    "baryon-logs",
    ".baryon-incoming-*",
    ".*.sw[a-p]",  # vim's swap files, and Emacs's locks below, change while the user types
    ".#*",
)
"""Patterns before those of the ignore file, which can thus revoke one: ``!.venv``."""

_PACKAGES = ("scheduler", "ps", "worker")


class Entry(NamedTuple):
    """A file, link or directory. ``path`` is its relative path on the host, with slashes.

    ``kind`` is "file", "link" or "dir". ``mode`` are the permission bits. ``target`` is a link's
    relative target. ``source`` is the file's path on this machine.
    """

    path: str
    kind: str
    size: int = 0
    mtime_ns: int = 0
    mode: int = 0
    target: str = ""
    source: str = ""


class Manifest(NamedTuple):
    """``skipped`` has a sentence for the user about each file that is not copied."""

    entries: Tuple[Entry, ...]
    skipped: Tuple[str, ...] = ()


def scan(root: str, also_ignored: Iterable[str] = ()) -> Manifest:
    """The contents of ``root``, without what its ``.baryonignore`` (gitignore's syntax) excludes.

    A symbolic link to a place inside ``root`` stays a link. For other links, their target is
    copied. ``also_ignored`` are patterns that come before those of the file.

    Raises UsageError that lists all unreadable files, and all faulty patterns with their lines.
    """
    faults: List[str] = []
    spec = _patterns(root, [*ALWAYS_IGNORED, *also_ignored], faults)
    walk = _Walk(os.path.realpath(root), spec, faults)
    walk.folder(walk.root, "", ())
    if faults:
        raise UsageError("\n".join(faults))
    return Manifest(tuple(walk.entries), tuple(walk.skipped))


def _patterns(root: str, before: Sequence[str], faults: List[str]) -> pathspec.GitIgnoreSpec:
    path = os.path.join(root, IGNORE_FILE)
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        lines = []
    except OSError as error:
        lines = []
        faults.append(f"{path!r} cannot be read: {error.strerror}")
    good = list(before)
    for number, line in enumerate(lines, 1):
        try:
            pathspec.GitIgnoreSpec.from_lines([line])
            good.append(line)
        except (ValueError, re.error):
            faults.append(
                f"{path}:{number}: {line!r} is no pattern; write it as in a .gitignore file"
            )
    return pathspec.GitIgnoreSpec.from_lines(good)


class _Walk:
    """Collects entries, faults and skipped files, depth first, in alphabetical order."""

    def __init__(self, root: str, spec: pathspec.GitIgnoreSpec, faults: List[str]) -> None:
        self.root = root
        self.entries: List[Entry] = []
        self.skipped: List[str] = []
        self._spec = spec
        self._faults = faults

    def folder(self, source: str, path: str, above: Tuple[str, ...]) -> None:
        """Add the directory ``source`` as ``path``. ``above`` are the directories around it."""
        real = os.path.realpath(source)
        if real in above or (above and _is_inside(self.root, real)):
            self._faults.append(
                f"{source!r} leads to a directory that it lies in, so copying would never end; "
                f"exclude it in {IGNORE_FILE}"
            )
            return
        try:
            with os.scandir(source) as found:
                names = sorted(each.name for each in found)
        except OSError as error:
            self._faults.append(self._unreadable(source, error.strerror))
            return
        for name in names:
            try:
                self._one(os.path.join(source, name), f"{path}{name}", (*above, real))
            except OSError as error:
                self._faults.append(self._unreadable(os.path.join(source, name), error.strerror))

    def _one(self, source: str, path: str, above: Tuple[str, ...]) -> None:
        status = os.lstat(source)
        if self._is_ignored(path, status):
            return
        if stat.S_ISLNK(status.st_mode):
            target = _inner_target(self.root, source)
            if target is not None:
                self.entries.append(Entry(path, "link", target=target))
                return
            try:
                status = os.stat(source)
            except OSError as error:
                to = os.readlink(source)
                self.skipped.append(f"{source!r} is a link to {to!r}: {error.strerror}")
                return
            if self._is_ignored(path, status):
                return
        if stat.S_ISDIR(status.st_mode):
            mode = status.st_mode & 0o777 | 0o700  # or the next delivery could not write into it
            self.entries.append(Entry(path, "dir", mode=mode))
            self.folder(source, path + "/", above)
        elif not stat.S_ISREG(status.st_mode):
            self.skipped.append(f"{source!r} is neither a file nor a directory")
        elif not os.access(source, os.R_OK, effective_ids=True):
            self._faults.append(self._unreadable(source, "Permission denied"))
        else:
            self.entries.append(_file(path, source, status))

    def _is_ignored(self, path: str, status: os.stat_result) -> bool:
        # No pattern can name bytes that are not UTF-8.
        text = os.fsencode(path).decode("utf-8", "replace")
        return self._spec.match_file(text + "/" * stat.S_ISDIR(status.st_mode))

    def _unreadable(self, source: str, why: Optional[str]) -> str:
        return f"{source!r} cannot be read: {why}; make it readable or exclude it in {IGNORE_FILE}"


def _file(path: str, source: str, status: os.stat_result) -> Entry:
    mode = status.st_mode & 0o777
    return Entry(path, "file", status.st_size, status.st_mtime_ns, mode, source=source)


def _is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _inner_target(root: str, link: str) -> Optional[str]:
    """The target of ``link``, as a relative path that never leaves ``root``; None if outside."""
    folder = os.path.dirname(link)
    if not _is_inside(os.path.realpath(folder), root):
        return None  # we came here through a link out of root
    real = os.path.realpath(link)
    if not _is_inside(real, root):
        return None
    target = os.readlink(link)
    on_host = os.path.normpath(os.path.join(os.path.relpath(folder, root), target))
    if os.path.isabs(target) or on_host == ".." or on_host.startswith("../"):
        return os.path.relpath(real, folder)  # root has another name there
    return target


def package_manifest(distributions: Sequence[str] = ()) -> Manifest:
    """The parts of Baryon that agents and tasks need, and the installed ``distributions``.

    The destination is meant for PYTHONPATH.

    Raises UsageError if a distribution is not installed, or not as plain files.
    """
    top = os.path.dirname(os.path.abspath(baryon.__file__))
    entries = [_installed("baryon/__init__.py", os.path.join(top, "__init__.py"))]
    for package in _PACKAGES:
        for folder, folders, names in os.walk(os.path.join(top, package)):
            folders.sort()
            for name in sorted(names):
                source = os.path.join(folder, name)
                if name.endswith(".py"):
                    entries.append(_installed(f"baryon/{os.path.relpath(source, top)}", source))
    faults: List[str] = []
    seen: Set[str] = set()
    for distribution in distributions:
        if distribution not in seen:
            entries += _distribution(distribution, faults)
        seen.add(distribution)
    if faults:
        raise UsageError("\n".join(faults))
    return Manifest(tuple(entries))


def _distribution(name: str, faults: List[str]) -> List[Entry]:
    """The importable files of an installed distribution."""
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        faults.append(f"{name} is not installed here, so it cannot be sent; pip install {name}")
        return []
    paths = [
        path
        for path in found.files or ()
        if ".." not in path.parts and "__pycache__" not in path.parts
    ]
    entries = []
    try:
        for path in paths:
            entries.append(_installed(path.as_posix(), str(found.locate_file(path))))
    except OSError as error:
        faults.append(
            f"{error.filename!r} of {name} cannot be read: {error.strerror}; "
            f"pip install --force-reinstall {name}"
        )
    if not any(path.suffix in (".py", ".so") for path in paths):
        faults.append(
            f"{name} is not installed here as plain files, so it cannot be sent; install it from "
            "a wheel, or on all hosts"
        )
    return entries


def _installed(path: str, source: str) -> Entry:
    return _file(path, source, os.stat(source))
