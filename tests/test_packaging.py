"""What users install is whole: a source distribution, and the wheel that is made of it."""

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import Iterator

import pytest

from tests.cluster import Cluster
from tests.test_repository import PACKAGES, ROOT

BUILD = (
    "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
)

pytestmark = pytest.mark.jobs


def build(kind: str, source: Path, target: Path) -> Path:
    """What setuptools makes of ``source``, as pip and build have it do."""
    argv = [sys.executable, "-c", BUILD, f"build_{kind}", str(target)]
    done = subprocess.run(argv, cwd=source, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = target.iterdir()
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """It has the folders ``source``, as unpacked, and ``wheel``, as installed."""
    folder = tmp_path_factory.mktemp("packaging")
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout.decode()
    for name in filter(None, tracked.split("\0")):
        if not name.startswith("tests/") and (ROOT / name).is_symlink() | (ROOT / name).exists():
            (folder / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / "checkout" / name, follow_symlinks=False)
    for name in ("made", "wheels"):
        (folder / name).mkdir()
    archive = build("sdist", folder / "checkout", folder / "made")
    subprocess.run(["tar", "xzf", archive], cwd=folder, check=True)
    (folder / archive.name[: -len(".tar.gz")]).rename(folder / "source")
    with zipfile.ZipFile(build("wheel", folder / "source", folder / "wheels")) as wheel:
        wheel.extractall(folder / "wheel")
    yield folder
    shutil.rmtree(folder)


def test_the_source_distribution_has_what_readme_speaks_of(folder: Path) -> None:
    for name in ("docs", "examples", "deploy", "benchmarks"):
        there, here = folder / "source" / name, folder / "checkout" / name
        assert {p.relative_to(there) for p in there.rglob("*")} == {
            p.relative_to(here) for p in here.rglob("*")
        }
    assert {"README.md", "CHANGELOG.md", "LICENSE"} <= set(os.listdir(folder / "source"))


def test_the_wheel_has_all_code_and_says_what_it_needs(folder: Path) -> None:
    wheel = folder / "wheel"
    ours = {p.relative_to(ROOT) for name in PACKAGES for p in (ROOT / name).rglob("*.py")}
    installed = {p.relative_to(wheel / "baryon") for p in (wheel / "baryon").rglob("*.py")}
    assert installed == ours | {Path(p.name) for p in (ROOT / "baryon").glob("*.py")}
    assert (wheel / "baryon" / "py.typed").exists()
    templates = {path.name for path in (ROOT / "deploy" / "templates").iterdir()}
    assert {path.name for path in (wheel / "baryon" / "templates").iterdir()} == templates
    assert {path.name for path in wheel.iterdir() if path.suffix != ".dist-info"} == {"baryon"}
    (metadata,) = wheel.glob("*.dist-info/METADATA")
    assert message_from_bytes(metadata.read_bytes())["Requires-Python"] == "<3.13,>=3.8"


def test_setup_cfg_lists_every_package() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    listed = settings["options"]["packages"].split()
    folders = {p.parent.relative_to(ROOT) for name in PACKAGES for p in (ROOT / name).rglob("*.py")}
    assert sorted(listed) == sorted(["baryon", *(f"baryon.{'.'.join(f.parts)}" for f in folders)])


def test_the_wheel_runs_the_demo(folder: Path, tmp_path: Path) -> None:
    """From it, and with the script of the source distribution; not from this repository."""
    script = folder / "source" / "examples" / "train_digits.py"
    cluster, env = Cluster(tmp_path), {"PYTHONPATH": str(folder / "wheel")}
    whose = "import baryon.worker as worker; print(worker.__file__)"
    run = cluster.run("-n", 1, sys.executable, "-c", whose, env=env)
    assert f"worker 0 | {folder / 'wheel'}/baryon/worker/__init__.py\n" in run.out
    run = cluster.run("-n", 2, "-s", 2, "--devices", 2, script, "--epochs", 3, env=env)
    assert "Epoch 3." in run.out and "reloaded, Test_acc" in run.out
    cluster.close()
