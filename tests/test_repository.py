"""The house is as docs/architecture.md says: who imports whom, and which files there are."""

import ast
import re
import subprocess
from pathlib import Path
from typing import Dict, Iterator, List, Set, Tuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("launcher", "scheduler", "ps", "worker")

# Whom a folder may import. A folder that is not named here goes with the one above it.
ARROWS: Dict[str, Set[str]] = {
    "ps": set(),
    "ps.transport": {"ps"},
    "ps.client": {"ps", "ps.transport"},
    "ps.server": {"ps", "ps.transport", "ps.client"},
    "scheduler": {"ps", "scheduler.control", "scheduler.observers"},
    "scheduler.control": {"ps"},
    "scheduler.observers": {"scheduler.control"},
    "scheduler.agent": {"ps", "scheduler.control"},
    "scheduler.server_task": {"ps", "scheduler.control"},
    "worker": {"ps", "scheduler.control"},
    "worker.mxnet": {"ps", "scheduler.control", "worker"},
    "launcher": {"ps", "scheduler", "scheduler.control", "scheduler.agent"},
}
# A list of names that an __init__.py hands on is no import of its folder's own.
PASSES_ON = {
    "ps": "ps.",
    "worker": "worker.mxnet",
    "worker.checkpoint": "worker.mxnet.checkpoint",
    "worker.data": "worker.mxnet.data",
}


def sources() -> List[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sources()}


def imports(path: Path) -> Iterator[Tuple[str, int]]:
    """(module of ours, or name in it, that is imported; line), without the leading ``baryon.``."""
    package = module_of(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("baryon."):
                    yield alias.name[len("baryon.") :], node.lineno
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = ".".join(package[: len(package) - node.level + 1])
                base = f"{base}.{node.module}" if node.module else base
            elif (node.module or "").split(".")[0] == "baryon":
                base = (node.module or "")[len("baryon.") :]
            else:
                continue
            for alias in node.names:
                yield f"{base}.{alias.name}" if base else alias.name, node.lineno


def module_in(name: str) -> str:
    """The module of ours that has ``name``; empty for one of the package baryon itself."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def folder_of(module: str) -> str:
    """The nearest folder that has arrows of its own."""
    while module not in ARROWS:
        module = module.rpartition(".")[0]
    return module


@pytest.mark.parametrize("module", MODULES)
def test_arrows_point_one_way(module: str) -> None:
    folder = folder_of(module)
    wrong = []
    for name, line in imports(MODULES[module]):
        target = module_in(name)
        if not target or (module in PASSES_ON and target.startswith(PASSES_ON[module])):
            continue
        if folder_of(target) not in ARROWS[folder] | {folder}:
            wrong.append(f"line {line} imports {name}")
    assert not wrong


@pytest.mark.parametrize("module", MODULES)
def test_another_package_is_known_by_its_top_level(module: str) -> None:
    """Of a sibling, or of a folder of its, only what its __init__.py lists is imported."""
    package = module.split(".")[0]
    inside = []
    for name, line in imports(MODULES[module]):
        target = module_in(name)
        if target.split(".")[0] in ("", package):
            continue
        if MODULES[target].name != "__init__.py" and target != "scheduler.control.messages":
            inside.append(f"line {line} imports {name}")
    assert not inside


def test_no_files_import_each_other() -> None:
    """Nor for types: what is imported under TYPE_CHECKING counts."""
    arrows = {
        module: {module_in(name) for name, _ in imports(path)} - {module, ""}
        for module, path in MODULES.items()
        if path.name != "__init__.py"
    }
    while True:
        free = {module for module, targets in arrows.items() if not targets & set(arrows)}
        if not free:
            break
        arrows = {module: targets for module, targets in arrows.items() if module not in free}
    assert not {module: targets & set(arrows) for module, targets in arrows.items()}


def test_only_one_folder_imports_mxnet() -> None:
    importers = set()
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            if any(name.split(".")[0] == "mxnet" for name in names):
                importers.add(module)
    assert not [module for module in importers if not module.startswith("worker.mxnet")]


def test_nobody_imports_a_folder_by_its_bare_name() -> None:
    """``import ps`` works in a checkout and nowhere else."""
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            assert not [name for name in names if name.split(".")[0] in PACKAGES], path


def test_files_that_documents_name_exist() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        named = re.findall(
            r"`((?:launcher|scheduler|ps|worker|tests|benchmarks|deploy|examples|docs)/[\w/.-]+)`",
            document.read_text(),
        )
        assert not [name for name in named if not (ROOT / name).exists()], document


def test_nothing_is_tracked_that_is_made() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, stdout=subprocess.PIPE, check=True
    ).stdout.decode()
    assert not re.search(r"__pycache__|\.egg-info|\.log$", tracked)


def test_every_kind_of_optimizer_has_its_module() -> None:
    """The only arrow from the ground floor to a framework: a name, looked up when it is needed."""
    found = ast.parse((ROOT / "ps" / "updater.py").read_text())
    (kinds,) = [
        node.value
        for node in ast.walk(found)
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "KINDS"
    ]
    for name in ast.literal_eval(kinds).values():  # type: ignore[arg-type]
        assert (
            re.match(r"baryon\.worker\.\w+\.updater$", name) and name[len("baryon.") :] in MODULES
        )
