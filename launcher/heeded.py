"""Which launchers use which flags. Pure. A flag without effect is always reported."""

from typing import Dict, FrozenSet, List

from .flags import MANAGERS, Options

__all__ = ["look_for_vain_flags"]

_QUEUES = frozenset(MANAGERS) - {"mpi"}
_ELSEWHERE = frozenset(["ssh", *MANAGERS])
_SSH = frozenset(["ssh"])
_KUBERNETES = frozenset(["kubernetes"])
_BATCH = frozenset(["slurm", "sge"])
_HEEDED: Dict[str, FrozenSet[str]] = {
    **dict.fromkeys(("sync_dst_dir", "fetch", "setup", "ssh_config", "tunnel"), _SSH),
    "accept_new_host_keys": _SSH,
    **dict.fromkeys(("python", "interface"), _ELSEWHERE),
    **dict.fromkeys(("queue", "time", "mem", "cpus_per_worker", "job_name"), _QUEUES),
    **dict.fromkeys(("constraint", "template", "queue_timeout", "time_margin"), _QUEUES),
    "gpus_per_worker": _QUEUES,
    **dict.fromkeys(("account", "mail"), _BATCH),
    "pe": frozenset(["sge"]),
    "extra": frozenset(["slurm", "sge", "mpi", "yarn"]),
    "job_dir": frozenset(["slurm", "sge", "mpi", "yarn"]),
    **dict.fromkeys(("image", "image_pull_secret", "namespace", "context"), _KUBERNETES),
    **dict.fromkeys(("workdir", "shm_size", "spread"), _KUBERNETES),
}
_OF_A_SUBMISSION = (
    *("queue", "account", "time", "mem", "cpus_per_worker", "gpus_per_worker", "job_name"),
    *("mail", "constraint", "extra", "template", "resubmit"),
)
"""Flags for a submission. An allocation has been submitted already."""


def look_for_vain_flags(
    options: Options, launcher: str, is_allocated: bool, faults: List[str], notes: List[str]
) -> None:
    """Add a line about flags that have no effect with ``launcher``.

    A manager's flag without --launcher is a fault: --launcher was probably forgotten, and a job
    meant for a queue should not run on this machine. Otherwise a note is enough: the flag may be
    there for another launcher.
    """
    vain = [name for name in _HEEDED if name in options.given and launcher not in _HEEDED[name]]
    if is_allocated:
        vain += [name for name in _OF_A_SUBMISSION if name in options.given]
    of_managers = [name for name in vain if not _HEEDED[name] & {"ssh"}]
    if options.launcher is None and of_managers:
        able = [name for name in MANAGERS if all(name in _HEEDED[flag] for flag in of_managers)]
        faults.append(
            f"{_flags(of_managers)}: of no use with {launcher}; name the cluster manager: "
            f"--launcher {' or '.join(able or MANAGERS)}"
        )
        vain = [name for name in vain if name not in of_managers]
    where = "in an allocation" if is_allocated else f"with --launcher {launcher}"
    devices = [name for name in vain if name == "gpus_per_worker"]
    rest = [name for name in vain if name not in devices]
    if rest:
        hint = ": tasks run here; did you mean -H HOSTS?" if options.launcher is None else ""
        verb = "has" if len(rest) == 1 else "have"
        notes.append(f"{_flags(rest)} {verb} no effect {where}{hint}")
    if devices:
        notes.append(f"--gpus-per-worker only sets --devices {where}")
    if options.p3:
        notes.append("--p3 changes nothing: arrays are always sliced and sent by priority")
    if "staleness" in options.given and options.kvstore and "ssp" not in options.kvstore:
        notes.append(f"--staleness has no effect with --kvstore {options.kvstore}")


def _flags(names: List[str]) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in names)
