"""What the tests of launcher/ share: an empty folder to be in, with a script to run."""

import pytest

from baryon.launcher.options import parse
from baryon.ps import UsageError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder; nothing is in it but train.py."""
    (tmp_path / "train.py").write_text("print('hello')\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def job(folder):
    """The job that a command line describes."""
    return lambda *argv: parse([str(word) for word in argv])[0]


@pytest.fixture
def faults(folder):
    """The faults of a command line, one a line."""

    def faults(*argv):
        with pytest.raises(UsageError) as caught:
            parse([str(word) for word in argv])
        return str(caught.value).splitlines()

    return faults


@pytest.fixture
def open_to_all():
    """Lets every user into a folder; pytest's own folders above it are this user's alone."""

    def open_to_all(folder):
        for each in (folder, *folder.parents):
            if each.stat().st_mode & 0o5 != 0o5:
                each.chmod(0o755)

    return open_to_all
