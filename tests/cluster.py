"""Runs real jobs for tests, and sees to it that they leave nothing behind."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

import psutil

from tests import leaks
from tests.waiting import LIMIT_S, wait_until

REPOSITORY = Path(__file__).resolve().parent.parent
SCRIPTS = Path(__file__).resolve().parent / "jobs" / "scripts"


class JobRun:
    """A ``launch.py`` that is running, with what it has written so far."""

    def __init__(
        self,
        args: List[str],
        cwd: Path,
        env: Dict[str, str],
        ignore: Optional[int] = None,
        host_command: Callable[[List[str]], List[str]] = lambda argv: argv,
    ) -> None:
        """``host_command`` makes of a command another that runs it on a host of a test bed."""
        self.tag = f"test-{os.getpid()}-{time.monotonic_ns()}"
        argv = [sys.executable, "-m", "baryon.launcher", "--quiet", *args]
        self._is_child = host_command(argv) != argv
        self._process = subprocess.Popen(
            host_command(argv),
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), **env, "BARYON_TEST": self.tag},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=(lambda: signal.signal(ignore, signal.SIG_IGN)) if ignore else None,
        )
        self.pid = self._process.pid
        self._parts: Dict[str, List[str]] = {"out": [], "err": []}
        self._readers = [
            threading.Thread(target=self._read, args=(pipe, name), daemon=True)
            for pipe, name in ((self._process.stdout, "out"), (self._process.stderr, "err"))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, pipe: object, name: str) -> None:
        for line in pipe:  # type: ignore[attr-defined]
            self._parts[name].append(line.decode())

    @property
    def out(self) -> str:
        return "".join(self._parts["out"])

    @property
    def err(self) -> str:
        return "".join(self._parts["err"])

    def wait_for_output(self, text: str, count: int = 1) -> None:
        wait_until(
            lambda: (self.out + self.err).count(text) >= count or self._process.poll() is not None,
            f"{text!r} in the output",
        )
        assert (self.out + self.err).count(text) >= count, self.out + self.err

    def processes(self, *words: str) -> List[psutil.Process]:
        """The job's living processes whose command line contains all of ``words``."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if process.environ().get("BARYON_TEST") != self.tag:
                    continue
                line = " ".join(process.cmdline())
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            if all(word in line for word in words):
                found.append(process)
        return found

    def task(self, slug: str) -> psutil.Process:
        """The oldest process of a task: the one its agent started."""
        role, rank = slug.split("-")
        for process in self.processes():
            path = process.environ().get("BARYON_TASK", "")
            if path and f"memfd:{slug} " in os.readlink(path):
                return process
        raise LookupError(f"no process of {role} {rank}")

    def signal(self, signum: int) -> None:
        if self._is_child:
            (child,) = psutil.Process(self.pid).children()
            child.send_signal(signum)
        else:
            self._process.send_signal(signum)

    def end(self, limit_s: float = LIMIT_S) -> int:
        """Wait for the end; returns the exit code (minus the signal if one ended it)."""
        code = self._process.wait(limit_s)
        for reader in self._readers:
            reader.join(limit_s)
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()
        return code

    def found(self) -> List[str]:
        """What is left of it: processes, wherever they went."""
        return [leaks.described(process.pid) for process in self.processes()]

    def wait_until_gone(self) -> None:
        leaks.check(self, limit_s=20.0)

    def kill(self) -> None:
        """For the end of a test that has failed."""
        for process in self.processes():
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                pass


class Cluster:
    """Starts jobs in one working directory."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd
        self._runs: List[JobRun] = []
        self._files = leaks.Files()

    def start(
        self, *args: object, env: Optional[Dict[str, str]] = None, ignore: Optional[int] = None
    ) -> JobRun:
        """Start a job; it ignores the signal ``ignore``, as under nohup."""
        run = JobRun([str(arg) for arg in args], self.cwd, env or {}, ignore)
        self._runs.append(run)
        return run

    def run(self, *args: object, env: Optional[Dict[str, str]] = None, code: int = 0) -> JobRun:
        """Run a job to its end and check its exit code."""
        run = self.start(*args, env=env)
        ended = run.end()
        assert ended == code, f"exit code {ended}, not {code}:\n{run.out}\n{run.err}"
        return run

    def run_cases(self, script: Path, workers: int, *flags: object) -> None:
        """Run a script of cases (jobs/scripts/cases.py), all of which every worker must pass."""
        run = self.run("-n", workers, *flags, script)
        number = len(re.findall(r"^def case_", script.read_text(encoding="utf-8"), re.MULTILINE))
        assert run.out.count("PASSED") == workers * number > 0, run.out

    def script(self, text: str, name: str = "script.py") -> Path:
        """Write a script into the working directory."""
        path = self.cwd / name
        path.write_text(text, encoding="utf-8")
        return path

    def close(self) -> None:
        """Check that nothing is left: no process, and no file where temporary ones are."""
        try:
            for run in self._runs:
                run.end()
            leaks.check(*self._runs, self._files, limit_s=20.0)
        finally:
            for run in self._runs:
                run.kill()


class Shell:
    """Where jobs are detached, and looked at later, as from another terminal."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.env = {"XDG_STATE_HOME": str(cluster.cwd / "state")}

    def detach(self, *args: object) -> Tuple[str, JobRun]:
        """The job's name, and the run of which its processes are."""
        run = self._cluster.run("--detach", *args, env=self.env)
        (name,) = run.out.split()
        return name, run

    def baryon(self, *words: str, code: int = 0) -> str:
        """What the command prints."""
        program = "import sys; from baryon.launcher import baryon; sys.exit(baryon())"
        done = subprocess.run(
            [sys.executable, "-c", program, *words],
            env={**os.environ, **self.env, "PYTHONPATH": str(REPOSITORY)},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout + done.stderr

    def record(self, name: str) -> Path:
        return Path(self.env["XDG_STATE_HOME"], "baryon", "jobs", f"{name}.json")
