"""Parts that the modules of cluster managers share: a job's files and script, and a command that
runs on this machine as long as the job does."""

import ipaddress
import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence

import psutil

import baryon
from baryon.ps import PeerError, UsageError
from baryon.scheduler.control import Job, own_address

from ..flags import Options

__all__ = [
    "CANCELLED_CODE",
    "Files",
    "Step",
    "description",
    "job_files",
    "launch_address",
    "render",
    "require_commands",
    "split_extra",
    "time_limit",
    "write_script",
]

CANCELLED_CODE = 143
"""A job's exit code if it was ended from outside, as if SIGTERM had ended launch.py."""

_END_LIMIT_S = 5.0
_UNITS_S = {"d": 86400, "h": 3600, "m": 60, "s": 1, "": 1}
_TEMPLATES = Path(baryon.__file__).parent / "templates"


class Files(NamedTuple):
    """The paths of a job's script, of its output outside the control plane, and of the directory
    with its agents' configurations."""

    directory: str
    script: str
    output: str
    configs: str


def job_files(job: Job, options: Options, name: str) -> Files:
    """The paths for a job of the manager ``name``. Creates nothing. Jobs may share a directory."""
    directory = os.path.abspath(options.job_dir or job.log_dir)
    script, output = (os.path.join(directory, f"{name}-{job.id}.{kind}") for kind in ("sh", "out"))
    return Files(directory, script, output, os.path.join(directory, f".agents-{job.id}"))


def require_commands(commands: Sequence[str], remedy: str) -> None:
    """Raises UsageError with the remedy if a command is missing."""
    for command in commands:
        if shutil.which(command) is None:
            raise UsageError(f"{command} is not on PATH here; {remedy}")


def split_extra(options: Options) -> List[str]:
    """The words of all ``--extra``. Raises UsageError if quotes are not closed."""
    words = []
    for line in options.extra:
        try:
            words += shlex.split(line)
        except ValueError as error:
            raise UsageError(f"--extra {line!r}: {error}") from error
    return words


def render(options: Options, name: str, /, **values: object) -> str:
    """Render the user's template, or ours of this name, with ``values``.

    Raises UsageError if that fails.
    """
    import jinja2  # imported late: it is slow, and only managers need it

    path = options.template or str(_TEMPLATES / name)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    try:
        text = Path(path).read_text(encoding="utf-8")
        return environment.from_string(text).render(**values)
    except (OSError, UnicodeDecodeError, jinja2.TemplateError) as error:
        raise UsageError(f"--template {path}: {error}") from error


def time_limit(options: Options) -> Optional[int]:
    """The seconds of ``--time``, for managers without a notation of their own.

    Raises UsageError unless it is as ``4:00:00``, ``1-00:00:00``, ``1h30m`` or ``3600``.
    """
    text = options.time
    if text is None:
        return None
    clock = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", text)
    seconds = 0
    if clock:
        days, hours, minutes, rest = (int(part or 0) for part in clock.groups())
        seconds = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    elif re.fullmatch(r"\d+|(\d+[dhms])+", text):
        seconds = sum(int(n) * _UNITS_S[unit] for n, unit in re.findall(r"(\d+)([dhms]?)", text))
    if not seconds:
        raise UsageError(f"--time {text!r}: write it as 4:00:00, 90m, 4h or seconds")
    return seconds


def description(path: str, script: str, command: Sequence[str]) -> str:
    """The script and the command that would submit it, as text for people."""
    return f"# {path}\n{script}\n# is submitted by\n{shlex.join(command)}\n"


def write_script(path: str, script: str) -> None:
    """Raises PeerError if that fails. The message continues one that begins with the manager."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(path).write_text(script, encoding="utf-8")
    except OSError as error:
        raise PeerError(f"has no script: {path}: {error.strerror}") from error


def launch_address(interfaces: Sequence[str], hosts: Sequence[str]) -> str:
    """The address at which ``hosts`` reach this machine, judged by its routes to them.

    The route to a host that is this machine uses the loopback interface, so other hosts come first.
    Raises PeerError if there is no address.
    """
    problem, loopback = "", ""
    for host in [""] if interfaces else hosts:
        try:
            address = own_address(host, interfaces)
        except OSError as error:
            problem = problem or (f"{host}: {error.strerror}" if host else str(error))
            continue
        if interfaces or not ipaddress.ip_address(address).is_loopback:
            return address
        loopback = address
    if loopback:
        return loopback
    why = problem or "no host is known"
    raise PeerError(f"hosts cannot reach this machine: {why}; name the network by --interface")


class Step:
    """A command that runs on this machine as long as the job does.

    Its output goes to the file ``output``, its standard error to ``errors`` if that is given.
    Raises PeerError if it cannot be started.
    """

    def __init__(self, argv: Sequence[str], output: str, errors: str = "") -> None:
        self._deadline: Optional[float] = None
        try:
            os.makedirs(os.path.dirname(output), exist_ok=True)
            with open(output, "ab") as out, open(errors or os.devnull, "wb") as err:
                self._process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err if errors else out,
                    start_new_session=True,  # Ctrl-C is for launch.py
                )
        except OSError as error:
            raise PeerError(f"could not be started: {error}") from error

    def poll(self) -> Optional[int]:
        """The command's exit code, or minus the signal that ended it; None while it runs."""
        code = self._process.poll()
        if code is None and self._deadline is not None and time.monotonic() > self._deadline:
            self._kill()  # it waits for a host that is down
        return code

    def terminate(self) -> None:
        """Tell the command to end. `poll` kills it if it does not."""
        self._deadline = time.monotonic() + _END_LIMIT_S
        self._process.terminate()

    def _kill(self) -> None:
        """End the command and its connections, which are processes below it."""
        try:
            below = psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return
        self._process.kill()
        for process in below:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass
