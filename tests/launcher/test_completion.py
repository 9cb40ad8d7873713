"""Completion, typed into real shells: a TAB, and what the command then gets as arguments."""

import os
import pty
import select
import shutil
import subprocess
import time
from typing import Iterator

import pytest

from baryon.launcher import baryon
from baryon.launcher.completion import script

LIMIT_S = 20.0
# Stand-ins that show their arguments, so that what is completed is what is called.
SHOW = "{}() {{ printf '<%s>' \"$@\"; echo; }}\n"
START = {
    "bash": ["bash", "--norc", "-i"],
    "zsh": ["zsh", "-f", "-i"],
}


@pytest.mark.parametrize("shell", START)
def test_the_command_prints_it(shell, capsys):
    assert baryon(["completion", shell]) == 0
    assert capsys.readouterr().out == script(shell)


class Shell:
    """An interactive shell on a terminal, in ``folder``, which has completion loaded."""

    def __init__(self, name: str, folder) -> None:
        self._pid, self._terminal = pty.fork()
        if not self._pid:
            os.chdir(folder)
            env = {"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "dumb", "PS1": "> "}
            os.execvpe(START[name][0], START[name], env)
        (folder / "completion").write_text(script(name))
        lines = SHOW.format("launch.py") + SHOW.format("baryon")
        if name == "zsh":
            lines = "autoload -U compinit; compinit -u -D\n" + lines
        lines += 'eval "$(cat completion)"\n'
        (folder / "begin").write_text(lines)
        self.result_of(". ./begin; echo '<ready>'", "<ready>")

    def result_of(self, typed: str, expected: str) -> None:
        """Type a line, and wait for a line of output that is as ``expected``."""
        os.write(self._terminal, f"{typed}\n".encode())
        seen, deadline = b"", time.monotonic() + LIMIT_S
        while expected not in [line.strip("\r ") for line in seen.decode().split("\n")]:
            left_s = deadline - time.monotonic()
            if left_s < 0 or not select.select([self._terminal], [], [], left_s)[0]:
                raise AssertionError(f"{expected!r} did not come, but {seen.decode()!r}")
            seen += os.read(self._terminal, 4096)

    def close(self) -> None:
        os.close(self._terminal)
        os.waitpid(self._pid, 0)


@pytest.fixture(scope="module", params=START)
def shell(request, tmp_path_factory) -> Iterator[Shell]:
    if shutil.which(request.param) is None:
        pytest.skip(f"there is no {request.param}")
    folder = tmp_path_factory.mktemp("shell")
    (folder / "hosts-of-mine").touch()
    (folder / "train.py").touch()
    jobs = folder / ".local/state/baryon/jobs"
    jobs.mkdir(parents=True)
    (jobs / "20260101-120000-77.json").touch()
    shell = Shell(request.param, folder)
    yield shell
    shell.close()


@pytest.mark.parametrize(
    ("typed", "arguments"),
    [
        ("launch.py --launcher ku\t x", "<--launcher><kubernetes><x>"),
        ("launch.py -n 2 -H hosts-\t x", "<-n><2><-H><hosts-of-mine><x>"),
        ("launch.py -n 2 tra\t", "<-n><2><train.py>"),
        ("launch.py --heartb\t 3", "<--heartbeat-timeout><3>"),
        ("launch.py --kvstore dist_ss\t p", "<--kvstore><dist_ssp><p>"),
        ("baryon stat\t", "<status>"),
        ("baryon status 2026\t", "<status><20260101-120000-77>"),
        ("baryon logs --follow 2026\t", "<logs><--follow><20260101-120000-77>"),
        ("baryon stop 2026\t", "<stop><20260101-120000-77>"),
        ("baryon doctor --launcher sl\t", "<doctor><--launcher><slurm>"),
        ("baryon completion z\t", "<completion><zsh>"),
    ],
)
def test_a_tab(shell, typed, arguments):
    shell.result_of(typed, arguments)


def test_no_jobs_are_no_names(tmp_path):
    code = f"{script('bash')}\n_baryon_jobs ''"
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(["bash", "-c", code], env=env, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")
