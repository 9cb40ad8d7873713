"""Records of detached jobs, for other shells: one small file per job in the home directory.

The file is ``$XDG_STATE_HOME/baryon/jobs/JOB.json``, by default below ``~/.local/state``. The job's
own process writes it. When another job is detached, records of ended jobs that are a month old are
removed.
"""

import os
import socket
import time
from pathlib import Path
from typing import List, Optional

import msgspec
import psutil

from baryon.ps import UsageError
from baryon.scheduler.control import Job

__all__ = ["Record", "find", "load_all", "record_of", "remove_old", "save"]

_KEPT_S = 30 * 24 * 3600.0


class Record(msgspec.Struct):
    """``pid`` on ``machine``, started at ``pid_time`` (seconds since 1970), runs ``launch.py``.

    ``output`` is the file with the job's messages. A job may be submitted more than once: ``run``,
    ``log_dir`` and ``manager_job``, the cluster manager's name for it, are those of the last time.
    ``exit_code`` and ``end_time`` are set when the job is over.
    """

    job: str
    command: List[str]
    launcher: str
    machine: str
    pid: int
    pid_time: float
    output: str
    run: str
    log_dir: str
    manager_job: str = ""
    exit_code: Optional[int] = None
    end_time: float = 0.0

    @property
    def is_here(self) -> bool:
        return self.machine == socket.gethostname()

    def process(self) -> Optional[psutil.Process]:
        """The job's process if it runs, on this machine."""
        try:
            process = psutil.Process(self.pid)
            is_it = self.is_here and abs(process.create_time() - self.pid_time) < 1.0
            return process if is_it and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    def state(self) -> str:
        """The job's state, in a few words."""
        if self.exit_code is not None:
            return "ended well" if self.exit_code == 0 else f"ended with code {self.exit_code}"
        if not self.is_here:
            return f"known to {self.machine} only"
        return "runs" if self.process() is not None else "its launch.py was killed"


def record_of(job: Job) -> Record:
    """The record of a job that this process runs."""
    process = psutil.Process()
    return Record(
        job=job.id,
        command=list(job.command),
        launcher=job.launcher,
        machine=socket.gethostname(),
        pid=process.pid,
        pid_time=process.create_time(),
        output=os.path.join(job.log_dir, "launch.log"),
        run=job.id,
        log_dir=job.log_dir,
    )


def save(record: Record) -> None:
    """Write the record, atomically. Raises UsageError if that fails."""
    folder = _folder()
    path = folder / f"{record.job}.json"
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        part.write_bytes(msgspec.json.encode(record))
        part.replace(path)
    except OSError as error:
        raise UsageError(
            f"{folder}: {error.strerror}; set XDG_STATE_HOME to another directory for the records "
            "of detached jobs"
        ) from error


def load_all() -> List[Record]:
    """All records, the oldest first."""
    records = []
    for path in sorted(_folder().glob("*.json")):
        try:
            records.append(msgspec.json.decode(path.read_bytes(), type=Record))
        except (OSError, msgspec.DecodeError):
            continue  # removed meanwhile, or written by another version
    return records


def find(job: Optional[str]) -> Record:
    """The record of the job with that name, or of the newest job. Raises UsageError."""
    records = load_all()
    if not records:
        raise UsageError(f"no job was detached here ({_folder()} is empty); launch.py --detach")
    found = [record for record in records if job in (None, record.job)]
    if not found:
        known = ", ".join(record.job for record in records[-5:])
        raise UsageError(f"there is no job {job}; the last ones are {known}")
    return found[-1]


def remove_old() -> None:
    """Remove records that are a month old, unless their jobs run."""
    for record in load_all():
        path = _folder() / f"{record.job}.json"
        try:
            is_old = time.time() - path.stat().st_mtime > _KEPT_S
            if is_old and record.is_here and record.process() is None:
                path.unlink()
        except OSError:
            pass  # another process removed it


def _folder() -> Path:
    """As platformdirs.user_state_path gives it on Linux, which is all that Baryon runs on."""
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(home, "baryon", "jobs")
