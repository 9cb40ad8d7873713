"""Translates the flags of other launchers: torchrun, mpirun, horovodrun, dmlc-submit."""

import difflib
from typing import Iterable, Optional

__all__ = ["remedy_for", "translated"]

_SAME = {
    "-np": "-n",  # mpirun, horovodrun
    "--np": "-n",
    "--num-proc": "-n",
    "--hosts": "-H",
    "--host": "-H",
    "--host-file": "-H",
    "--machinefile": "-H",
    "-host": "-H",
    "-hosts": "-H",
    "-hostfile": "-H",
    "-machinefile": "-H",
    "-x": "--env",
    "--nproc-per-node": "--workers-per-host",  # torchrun
    "--npernode": "--workers-per-host",
    "--ntasks-per-node": "--workers-per-host",
    "-npernode": "--workers-per-host",
    "-ppn": "--workers-per-host",
    "--module": "-m",
    "--cluster": "--launcher",  # dmlc-submit
    "--jobname": "--job-name",
    "-mca": "--mca",  # of mpirun: no module "ca"
}

_ALL_HOSTS = (
    "launch.py is started once, and starts what runs on all hosts: launch.py -n 4 -H node1,node2 "
    "train.py"
)
_DEVICES = "--devices N says how many each worker uses"
_MPIRUN = "for mpirun, write --launcher mpi --extra='{} ...'"
_ELSE = {
    **dict.fromkeys(
        (
            "--nnodes",
            "--num-nodes",
            "--node-rank",
            "--master-addr",
            "--master-port",
            "--standalone",
        ),
        _ALL_HOSTS,
    ),
    **dict.fromkeys(("--num-gpus", "--gpus", "--gpus-per-node", "--gpus-per-task"), _DEVICES),
    **dict.fromkeys(
        ("--bind-to", "--map-by", "--mca", "--allow-run-as-root", "--oversubscribe"),
        _MPIRUN,
    ),
    "--worker-cores": "with a cluster manager, --cpus-per-worker N",
    "--worker-memory": "with a cluster manager, --mem SIZE is of a host",
}


def translated(word: str) -> str:
    """A word of the command line; if it is another launcher's flag, ours of the same meaning."""
    name, equals, value = word.partition("=")
    if name.startswith("--"):
        name = name.replace("_", "-")
    return _SAME.get(name, name) + equals + value if name.startswith("-") else word


def remedy_for(word: str, known: Iterable[str]) -> Optional[str]:
    """What to write instead of a flag that is not among the ``known`` ones; None if unknown."""
    name = translated(word).partition("=")[0]
    if name.startswith("--rdzv-"):
        return _ALL_HOSTS
    if name in _ELSE:
        return _ELSE[name].format(name)
    close = difflib.get_close_matches(name, [flag for flag in known if flag[:2] == "--"], 1, 0.8)
    return f"did you mean {close[0]}?" if close and name[:2] == "--" else None
